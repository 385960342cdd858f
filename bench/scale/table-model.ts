/**
 * What lies on each page of a table: room, rows, dead rows, and the pointers that pruning leaves of
 * them until vacuum comes? After PostgreSQL 18's heap (src/backend/access/heap: README.HOT,
 * pruneheap.c, hio.c, vacuumlazy.c).
 */

export interface Storage {
  /** Bytes of a row on its page, with its pointer, and of its share of the indexes. */
  readonly row: number;
  readonly index: number;
  readonly fillfactor: number;
  /** Share of vacuum's pages that are in shared buffers and dirty already. */
  readonly cached: number;
}

const PAGE = 8192;
const PAGE_HEADER = 24;
const POINTER = 4;
/**
 * A dead row's entry in the index on the expiry, at nine tenths of a page. From the other indexes
 * such entries go as new ones need the room (bottom-up deletion).
 */
const DEAD_ENTRY = 22;

/** Vacuum leaves out pages that are all visible only where so many follow one another. */
const SKIPPED_AT_ONCE = 32;

/**
 * PostgreSQL's defaults: vacuum_cost_page_hit, _miss, _dirty, autovacuum_vacuum_threshold,
 * _max_threshold.
 */
const [HIT, MISS, DIRTY, THRESHOLD, MAX_THRESHOLD] = [1, 2, 20, 50, 1e8];

/** A table, or a partition of it. */
export class TableModel {
  dead = 0;
  /**
   * As PostgreSQL counts them, for the trigger: what dies during a vacuum is forgotten at its end.
   */
  counted = 0;
  live = 0;
  indexPages = 0;
  isBeingVacuumed = false;
  inPlace = 0;
  readonly #room: number[] = [];
  readonly #rowBytes: number;
  readonly #reserve: number;
  readonly #index: number;
  readonly #cached: number;
  /**
   * Dead rows whose space pruning can take back: it leaves a pointer of each, of those updated in
   * place nothing.
   */
  readonly #prunable: number[] = [];
  readonly #updatedInPlace: number[] = [];
  readonly #pointers: number[] = [];
  readonly #wasFull: boolean[] = [];
  readonly #isChanged: boolean[] = [];
  /** Pages whose room vacuum has noted, and the one that is being filled. */
  readonly #noted = new Set<number>();
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

  /** As after a vacuum: no page has changed. */
  rest(): void {
    this.#isChanged.length = 0;
    this.indexPages = Math.ceil((this.live * this.#index) / PAGE);
  }

  /** @returns the page */
  insert(): number {
    this.live++;
    return this.#put();
  }

  /** @returns the row's page from now on */
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

  needsVacuum(scaleFactor: number, sampled: number): boolean {
    const trigger = Math.min(THRESHOLD + (scaleFactor * this.live) / sampled, MAX_THRESHOLD) * sampled;
    return !this.isBeingVacuumed && this.counted > trigger;
  }

  /** @yields each page's cost */
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

  /** Pages of which vacuum knows that there is room for a new row. */
  #note(page: number): void {
    if (this.#room[page] >= this.#rowBytes + this.#reserve) this.#noted.add(page);
  }

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

  #extend(): number {
    for (const counts of [this.#prunable, this.#updatedInPlace, this.#pointers]) counts.push(0);
    return this.#room.push(PAGE - PAGE_HEADER) - 1;
  }

  #die(page: number): void {
    this.dead++;
    this.counted++;
    this.#isChanged[page] = true;
    const indexBytes = this.live * this.#index + this.dead * DEAD_ENTRY;
    this.indexPages = Math.max(this.indexPages, Math.ceil(indexBytes / PAGE));
  }

  /**
   * PostgreSQL does so at the next access to a page that was found full, or that has less than a
   * tenth or its reserve left.
   */
  #prune(page: number, always = false): void {
    if (!always && !this.#wasFull[page] && this.#room[page] >= Math.max(PAGE / 10, this.#reserve)) return;
    const [rows, inPlace] = [this.#prunable[page], this.#updatedInPlace[page]];
    this.#room[page] += rows * (this.#rowBytes - POINTER) + inPlace * this.#rowBytes;
    this.#pointers[page] += rows;
    this.dead -= inPlace;
    this.counted -= inPlace;
    this.#prunable[page] = this.#updatedInPlace[page] = 0;
    this.#wasFull[page] = false;
  }
}
