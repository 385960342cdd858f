/**
 * Compares design choices, for the tables of docs/performance.md and bench/README.md:
 *
 *     npx tsx bench/experiments.ts                 # all tables
 *     npx tsx bench/experiments.ts table shards    # only these
 */

import postgres, { type Sql } from 'postgres';
import type { PgStoreOptions } from '../lib/index.js';
import { PostgresServer } from '../spec/support/postgres-server.js';
import { type Call, measure } from './figures/measure.js';
import { figure, table } from './figures/report.js';
import { ratioOf } from './figures/results.js';
import { Samples } from './figures/samples.js';
import { serverCpu } from './figures/server-cpu.js';
import { OPERATIONS, type Operation, prepare, round, type Subject } from './parts/calls.js';
import { dropDeletionIndex } from './parts/tables.js';
import { build, builtModule } from './stores/build.js';
import { openPgStore, type Servers } from './stores/peers.js';

/** The limits of the store's batcher that an experiment may change. */
interface BatchLimits {
  minRows: number;
  maxInFlight: number;
}

interface Choice {
  readonly name: string;
  readonly options?: PgStoreOptions;
  readonly limits?: Partial<BatchLimits>;
  /** Changes the table that the store has created, while it is empty. */
  readonly alter?: (sql: Sql, table: string) => Promise<unknown>;
}

const fillfactor = (percent: number) => (sql: Sql, name: string) =>
  sql.unsafe(`alter table ${name} set (fillfactor = ${percent})`);
const connections = (maxConnections: number): Choice => ({
  name: `${maxConnections} connections`,
  options: { maxConnections },
});

/** The tables by their names. The first choice of each is what the store does; the others are compared with it. */
const EXPERIMENTS: Record<string, Choice[]> = {
  table: [
    { name: 'as it is' },
    { name: 'fillfactor 100', alter: fillfactor(100) },
    { name: 'fillfactor 50', alter: fillfactor(50) },
    { name: 'no expiry index', alter: dropDeletionIndex },
    {
      name: 'no expiry index, fillfactor 50',
      alter: async (sql, name) => {
        await dropDeletionIndex(sql, name);
        await fillfactor(50)(sql, name);
      },
    },
  ],
  limits: [
    { name: '2 statements in flight, a second from 32 rows on' },
    { name: 'a second from 1 row on', limits: { minRows: 1 } },
    ...[1, 3, 4].map((maxInFlight) => ({ name: `${maxInFlight} in flight`, limits: { maxInFlight } })),
  ],
  connections: [connections(10), connections(1), connections(2), connections(4)],
  type: [
    { name: 'json' },
    { name: 'jsonb', alter: (sql, name) => sql.unsafe(`alter table ${name} alter data type jsonb`) },
  ],
  shards: [{ name: 'no shards' }, ...[1, 8, 32].map((shards) => ({ name: `${shards} shards`, options: { shards } }))],
  durability: [
    { name: 'durable' },
    { name: 'synchronous_commit off', options: { postgres: { connection: { synchronous_commit: 'off' } } } },
    { name: 'unlogged', alter: (sql, name) => sql.unsafe(`alter table ${name} set unlogged`) },
  ],
};

const WRITES = ['set', 'replace', 'touch'] as const;
const ROUNDS = 5;
const MILLISECONDS = 700;

build();
const { DEFAULT_LIMITS } = await builtModule<{ DEFAULT_LIMITS: BatchLimits }>('calls/batcher');
const usualLimits = { ...DEFAULT_LIMITS };
const server = await PostgresServer.start();
const servers: Servers = { postgres: server.uri, redis: undefined };
const sql = postgres(server.uri, { max: 1, onnotice: () => {} });
const asked = process.argv.slice(2);
for (const [title, choices] of Object.entries(EXPERIMENTS)) {
  if (asked.length === 0 || asked.includes(title)) await run(title, choices);
}
await sql.end();
await server.close();

async function run(title: string, choices: Choice[]): Promise<void> {
  const subjects = [];
  for (const [n, { name, options, limits, alter }] of choices.entries()) {
    const tableName = `${title}_${n}`;
    const peer = await openPgStore(servers, { table: tableName, touchAfter: 0, ...options }, name);
    await (peer.store as unknown as { ready(): Promise<void> }).ready();
    await alter?.(sql, tableName);
    const { calls } = await prepare(peer);
    subjects.push({ peer, calls: withLimits(calls, limits) });
  }
  const samples = new Samples();
  const costs = new Map<string, Cost>();
  await round(subjects, MILLISECONDS / 2, 0, () => {}, [128]);
  for (let n = 0; n < ROUNDS; n++) {
    for (const operation of OPERATIONS) {
      for (let turn = 0; turn < subjects.length; turn++) {
        const { peer, calls } = subjects[(turn + n) % subjects.length];
        const before = await cost();
        const sample = await measure(calls[operation], 128, MILLISECONDS);
        const after = await cost();
        samples.add(peer.name, operation, 128, sample);
        const made = (sample.rate * MILLISECONDS) / 1000;
        const sum = costs.get(`${peer.name} ${operation}`) ?? { cpu: 0, wal: 0 };
        sum.cpu += (after.cpu - before.cpu) / made / ROUNDS;
        sum.wal += (after.wal - before.wal) / made / ROUNDS;
        costs.set(`${peer.name} ${operation}`, sum);
      }
    }
  }
  for (const { peer } of subjects) await peer.close();
  // PostgreSQL's counters of heap-only updates are up to date only after a second.
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const rows = [];
  for (const [n, { name }] of choices.entries()) {
    const [{ hot }] = await sql`
      select n_tup_hot_upd::float8 / n_tup_upd as hot from pg_stat_user_tables where relname = ${`${title}_${n}`}`;
    const of = (operation: Operation) => costs.get(`${name} ${operation}`) as Cost;
    rows.push([
      name,
      ...OPERATIONS.map((operation) => figure(ratioOf(samples, name, choices[0].name, operation, 128).median)),
      ...OPERATIONS.map((operation) => figure(of(operation).cpu)),
      ...WRITES.map((operation) => Math.round(of(operation).wal)),
      `${Math.round(hot * 100)} %`,
    ]);
  }
  const [read, ...writes] = OPERATIONS;
  const costHead = [`server µs ${read}`, ...writes, ...WRITES.map((operation) => `WAL ${operation}`), 'HOT updates'];
  console.log(`\n${table([`${title}: rates, the first = 1`, ...OPERATIONS, ...costHead], rows)}`);
}

interface Cost {
  /** CPU time of the server's processes, in microseconds. */
  cpu: number;
  /** Bytes of WAL. */
  wal: number;
}

/** The server's costs so far. */
async function cost(): Promise<Cost> {
  const [{ wal }] = await sql`select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as wal`;
  return { cpu: serverCpu(server), wal };
}

/**
 * Calls that first set the batcher's limits. All batchers of the process share these limits, which does no harm while
 * one store is measured at a time.
 */
function withLimits(calls: Subject['calls'], limits: Partial<BatchLimits> = {}): Subject['calls'] {
  const limited =
    (call: Call): Call =>
    (n, done) => {
      Object.assign(DEFAULT_LIMITS, usualLimits, limits);
      call(n, done);
    };
  const { get, set, replace, touch } = calls;
  return { get: limited(get), set: limited(set), replace: limited(replace), touch: limited(touch) };
}
