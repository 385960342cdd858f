/**
 * Measures how many updates are heap-only, and how much WAL each one writes: on the table as the store creates it, and
 * on one with an index on `expires_at`. It uses the store's own statements, `touchAfter: 0` and 128 calls in flight:
 * `npx tsx bench/hot.ts`.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { PostgresServer } from '../spec/support/postgres-server.js';
import { random as randomFrom } from '../spec/support/random.js';
import { median } from './figures/measure.js';
import { figure, table } from './figures/report.js';
import { sidsOf } from './parts/calls.js';
import { dropDeletionIndex } from './parts/tables.js';
import { build } from './stores/build.js';
import { sessionIdFrom, sessionOf } from './stores/data.js';
import { type LoadedSession, load, openPgStore, type Peer, type Servers, saveAll } from './stores/peers.js';

const ROWS = 20_000;
const ROUNDS = 5;
const IN_FLIGHT = 128;

interface Subject {
  readonly title: string;
  readonly name: string;
  readonly peer: Peer;
  readonly sessions: LoadedSession[];
  readonly rounds: Round[];
}

interface Round {
  /** Share of the updates that were heap-only, 0 to 1. */
  readonly heapOnly: number;
  /** Bytes of WAL for each update. */
  readonly wal: number;
  /** Updates a second. */
  readonly rate: number;
}

build();
// No checkpoint comes during the run. After one, the first change of a page writes all of it to the WAL, so the figures
// would depend on the moment of the checkpoint.
const settings = { checkpoint_timeout: '1h', max_wal_size: '16GB', autovacuum_naptime: '10s' };
const server = await PostgresServer.start({ settings });
const servers: Servers = { postgres: server.uri, redis: undefined };
const sql = postgres(server.uri, { max: 1, onnotice: () => {} });

/** The tables that are compared, and how each is changed after the store has created it. */
const tables: Record<string, (name: string) => Promise<unknown>> = {
  'as the store creates it': async () => {},
  'index on expires_at, fillfactor 100': async (name) => {
    await dropDeletionIndex(sql, name);
    await sql.unsafe(`alter table ${name} reset (fillfactor); create index on ${name} (expires_at)`).simple();
  },
};
const rows: (string | number)[][] = [];
for (const operation of ['touch', 'set'] as const) {
  const subjects: Subject[] = [];
  for (const [title, alter] of Object.entries(tables)) {
    const name = `hot_${operation}_${subjects.length}`;
    const peer = await openPgStore(servers, { table: name, touchAfter: 0 });
    await (peer.store as unknown as { ready(): Promise<void> }).ready();
    await alter(name);
    const sids = sidsOf(ROWS);
    await saveAll(peer, sids, sessionOf);
    const sessions = await Promise.all(sids.map((sid) => load(peer, sid)));
    await sql.unsafe(`vacuum analyze ${name}`);
    subjects.push({ title, name, peer, sessions, rounds: [] });
  }
  for (let round = 1; round <= ROUNDS; round++) {
    // The tables take turns, so that a slow moment of the machine affects both.
    for (const { name, peer, sessions, rounds } of round % 2 ? subjects : subjects.toReversed()) {
      rounds.push(await allRows(name, peer, sessions, operation, round));
    }
  }
  for (const { title, name, peer, rounds } of subjects) {
    await peer.close();
    const of = (what: keyof Round) => figure(median(rounds.map((round) => round[what])));
    const shares = rounds.map(({ heapOnly }) => `${Math.floor(1000 * heapOnly) / 10}`).join(', ');
    const [{ bytes }] = await sql`select pg_total_relation_size(${name}::regclass) / 1e6::float8 as bytes`;
    rows.push([`${operation}, ${title}`, shares, of('wal'), of('rate'), figure(bytes)]);
  }
  const ratio = (what: keyof Round) =>
    figure(median(subjects[0].rounds.map((round, n) => round[what] / subjects[1].rounds[n][what])));
  rows.push(['ratio', '', ratio('wal'), ratio('rate'), '']);
}
await sql.end();
await server.close();
console.log(table(['', `HOT, % of ${ROWS} in each round`, 'WAL, bytes', 'a second', 'MB at the end'], rows));

/** Makes one call for each row, in random order. */
async function allRows(
  name: string,
  { store }: Peer,
  sessions: LoadedSession[],
  operation: 'touch' | 'set',
  round: number,
): Promise<Round> {
  const random = randomFrom(round);
  const call = (store[operation] as typeof store.set).bind(store);
  const order = Array.from({ length: ROWS }, (_, n) => ({ n, key: random() })).sort((a, b) => a.key - b.key);
  const before = await state(name, (round - 1) * ROWS);
  const started = performance.now();
  await Promise.all(
    Array.from({ length: IN_FLIGHT }, async () => {
      for (let next = order.pop(); next; next = order.pop()) {
        const sid = sessionIdFrom(next.n);
        const session = sessions[next.n];
        session.touch();
        if (operation === 'set') session.views = round;
        await new Promise<void>((resolve, reject) =>
          call(sid, session, (error) => (error ? reject(error) : resolve())),
        );
      }
    }),
  );
  const seconds = (performance.now() - started) / 1000;
  const after = await state(name, round * ROWS);
  const updates = after.updates - before.updates;
  return {
    heapOnly: (after.heapOnly - before.heapOnly) / updates,
    wal: (after.wal - before.wal) / updates,
    rate: updates / seconds,
  };
}

/**
 * The table's counters, once they show the expected number of updates. A connection reports its updates when it has
 * been idle for ten seconds (PostgreSQL 18).
 */
async function state(name: string, updates: number): Promise<{ updates: number; heapOnly: number; wal: number }> {
  for (;;) {
    const [row] = await sql`select n_tup_upd::float8 as updates, n_tup_hot_upd::float8 as "heapOnly",
      pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as wal
      from pg_stat_user_tables where relid = ${name}::regclass`;
    if (row.updates > updates) throw new Error(`${row.updates} updates, expected ${updates}`);
    if (row.updates === updates) return row as { updates: number; heapOnly: number; wal: number };
    await sleep(500);
  }
}
