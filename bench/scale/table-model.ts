/**
 * Models the pages of a table: their free space, rows and dead rows, and the line pointers that pruning leaves until
 * vacuum removes them. It follows the heap of PostgreSQL 18 (src/backend/access/heap: README.HOT, pruneheap.c, hio.c,
 * vacuumlazy.c).
 */

export interface Storage {
  /** Bytes of a row on its page, with its line pointer. */
  readonly row: number;
  /** Bytes of a row's entries in all indexes. */
  readonly index: number;
  /** In percent, as in PostgreSQL. */
  readonly fillfactor: number;
  /** Share of the pages that vacuum finds in shared buffers, and changed already, 0 to 1. */
  readonly cached: number;
}

const PAGE = 8192;
const PAGE_HEADER = 24;
const POINTER = 4;
/**
 * Bytes of a dead row's entry in the index on the expiry, whose pages are nine tenths full. In the other indexes,
 * PostgreSQL removes such entries when new ones need the space (bottom-up index deletion).
 */
const DEAD_ENTRY = 22;

/** Vacuum skips pages that are all-visible only if at least so many of them follow one another. */
const SKIPPED_AT_ONCE = 32;

/** PostgreSQL's defaults of vacuum_cost_page_hit, vacuum_cost_page_miss and vacuum_cost_page_dirty. */
const HIT = 1;
const MISS = 2;
const DIRTY = 20;
/** PostgreSQL's defaults of autovacuum_vacuum_threshold and autovacuum_vacuum_max_threshold. */
const THRESHOLD = 50;
const MAX_THRESHOLD = 1e8;

/** A table, or a partition of one. */
export class TableModel {
  /** How many dead rows have index entries or line pointers that vacuum has to remove. */
  dead = 0;
  /** The dead rows in PostgreSQL's statistics, which start autovacuum. The end of a vacuum sets them to 0. */
  counted = 0;
  live = 0;
  indexPages = 0;
  isBeingVacuumed = false;
  /** How many updates were heap-only. */
  inPlace = 0;
  /** The free bytes of each page. */
  readonly #room: number[] = [];
  readonly #rowBytes: number;
  /** The bytes of a page that `fillfactor` keeps free of new rows. */
  readonly #reserve: number;
  readonly #index: number;
  readonly #cached: number;
  /** For each page, the dead rows whose space pruning can reclaim, except for their line pointers. */
  readonly #prunable: number[] = [];
  /** For each page, the dead rows of heap-only updates, whose space pruning can reclaim completely. */
  readonly #updatedInPlace: number[] = [];
  /** For each page, the line pointers that pruning has left. */
  readonly #pointers: number[] = [];
  /** For each page, whether an update found no space on it. */
  readonly #wasFull: boolean[] = [];
  /** For each page, whether it has changed since the last vacuum. */
  readonly #isChanged: boolean[] = [];
  /** Pages that the free space map knows to have space for a row. */
  readonly #noted = new Set<number>();
  /** The page to which new rows go. */
  #target = -1;

  constructor({ row, fillfactor, index, cached }: Storage) {
    this.#rowBytes = row;
    this.#reserve = (PAGE * (100 - fillfactor)) / 100;
    this.#index = index;
    this.#cached = cached;
  }

  get pages(): number {
    return this.#room.length;
  }

  /** Brings the table to the state after a vacuum. */
  rest(): void {
    this.#isChanged.length = 0;
    this.indexPages = Math.ceil((this.live * this.#index) / PAGE);
  }

  /** @returns the new row's page */
  insert(): number {
    this.live++;
    return this.#put();
  }

  /** @returns the page of the row's new version */
  update(page: number, keepsIndexes: boolean): number {
    this.#prune(page);
    this.#die(page);
    if (this.#room[page] < this.#rowBytes) {
      this.#wasFull[page] = true;
      this.#prunable[page]++;
      return this.#put();
    }
    this.#room[page] -= this.#rowBytes;
    if (keepsIndexes) this.inPlace++;
    (keepsIndexes ? this.#updatedInPlace : this.#prunable)[page]++;
    return page;
  }

  remove(page: number): void {
    this.live--;
    this.#prunable[page]++;
    this.#die(page);
  }

  /** Whether autovacuum's condition is met. @param sampled the share of the sessions that is simulated */
  needsVacuum(scaleFactor: number, sampled: number): boolean {
    const trigger = Math.min(THRESHOLD + (scaleFactor * this.live) / sampled, MAX_THRESHOLD) * sampled;
    return !this.isBeingVacuumed && this.counted > trigger;
  }

  /** Vacuums the table. @yields each page's cost, in the units of vacuum_cost_limit */
  *vacuum(): Generator<number> {
    this.isBeingVacuumed = true;
    const pages = this.#room.flatMap((_, page) => (this.#isChanged[page] ? [page] : []));
    const read = this.#cached * HIT + (1 - this.#cached) * MISS;
    const written = read + (1 - this.#cached) * DIRTY;
    const found = new Map<number, number>();
    for (const [n, page] of pages.entries()) {
      const unchanged = page - (pages[n - 1] ?? -1) - 1;
      if (unchanged < SKIPPED_AT_ONCE) for (let left = unchanged; left > 0; left--) yield read;
      this.#prune(page, true);
      if (this.#pointers[page] > 0) found.set(page, this.#pointers[page]);
      this.#isChanged[page] = false;
      this.#note(page);
      yield written;
    }
    const deadOnPage = this.dead / this.indexPages;
    for (let n = 0; n < this.indexPages; n++) yield read + (1 - this.#cached) * DIRTY * (1 - Math.exp(-deadOnPage));
    for (const [page, pointers] of found) {
      this.#pointers[page] -= pointers;
      this.dead -= pointers;
      this.#room[page] += pointers * POINTER;
      this.#note(page);
      yield written;
    }
    this.counted = 0;
    this.isBeingVacuumed = false;
  }

  /** Puts a page with enough space into the free space map. */
  #note(page: number): void {
    if (this.#room[page] >= this.#rowBytes + this.#reserve) this.#noted.add(page);
  }

  /** Puts a row on a page with enough space. @returns the page */
  #put(): number {
    while (!(this.#room[this.#target] >= this.#rowBytes + this.#reserve)) {
      const [noted] = this.#noted;
      this.#target = noted ?? this.#extend();
      this.#noted.delete(this.#target);
    }
    this.#room[this.#target] -= this.#rowBytes;
    this.#isChanged[this.#target] = true;
    return this.#target;
  }

  /** Adds a page to the table. */
  #extend(): number {
    for (const counts of [this.#prunable, this.#updatedInPlace, this.#pointers]) counts.push(0);
    return this.#room.push(PAGE - PAGE_HEADER) - 1;
  }

  /** Notes that a row on the page is dead. */
  #die(page: number): void {
    this.dead++;
    this.counted++;
    this.#isChanged[page] = true;
    const indexBytes = this.live * this.#index + this.dead * DEAD_ENTRY;
    this.indexPages = Math.max(this.indexPages, Math.ceil(indexBytes / PAGE));
  }

  /**
   * Reclaims the space of a page's dead rows. Besides vacuum, PostgreSQL does so when it accesses a page that was found
   * full, or has less free space than a tenth of the page or than its reserve.
   *
   * @param always whether to prune a page with more free space, as vacuum does
   */
  #prune(page: number, always = false): void {
    if (!always && !this.#wasFull[page] && this.#room[page] >= Math.max(PAGE / 10, this.#reserve)) return;
    const rows = this.#prunable[page];
    const inPlace = this.#updatedInPlace[page];
    this.#room[page] += rows * (this.#rowBytes - POINTER) + inPlace * this.#rowBytes;
    this.#pointers[page] += rows;
    this.dead -= inPlace;
    this.counted -= inPlace;
    this.#prunable[page] = this.#updatedInPlace[page] = 0;
    this.#wasFull[page] = false;
  }
}
