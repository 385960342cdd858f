/**
 * Simulates how many writes visitors cause, how many dead rows the table contains, how large it grows, and whether
 * autovacuum keeps up. `npx tsx bench/scale/simulate.ts` prints the tables of docs/scale.md, and
 * `npx tsx bench/scale/check.ts` compares the model with a real server.
 *
 * Only a sample of the sessions is simulated, request by request. The work that vacuum and deletion do in a second is
 * reduced in the same proportion. The model leaves out analyze, freezing, truncation, waits for the disk, and a second
 * pass over the indexes, which vacuum needs if its memory for dead rows is too small.
 */

import { pathToFileURL } from 'node:url';
import { random as randomFrom } from '../../spec/support/random.js';
import { figure, table } from '../figures/report.js';
import { type Storage, TableModel } from './table-model.js';
import { type Calls, type Traffic, Visitors } from './visitors.js';

export interface Scenario extends Traffic, Storage {
  /** How many sessions the table has; `sample` of them are simulated. */
  readonly sessions: number;
  /** Option `autodelete`: the seconds between two deletions of expired rows. */
  readonly autodelete: number;
  /** How many processes delete expired rows. */
  readonly apps: number;
  /** How many rows are deleted in a second while a deletion runs. */
  readonly deletionRate: number;
  readonly partitions: number;
  /** autovacuum_vacuum_scale_factor. */
  readonly scaleFactor: number;
  /** autovacuum_vacuum_cost_delay, in milliseconds. */
  readonly costDelay: number;
  /** autovacuum_naptime, in seconds. */
  readonly naptime: number;
}

/** The visitors of docs/scale.md, and the defaults of PostgreSQL and the store. */
export const DEFAULTS: Scenario = {
  sessions: 1e6,
  sample: 100_000,
  seconds: 86_400,
  active: 0.01,
  visit: 600,
  pause: 6,
  changes: 0.02,
  signOuts: 0.1,
  ttl: 86_400,
  touchAfter: 60,
  autodelete: 900,
  apps: 1,
  deletionRate: 46_000,
  row: 904,
  index: 127,
  cached: 0,
  partitions: 1,
  fillfactor: 90,
  scaleFactor: 0.2,
  costDelay: 2,
  naptime: 60,
};
/** PostgreSQL's defaults of autovacuum_max_workers and vacuum_cost_limit. */
const WORKERS = 3;
const COST_LIMIT = 200;
/**
 * The seconds that vacuum needs for a page, besides its pauses: for one in shared buffers, and for one that must be
 * read first. bench/scale/check.ts measured them.
 */
const WORK = 7e-6;
const WORK_AND_READ = 40e-6;

type Counts = Record<'requests' | 'created' | 'touches' | 'changes' | 'deleted', number>;

/** The results of a simulation. Those about rows and bytes are scaled up to all sessions, except `counts`. */
export interface Outcome {
  /** The numbers of requests and writes of the sample. */
  readonly counts: Counts;
  /** The sample's updates that were heap-only. */
  readonly inPlace: number;
  /** How many vacuums ended, and how many seconds they took together. */
  readonly vacuums: number;
  readonly vacuumSeconds: number;
  /** The seconds of the longest vacuum, even if it has not ended. */
  readonly longest: number;
  /** The seconds that all vacuum workers ran, together. */
  readonly workerSeconds: number;
  /** The largest number of dead rows at a time. */
  readonly dead: number;
  /** The largest number of dead rows in PostgreSQL's statistics. */
  readonly counted: number;
  /** The largest number of expired rows that were not yet deleted. */
  readonly expired: number;
  /** The table's size in bytes at the start, in the middle and at the end. */
  readonly bytes: readonly [number, number, number];
  readonly indexBytes: number;
}

export function simulate(scenario: Scenario, seed = 1): Outcome {
  return new Simulation(scenario, seed).run();
}

/** The table of a sample of the sessions, which the calls of their visitors, autodelete and autovacuum change. */
class Simulation implements Calls {
  readonly #scenario: Scenario;
  /** The share of the sessions that is simulated. */
  readonly #scale: number;
  readonly #parts: readonly TableModel[];
  readonly #visitors: Visitors;
  readonly #autodelete: Autodelete;
  readonly #autovacuum: Autovacuum;
  readonly #counts: Counts = { requests: 0, created: 0, touches: 0, changes: 0, deleted: 0 };
  /** The page of each row. */
  readonly #pageOf: number[] = [];
  /** Each row's `delete_after`, the indexed column, in seconds. */
  readonly #deleteAfter: number[] = [];

  constructor(scenario: Scenario, seed: number) {
    this.#scenario = scenario;
    this.#scale = scenario.sample / scenario.sessions;
    this.#parts = Array.from({ length: scenario.partitions }, () => new TableModel(scenario));
    this.#visitors = new Visitors(scenario, this, seed);
    const random = randomFrom(seed + 1);
    this.#fill(random);
    this.#autodelete = new Autodelete(scenario, this.#scale, random);
    this.#autovacuum = new Autovacuum(this.#parts, scenario, this.#scale);
  }

  run(): Outcome {
    const { seconds } = this.#scenario;
    const peaks = { dead: 0, counted: 0, expired: 0 };
    const sizes = [this.#bytes()];
    for (let now = 0; now < seconds; now++) {
      if (now === Math.floor(seconds / 2)) sizes.push(this.#bytes());
      this.#visitors.second(now);
      for (const row of this.#autodelete.second(now)) this.destroy(row);
      this.#autovacuum.second(now);
      peaks.dead = Math.max(peaks.dead, this.#sum((part) => part.dead) / this.#scale);
      peaks.counted = Math.max(peaks.counted, this.#sum((part) => part.counted) / this.#scale);
      peaks.expired = Math.max(peaks.expired, this.#autodelete.expired / this.#scale);
    }
    return {
      counts: this.#counts,
      inPlace: this.#sum((part) => part.inPlace),
      ...this.#autovacuum.totals,
      ...peaks,
      bytes: [sizes[0], sizes[1], this.#bytes()],
      indexBytes: (this.#sum((part) => part.indexPages) * 8192) / this.#scale,
    };
  }

  create(row: number, at: number): void {
    const { ttl } = this.#scenario;
    this.#counts.requests++;
    this.#counts.created++;
    this.#pageOf[row] = this.#partOf(row).insert();
    this.#deleteAfter[row] = at + ttl + slackOf(ttl);
  }

  request(row: number, at: number, changes: boolean, movesExpiry: boolean): void {
    this.#counts.requests++;
    if (!changes && !movesExpiry) return;
    if (changes) this.#counts.changes++;
    else this.#counts.touches++;
    const changesIndex = movesExpiry && this.#movesDeletion(row, at + this.#scenario.ttl);
    this.#pageOf[row] = this.#partOf(row).update(this.#pageOf[row], !changesIndex);
  }

  destroy(row: number): void {
    this.#counts.deleted++;
    this.#partOf(row).remove(this.#pageOf[row]);
  }

  expire(row: number): void {
    this.#autodelete.add(row, this.#deleteAfter[row]);
  }

  /** Inserts the rows that the table has at the start. */
  #fill(random: () => number): void {
    const { sample, ttl } = this.#scenario;
    for (let row = 0; row < sample; row++) {
      this.#pageOf[row] = this.#partOf(row).insert();
      // Requests before the simulation have used up a part of the time by which `delete_after` is later than the
      // expiry.
      this.#deleteAfter[row] = this.#visitors.expiresAt[row] + slackOf(ttl) * random();
    }
    for (const part of this.#parts) part.rest();
  }

  /** Sets a row's `delete_after` for a new expiry, if the old one does not fit. @returns whether it was set */
  #movesDeletion(row: number, expiry: number): boolean {
    const { ttl } = this.#scenario;
    if (this.#deleteAfter[row] >= expiry && this.#deleteAfter[row] <= expiry + ttl / 5) return false;
    this.#deleteAfter[row] = expiry + slackOf(ttl);
    return true;
  }

  #partOf(row: number): TableModel {
    return this.#parts[row % this.#parts.length];
  }

  #sum(of: (part: TableModel) => number): number {
    return this.#parts.reduce((total, part) => total + of(part), 0);
  }

  /** The size of the table of all sessions, without its indexes. */
  #bytes(): number {
    return (this.#sum((part) => part.pages) * 8192) / this.#scale;
  }
}

/** Finds expired rows after their `delete_after`, and deletes them when the timer of an app fires. */
class Autodelete {
  /** How many rows of the sample are deleted in a second while a deletion runs. */
  readonly #rate: number;
  readonly #timers: { readonly period: number; next: number }[];
  /** Expired rows by the second of their `delete_after`, before which they are not found. */
  readonly #due = new Map<number, number[]>();
  /** How many rows are in `#due`. */
  #waiting = 0;
  /** Rows that can be deleted. */
  readonly #found: number[] = [];
  /** How many of these the running deletion has still to delete. */
  #doomed = 0;
  #now = 0;

  constructor({ apps, autodelete, deletionRate }: Scenario, scale: number, random: () => number) {
    this.#rate = Math.ceil(deletionRate * scale);
    this.#timers = Array.from({ length: apps }, () => {
      const period = autodelete * (0.75 + random() / 2);
      return { period, next: period * random() };
    });
  }

  /** How many expired rows have not been deleted yet. */
  get expired(): number {
    return this.#found.length + this.#waiting;
  }

  /** Takes note of a row that has expired. */
  add(row: number, deleteAfter: number): void {
    const second = Math.max(Math.ceil(deleteAfter), this.#now);
    this.#due.set(second, [...(this.#due.get(second) ?? []), row]);
    this.#waiting++;
  }

  /** @returns the rows that are deleted in this second */
  second(now: number): number[] {
    const found = this.#due.get(now) ?? [];
    this.#due.delete(now);
    this.#waiting -= found.length;
    this.#found.push(...found);
    for (const timer of this.#timers) {
      if (now < timer.next) continue;
      timer.next += timer.period;
      this.#doomed = this.#found.length;
    }
    const deleted = this.#found.splice(0, Math.min(this.#doomed, this.#rate));
    this.#doomed -= deleted.length;
    this.#now = now + 1;
    return deleted;
  }
}

/** Starts vacuum workers when autovacuum's condition is met, and lets them work with their pauses. */
class Autovacuum {
  readonly totals = { vacuums: 0, vacuumSeconds: 0, longest: 0, workerSeconds: 0 };
  readonly #parts: readonly TableModel[];
  readonly #scenario: Scenario;
  readonly #scale: number;
  /** The seconds that a page takes without pauses. */
  readonly #pageSeconds: number;
  /** Each worker with the pages that it vacuums, and the seconds that it has left in this second. */
  readonly #workers: { readonly pages: Generator<number>; left: number }[] = [];
  /** The pause for each unit of vacuum's cost, in seconds. */
  #pause = 0;

  constructor(parts: readonly TableModel[], scenario: Scenario, scale: number) {
    this.#parts = parts;
    this.#scenario = scenario;
    this.#scale = scale;
    this.#pageSeconds = scenario.cached * WORK + (1 - scenario.cached) * WORK_AND_READ;
  }

  second(now: number): void {
    const { naptime, costDelay } = this.#scenario;
    if (now % naptime === 0 && this.#workers.length < WORKERS && this.#parts.some((part) => this.#isDue(part))) {
      this.#workers.push({ pages: this.#vacuumAll(), left: 0 });
    }
    // All workers share one cost limit, so each pauses longer if several run.
    this.#pause = (costDelay / 1000 / COST_LIMIT) * this.#workers.length;
    this.totals.workerSeconds += this.#workers.length;
    for (const worker of [...this.#workers]) {
      for (worker.left += this.#scale; worker.left > 0; ) {
        const { done, value } = worker.pages.next();
        if (done) this.#workers.splice(this.#workers.indexOf(worker), 1);
        worker.left -= done ? worker.left : value;
      }
    }
  }

  #isDue(part: TableModel): boolean {
    return part.needsVacuum(this.#scenario.scaleFactor, this.#scale);
  }

  /** Vacuums all partitions that need it. @yields the seconds that each page takes */
  *#vacuumAll(): Generator<number> {
    for (const part of this.#parts.filter((one) => this.#isDue(one))) {
      // Another worker may have vacuumed the partition meanwhile.
      if (!this.#isDue(part)) continue;
      let took = 0;
      for (const cost of part.vacuum()) {
        const spent = this.#pageSeconds + cost * this.#pause;
        took += spent / this.#scale;
        this.totals.longest = Math.max(this.totals.longest, took);
        yield spent;
      }
      this.totals.vacuums++;
      this.totals.vacuumSeconds += took;
    }
  }
}

/** Seconds by which `delete_after` is later than the expiry when it is set: a tenth of the lifetime. */
export function slackOf(lifetime: number): number {
  return lifetime / 10;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) report();

function report(): void {
  const pick = (from: Partial<Scenario>, also: Partial<Scenario> = {}) => ({
    ...DEFAULTS,
    sample: 50_000,
    ...from,
    ...also,
  });
  const kinds: Record<string, Partial<Scenario>> = {
    'a request each 6 s': {},
    'touchAfter 300': { touchAfter: 300 },
    'touchAfter 0': { touchAfter: 0 },
    'a request each minute': { pause: 60 },
    'visits of a minute': { visit: 60, active: 0.001 },
    'ttl 300': { ttl: 300, active: 0.6, sample: 5_000 },
  };
  const writes = Object.entries(kinds).map(([name, change]) => {
    const { counts, inPlace } = simulate(pick(change, { seconds: 14_400 }));
    const { requests, ...written } = counts;
    const sum = Object.values(written).reduce((total, count) => total + count, 0);
    const each = [...Object.values(written), sum, inPlace].map((count) => ((100 * count) / requests).toFixed(1));
    return [name, ...each];
  });
  console.log(table(['writes for 100 requests', 'new', 'touches', 'changes', 'deleted', 'all', 'heap-only'], writes));

  const advised = { scaleFactor: 0.1, costDelay: 0 };
  const tunings: Record<string, Partial<Scenario>> = {
    default: {},
    'default, 16 partitions': { partitions: 16 },
    'no pauses': { costDelay: 0 },
    'no pauses, a share of 0.02': { costDelay: 0, scaleFactor: 0.02 },
    advised,
    'advised, 16 partitions': { ...advised, partitions: 16 },
  };
  for (const [sessions, cached, days] of [
    [1e6, 0, 1],
    [1e8, 0, 2],
    [1e8, 1, 2],
    [1e9, 0, 1],
  ]) {
    const rows = Object.entries(tunings).map(([name, tuning]) => {
      const seconds = 86_400 * days;
      const { dead, counted, vacuums, workerSeconds, longest, bytes, indexBytes } = simulate(
        pick(tuning, { sessions, cached, seconds, sample: 20_000 }),
      );
      const running = `${Math.round((100 * workerSeconds) / seconds)} %`;
      const gigabytes = [...bytes, indexBytes].map((size) => figure(size / 1e9));
      return [name, figure(dead), figure(counted), figure(vacuums / days), figure(longest), running, ...gigabytes];
    });
    const title = `${figure(sessions)} sessions, ${24 * days} h, pages ${cached ? 'in memory' : 'on disk'}`;
    const vacuum = ['vacuums a day', 'longest, s', 'running'];
    const sizes = ['table at first, GB', 'half time', 'at the end', 'indexes'];
    console.log(`\n${table([title, 'dead at most', 'counted', ...vacuum, ...sizes], rows)}`);
  }

  const deletions = [{}, { apps: 8 }, { autodelete: 60 }].map((change) => {
    const { expired } = simulate(pick(change, { sessions: 1e8, sample: 20_000 }));
    const { apps, autodelete } = pick(change);
    return [`${apps} apps, each ${autodelete} s`, figure(expired), `${((100 * expired) / 1e8).toFixed(2)} %`];
  });
  console.log(`\n${table(['100,000,000 sessions', 'expired at most', 'of all'], deletions)}`);
}
