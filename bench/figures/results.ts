/** What a run of the benchmark measured, and on which machine. */

import fs from 'node:fs';
import os from 'node:os';
import type { Deletion, Growth, Heap } from '../parts/long.js';
import type { SignOuts } from '../parts/sign-outs.js';
import type { Watches } from '../parts/watches.js';
import { median, ratios, type Sample, type Spread, spreadOf } from './measure.js';
import { isQuiet, type Quietness } from './quiet.js';
import type { Samples } from './samples.js';

export interface Results {
  readonly samples: Samples;
  /** PgStore with options that cost something. */
  readonly variants: Samples;
  skipped?: { touches: number; statements: number };
  /** Bytes of WAL a request that reads: PgStore's and connect-pg-simple's. */
  wal?: { ours: number; theirs: number };
  /** For each number of concurrent sign-ins. */
  signOuts?: SignOuts[];
  /** `update` beside `get` and `set`. */
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
  /** Before and after the run. */
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

/** One line; it says so where the machine was not quiet. */
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

/** A figure's median over the rounds, with the quartiles of rate and ratio. */
export interface Row {
  readonly what: string;
  readonly inFlight: number;
  readonly store: string;
  readonly rate: Spread;
  /** Its rate as a multiple of connect-pg-simple's, and for an app also of the rate with MemoryStore. */
  readonly ratio: Spread;
  readonly ofMemory?: Spread;
  readonly p50: number;
  readonly p99: number;
  /** Microseconds of the process, and as a multiple of those with connect-pg-simple. */
  readonly cpu: number;
  readonly cpuRatio: Spread;
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

/** What is kept of `update`: its rate as a multiple of that of a `get` and then a `set`. */
export interface UpdateRow {
  readonly inFlight: number;
  readonly ratio: Spread;
}

export function ratioOf(samples: Samples, store: string, reference: string, what: string, inFlight: number): Spread {
  return ratios(samples.of(store, what, inFlight), samples.of(reference, what, inFlight));
}
