/** The results of a run of the benchmark, and the machine that it ran on. */

import fs from 'node:fs';
import os from 'node:os';
import type { Deletion, Growth, Heap } from '../parts/long.js';
import type { SignOuts } from '../parts/sign-outs.js';
import type { Watches } from '../parts/watches.js';
import { median, ratios, type Sample, type Spread, spreadOf } from './measure.js';
import { isQuiet, type Quietness } from './quiet.js';
import type { Samples } from './samples.js';

/** All that a run has measured. A part that was not run is missing. */
export interface Results {
  /** The samples of all stores' calls and apps. */
  readonly samples: Samples;
  /** The samples of PgStore with options that cost time. */
  readonly variants: Samples;
  /** How many statements a number of touches sent, of sessions that were just saved. */
  skipped?: { touches: number; statements: number };
  /** Bytes of WAL for each request that only reads, of PgStore and of connect-pg-simple. */
  wal?: { ours: number; theirs: number };
  /** The costs for each number of concurrent sign-ins. */
  signOuts?: SignOuts[];
  /** The samples of `update`, and of `get` followed by `set`. */
  updates?: Samples;
  watches?: Watches;
  growth?: Growth;
  deletion?: Deletion;
  clearing?: Deletion;
  heap?: Heap;
}

export interface Machine {
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGb: number;
  readonly system: string;
  readonly versions: Record<string, string>;
  /** How quiet the machine was before and after the run. */
  readonly quietness: Quietness[];
}

const PACKAGES = [
  'express',
  'express-session',
  'postgres',
  'connect-pg-simple',
  'pg',
  'connect-redis',
  'redis5',
  'redis',
];

/** The machine in one line, with a warning if it was not quiet. */
export function describe({ date, cpu, cores, versions, quietness }: Machine): string {
  const busy = quietness.every(isQuiet) ? '' : '; the machine had OTHER WORK meanwhile';
  return `${date}, ${cores} cores of ${cpu}, Node.js ${versions.node}, PostgreSQL ${versions.PostgreSQL}${busy}`;
}

export function machine(postgres: string, redis: string | undefined, quietness: Quietness[]): Machine {
  const versionOf = (name: string) => {
    const file = new URL(`../../node_modules/${name}/package.json`, import.meta.url);
    return [name, JSON.parse(fs.readFileSync(file, 'utf8')).version];
  };
  const servers = { node: process.versions.node, PostgreSQL: postgres, ...(redis ? { Redis: redis } : {}) };
  return {
    date: new Date().toISOString().slice(0, 10),
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.cpus().length,
    memoryGb: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.release()}`,
    versions: { ...servers, ...Object.fromEntries(PACKAGES.map(versionOf)) },
    quietness,
  };
}

/** One store's figures for one operation: medians over the rounds, some with their quartiles. */
export interface Row {
  /** The operation of a store, or the path of the app. */
  readonly what: string;
  readonly inFlight: number;
  readonly store: string;
  /** Calls or requests a second. */
  readonly rate: Spread;
  /** The rate as a multiple of connect-pg-simple's. */
  readonly ratio: Spread;
  /** For an app, the rate as a multiple of the rate with MemoryStore. */
  readonly ofMemory?: Spread;
  /** Latency in milliseconds. */
  readonly p50: number;
  readonly p99: number;
  /** CPU time of the process for a call or a request, in microseconds. */
  readonly cpu: number;
  /** That CPU time as a multiple of connect-pg-simple's. */
  readonly cpuRatio: Spread;
  /** For an app, the 99th percentile of its event loop delay, in milliseconds. */
  readonly delay?: number;
}

export function rowsOf(samples: Samples, stores: readonly string[], what: string, inFlight: number): Row[] {
  const reference = samples.of('connect-pg-simple', what, inFlight);
  return stores.flatMap((store) => {
    const own = samples.of(store, what, inFlight);
    if (own.length === 0) return [];
    const of = (figure: keyof Sample) => own.map((sample) => sample[figure]);
    const delay = median(of('delay'));
    const app = Number.isNaN(delay) ? {} : { delay, ofMemory: ratios(own, samples.of('MemoryStore', what, inFlight)) };
    const row: Row = {
      what,
      inFlight,
      store,
      rate: spreadOf(of('rate')),
      ratio: ratios(own, reference),
      p50: median(of('p50')),
      p99: median(of('p99')),
      cpu: median(of('cpu')),
      cpuRatio: ratios(own, reference, 'cpu'),
      ...app,
    };
    return [row];
  });
}

/** The rate of `update` as a multiple of the rate of a `get` followed by a `set`. */
export interface UpdateRow {
  readonly inFlight: number;
  readonly ratio: Spread;
}

/** A store's rate as a multiple of another store's, the reference. */
export function ratioOf(samples: Samples, store: string, reference: string, what: string, inFlight: number): Spread {
  return ratios(samples.of(store, what, inFlight), samples.of(reference, what, inFlight));
}
