/** Measures PgStore with a million rows, while it deletes a million rows, and in a million calls. */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import postgres, { type Sql } from 'postgres';
import type { PostgresServer } from '../../spec/support/postgres-server.js';
import { type Call, measure, median, percentiles } from '../figures/measure.js';
import { SESSIONS, sessionIdFrom, sessionOf } from '../stores/data.js';
import { loadAll, openPgStore, type Peer, type Servers, save } from '../stores/peers.js';
import { callsOf, prepare } from './calls.js';
import { copyModel } from './tables.js';

/** The rates with different numbers of rows. */
export interface Growth {
  readonly rows: number[];
  /** Calls a second for each number of rows, in the same order. */
  readonly get: number[];
  readonly set: number[];
}

/**
 * Measures `get` of random rows, and `set` of 10,000 sessions that are spread evenly over the table, with 128 calls in
 * flight.
 *
 * @param seconds the time of one measurement
 */
export async function growth(
  servers: Servers,
  seconds: number,
  rounds: number,
  onStep: (part: string) => void,
): Promise<Growth> {
  const sql = client(servers);
  const sizes = [10_000, 1_000_000];
  const subjects: { get: Call; set: Call; close(): Promise<void> }[] = [];
  for (const size of sizes) {
    onStep(`${size} rows`);
    const table = `rows_${size}`;
    const peer = await openPgStore(servers, { table });
    await fill(sql, peer, table, size, '1 day');
    const any: Call = (_, done) => peer.store.get(sessionIdFrom(Math.floor(Math.random() * size)), done);
    const sids = Array.from({ length: 10_000 }, (_, n) => sessionIdFrom(Math.floor((n * size) / 10_000)));
    const sessions = await loadAll(peer, sids);
    subjects.push({ get: any, set: callsOf(peer, sids, sessions).set, close: peer.close });
  }
  await sql`checkpoint`;
  const rates: Record<'get' | 'set', number[][]> = { get: [[], []], set: [[], []] };
  for (let round = 0; round <= rounds; round++) {
    for (const operation of ['get', 'set'] as const) {
      for (const [n, subject] of subjects.entries()) {
        onStep(`${operation} with ${sizes[n]} rows`);
        const { rate } = await measure(subject[operation], 128, seconds * 1000);
        // The first round is not counted: it reads the table into memory, and the first change of each page after a
        // checkpoint writes the whole page to the WAL.
        if (round > 0) rates[operation][n].push(rate);
      }
    }
  }
  for (const subject of subjects) await subject.close();
  await sql.end();
  return { rows: sizes, get: rates.get.map(median), set: rates.set.map(median) };
}

/** What the deletion of many rows costs. */
export interface Deletion {
  readonly rows: number;
  readonly statements: number;
  /** How many seconds the deletion took. */
  readonly seconds: number;
  /** The 99th percentile of the latency of gets before and during the deletion, in milliseconds. */
  readonly before: number;
  readonly during: number;
  /** The longest get during the deletion, in milliseconds. */
  readonly longestGet: number;
  /** The longest statement of the deletion, in milliseconds. */
  readonly longest: number;
}

/** A method of PgStore that deletes rows, and the rows that it has to delete. */
interface Deleting {
  readonly method: 'autodelete' | 'clear';
  readonly table: string;
  readonly rows: number;
  /** An interval of PostgreSQL, from now until the rows expire. */
  readonly expiry: string;
}

/** Measures `autodelete()` of a million expired rows. */
export function deletion(servers: Servers, server: PostgresServer, onStep: (part: string) => void): Promise<Deletion> {
  const rows = { method: 'autodelete', table: 'rows_expired', rows: 1_000_000, expiry: '-1 second' } as const;
  return whileReading(servers, server, rows, onStep);
}

/** Measures `clear()` of a million sessions. */
export function clearing(servers: Servers, server: PostgresServer, onStep: (part: string) => void): Promise<Deletion> {
  const rows = { method: 'clear', table: 'rows_cleared', rows: 1_000_000, expiry: '1 day' } as const;
  return whileReading(servers, server, rows, onStep);
}

/** Deletes rows while 32 gets are in flight in the same process. */
async function whileReading(
  servers: Servers,
  server: PostgresServer,
  { method, table, rows, expiry }: Deleting,
  onStep: (part: string) => void,
): Promise<Deletion> {
  const sql = client(servers);
  onStep(`${rows} rows for ${method}`);
  // The server logs the durations of this store's statements only. The value is a string, because Postgres.js leaves
  // out settings that are falsy.
  const connection = { log_min_duration_statement: '0' };
  const deleting = await openPgStore(servers, { table, postgres: { connection } }, 'deleting');
  const reading = await openPgStore(servers, { table });
  await fill(sql, reading, table, rows, expiry, SESSIONS);
  const { calls } = await prepare(reading);
  await sql`checkpoint`;
  await measure(calls.get, 32, 2000);
  onStep(`gets before ${method}`);
  const before = (await measure(calls.get, 32, 10_000)).p99;
  onStep(method);
  const logged = server.log.length;
  const started = performance.now();
  const latencies: number[] = [];
  let isDone = false;
  const running = (deleting.store as unknown as Record<Deleting['method'], () => Promise<unknown>>)
    [method]()
    .then(() => {
      isDone = true;
    });
  await Promise.all(
    Array.from({ length: 32 }, async () => {
      while (!isDone) {
        const asked = performance.now();
        await new Promise<void>((resolve, reject) => calls.get(0, (error) => (error ? reject(error) : resolve())));
        latencies.push(performance.now() - asked);
      }
    }),
  );
  await running;
  const seconds = (performance.now() - started) / 1000;
  const [left] = await sql`select count(*)::integer as rows from ${sql(table)} where sid >= ${sessionIdFrom(SESSIONS)}`;
  if (left?.rows !== 0) throw new Error(`${method} left ${left?.rows} rows`);
  await deleting.close();
  await reading.close();
  await sql.end();
  const durations = [...server.log.slice(logged).matchAll(/duration: ([\d.]+) ms {2}(execute|statement)/g)].map(
    ([, ms]) => Number(ms),
  );
  return {
    rows,
    statements: durations.length,
    seconds,
    before,
    during: percentiles(latencies).p99,
    longestGet: latencies.reduce((longest, latency) => Math.max(longest, latency), 0),
    longest: Math.max(...durations),
  };
}

/** How the heap develops during many calls. */
export interface Heap {
  readonly calls: number;
  /** The heap in megabytes after each tenth of the calls, after garbage collection. */
  readonly megabytes: number[];
  /** How many calls were made at once in the end. */
  readonly queue: number;
  /** The seconds until all of these were answered. */
  readonly drained: number;
}

/** Makes a million calls with 128 in flight, and then 100,000 calls at once. */
export async function heap(servers: Servers, onStep: (part: string) => void): Promise<Heap> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const total = 1_000_000;
  const peer = await openPgStore(servers, { table: 'heap', touchAfter: 0 });
  const { calls } = await prepare(peer);
  const mixed = [calls.get, calls.get, calls.get, calls.touch, calls.set];
  const megabytes: number[] = [];
  for (let tenth = 1; tenth <= 10; tenth++) {
    onStep(`heap, ${tenth} of 10`);
    await makeCalls(mixed, total / 10, 128);
    collect();
    megabytes.push(process.memoryUsage().heapUsed / 1e6);
  }
  const queue = 100_000;
  onStep(`${queue} calls at once`);
  const started = performance.now();
  await makeCalls([calls.get], queue, queue);
  const drained = (performance.now() - started) / 1000;
  await peer.close();
  return { calls: total, megabytes, queue, drained };
}

/** Makes `total` calls, `inFlight` at a time. */
async function makeCalls(calls: Call[], total: number, inFlight: number): Promise<void> {
  let made = 0;
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (made < total) {
        const n = made++;
        await new Promise<void>((resolve, reject) =>
          calls[n % calls.length](n, (error) => (error ? reject(error) : resolve())),
        );
      }
    }),
  );
}

function client({ postgres: uri }: Servers): Sql {
  return postgres(uri, { max: 1, onnotice: () => {} });
}

/**
 * Fills the table with copies of one session that the store has saved.
 *
 * @param expiry an interval of PostgreSQL, from now until the copies expire
 * @param first the number of the first session ID
 */
async function fill(sql: Sql, peer: Peer, table: string, rows: number, expiry: string, first = 0): Promise<void> {
  await save(peer, 'model', sessionOf(0));
  const expiresAt = `now() + interval '${expiry}'`;
  await copyModel(sql, table, `generate_series(${first}, ${first + rows - 1}) n`, {
    sid: "'bench-session-' || lpad(n::text, 8, '0')",
    expires_at: expiresAt,
    delete_after: expiresAt,
  });
  await sql`vacuum analyze ${sql(table)}`;
}
