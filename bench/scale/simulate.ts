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
import { type Traffic, Visitors } from './visitors.js';

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

/** The results of a simulation. Those about rows and bytes are scaled up to all sessions, except `counts`. */
export interface Outcome {
  /** The numbers of requests and writes of the sample. */
  readonly counts: Record<'requests' | 'created' | 'touches' | 'changes' | 'deleted', number>;
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
  const { sample, sessions, seconds, partitions, scaleFactor, costDelay, naptime, autodelete } = scenario;
  const scale = sample / sessions;
  const parts = Array.from({ length: partitions }, () => new TableModel(scenario));
  const pageOf: number[] = [];
  /** Each row's `delete_after`, the indexed column, in seconds. */
  const deleteAfter: number[] = [];
  const movesDeletion = (row: number, expiry: number) => {
    if (deleteAfter[row] >= expiry && deleteAfter[row] <= expiry + scenario.ttl / 5) return false;
    deleteAfter[row] = expiry + slackOf(scenario.ttl);
    return true;
  };
  const partOf = (row: number) => parts[row % partitions];
  const counts = { requests: 0, created: 0, touches: 0, changes: 0, deleted: 0 };
  /** Expired rows by the second of their `delete_after`, before which autodelete does not find them. */
  const due = new Map<number, number[]>();
  /** How many rows are in `due`. */
  let lingering = 0;
  let clock = 0;
  /** Rows that autodelete can delete. */
  const expired: number[] = [];
  /** How many of these the running deletion has still to delete. */
  let doomed = 0;
  const remove = (row: number) => {
    counts.deleted++;
    partOf(row).remove(pageOf[row]);
  };
  const visitors = new Visitors(
    scenario,
    {
      create: (row, at) => {
        counts.requests++;
        counts.created++;
        pageOf[row] = partOf(row).insert();
        deleteAfter[row] = at + scenario.ttl + slackOf(scenario.ttl);
      },
      request: (row, at, changes, movesExpiry) => {
        counts.requests++;
        if (!changes && !movesExpiry) return;
        if (changes) counts.changes++;
        else counts.touches++;
        const changesIndex = movesExpiry && movesDeletion(row, at + scenario.ttl);
        pageOf[row] = partOf(row).update(pageOf[row], !changesIndex);
      },
      destroy: remove,
      expire: (row) => {
        lingering++;
        const second = Math.max(Math.ceil(deleteAfter[row]), clock);
        due.set(second, [...(due.get(second) ?? []), row]);
      },
    },
    seed,
  );
  const random = randomFrom(seed + 1);
  for (let row = 0; row < sample; row++) {
    pageOf[row] = partOf(row).insert();
    // Requests before the simulation have used up a part of the time by which `delete_after` is later than the expiry.
    deleteAfter[row] = visitors.expiresAt[row] + slackOf(scenario.ttl) * random();
  }
  for (const part of parts) part.rest();

  const timers = Array.from({ length: scenario.apps }, () => {
    const period = autodelete * (0.75 + random() / 2);
    return { period, next: period * random() };
  });
  const workers: { pages: Generator<number>; left: number }[] = [];
  const peaks = { dead: 0, counted: 0, expired: 0 };
  const vacuumed = { vacuums: 0, vacuumSeconds: 0, longest: 0, workerSeconds: 0 };
  const pageWork = scenario.cached * WORK + (1 - scenario.cached) * WORK_AND_READ;
  let pause = 0;
  const isDue = (part: TableModel) => part.needsVacuum(scaleFactor, scale);
  function* vacuumAll(): Generator<number> {
    for (const part of parts.filter(isDue)) {
      // Another worker may have vacuumed the partition meanwhile.
      if (!isDue(part)) continue;
      let took = 0;
      for (const cost of part.vacuum()) {
        const spent = pageWork + cost * pause;
        took += spent / scale;
        vacuumed.longest = Math.max(vacuumed.longest, took);
        yield spent;
      }
      vacuumed.vacuums++;
      vacuumed.vacuumSeconds += took;
    }
  }
  const sum = (of: (part: TableModel) => number) => parts.reduce((total, part) => total + of(part), 0);
  const bytes = () => (sum((part) => part.pages) * 8192) / scale;
  const sizes = [bytes()];
  for (let now = 0; now < seconds; now++) {
    if (now === Math.floor(seconds / 2)) sizes.push(bytes());
    clock = now;
    visitors.second(now);
    const found = due.get(now) ?? [];
    due.delete(now);
    lingering -= found.length;
    expired.push(...found);
    for (const timer of timers) {
      if (now < timer.next) continue;
      timer.next += timer.period;
      doomed = expired.length;
    }
    const deleted = Math.min(doomed, Math.ceil(scenario.deletionRate * scale));
    for (const row of expired.splice(0, deleted)) remove(row);
    doomed -= deleted;
    if (now % naptime === 0 && workers.length < WORKERS && parts.some(isDue)) {
      workers.push({ pages: vacuumAll(), left: 0 });
    }
    // All workers share one cost limit, so each pauses longer if several run.
    pause = (costDelay / 1000 / COST_LIMIT) * workers.length;
    vacuumed.workerSeconds += workers.length;
    for (const worker of [...workers]) {
      for (worker.left += scale; worker.left > 0; ) {
        const { done, value } = worker.pages.next();
        if (done) workers.splice(workers.indexOf(worker), 1);
        worker.left -= done ? worker.left : value;
      }
    }
    peaks.dead = Math.max(peaks.dead, sum((part) => part.dead) / scale);
    peaks.counted = Math.max(peaks.counted, sum((part) => part.counted) / scale);
    peaks.expired = Math.max(peaks.expired, (expired.length + lingering) / scale);
  }
  const indexBytes = (sum((part) => part.indexPages) * 8192) / scale;
  const inPlace = sum((part) => part.inPlace);
  return { counts, inPlace, ...vacuumed, ...peaks, bytes: [sizes[0], sizes[1], bytes()], indexBytes };
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
