/** What did a run of the benchmark measure, and where? */

import fs from 'node:fs';
import os from 'node:os';
import type { Deletion, Growth, Heap } from './long.js';
import { medianRatio, medianSample } from './measure.js';
import type { Samples } from './store-level.js';

export interface Results {
  readonly samples: Samples;
  /** PgStore with options that cost something. */
  readonly variants: Samples;
  skipped?: { touches: number; statements: number };
  /** Bytes of WAL a request that reads: PgStore's and connect-pg-simple's. */
  wal?: { ours: number; theirs: number };
  growth?: Growth;
  deletion?: Deletion;
  heap?: Heap;
}

export interface Machine {
  readonly date: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGb: number;
  readonly system: string;
  readonly versions: Record<string, string>;
}

const PACKAGES = ['express', 'express-session', 'postgres', 'connect-pg-simple', 'pg', 'connect-redis', 'redis'];

export function machine(postgres: string, redis: string | undefined): Machine {
  const versionOf = (name: string) => {
    const file = new URL(`../node_modules/${name}/package.json`, import.meta.url);
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
  };
}

export interface Row {
  readonly what: string;
  readonly inFlight: number;
  readonly store: string;
  readonly rate: number;
  /** Of its rate to connect-pg-simple's: the median of the rounds' ratios. */
  readonly ratio: number;
  readonly p50: number;
  readonly p99: number;
  readonly cpu: number;
}

export function rowsOf(samples: Samples, stores: readonly string[], what: string, inFlight: number): Row[] {
  const reference = samples.of('connect-pg-simple', what, inFlight);
  return stores.flatMap((store) => {
    const own = samples.of(store, what, inFlight);
    return own.length === 0
      ? []
      : [{ what, inFlight, store, ratio: medianRatio(own, reference), ...medianSample(own) }];
  });
}

export function ratioOf(samples: Samples, store: string, reference: string, what: string, inFlight: number): number {
  return medianRatio(samples.of(store, what, inFlight), samples.of(reference, what, inFlight));
}
