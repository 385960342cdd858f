/**
 * Compares the simulation in bench/scale/simulate.ts with a real table. The same visitors, who send requests ten times
 * as fast, are simulated, and sent to a PostgreSQL server of the check's own with autovacuum on. It takes four minutes:
 * `npx tsx bench/scale/check.ts`.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import postgres, { type Sql } from 'postgres';
import { createTableSql } from '../../lib/sql/schema.js';
import { PostgresServer } from '../../spec/support/postgres-server.js';
import { figure, table } from '../figures/report.js';
import { copyModel } from '../parts/tables.js';
import { build } from '../stores/build.js';
import { sessionIdFrom, sessionOf } from '../stores/data.js';
import { load, openPgStore, type Peer, save } from '../stores/peers.js';
import { DEFAULTS, type Scenario, simulate, slackOf } from './simulate.js';
import { Visitors } from './visitors.js';

const FAST: Scenario = {
  ...DEFAULTS,
  ...{ sessions: 100_000, sample: 100_000, seconds: 50, visit: 30, pause: 0.6, ttl: 3600, touchAfter: 6 },
  ...{ autodelete: 10, naptime: 1, scaleFactor: 0.01 },
};
/** The settings that docs/scale.md advises. */
const ADVISED = { ...FAST, costDelay: 0, cached: 1 };
/** A small table with much traffic. Its scale factor is so large that no vacuum starts. */
const CROWDED = { ...FAST, sessions: 2_000, sample: 2_000, active: 0.5, scaleFactor: 100 };

build();
await check('100,000 sessions, default pauses, 16 MB of shared buffers', FAST, '16MB');
await check('as advised, 128 MB', ADVISED);
await check('as advised, 4 partitions', { ...ADVISED, partitions: 4 });
await check('2,000 sessions, half of them active, no vacuum', CROWDED);

async function check(title: string, given: Scenario, sharedBuffers = '128MB'): Promise<void> {
  const { naptime, ttl, touchAfter, autodelete } = given;
  const settings = { autovacuum_naptime: naptime, log_autovacuum_min_duration: 0, shared_buffers: sharedBuffers };
  const server = await PostgresServer.start({ settings });
  const sql = postgres(server.uri, { max: 1, onnotice: () => {} });
  const peer = await openPgStore({ postgres: server.uri, redis: undefined }, { ttl, touchAfter, autodelete });
  await fill(sql, peer, given);
  const before = await stateOf(sql);
  const { counted, failed } = await visit(sql, peer, given);
  const after = await stateOf(sql);
  await peer.close();
  await sql.end();
  const vacuums = [...server.log.matchAll(/automatic vacuum of table "postgres\.public\..*?elapsed: ([\d.]+) s/gs)];
  await server.close();

  const rowsOnPage = Math.ceil((given.sample * 8192) / before.bytes / (given.fillfactor / 100));
  const row = Math.floor(8168 / rowsOnPage);
  const foretold = simulate({ ...given, row, index: before.indexBytes / given.sample });
  const { counts } = foretold;
  const seconds = vacuums.reduce((sum, [, elapsed]) => sum + Number(elapsed), 0);
  const compared: [string, number, number][] = [
    ['rows created', counts.created, after.made - before.made],
    ['updates', counts.touches + counts.changes, after.updates - before.updates],
    ['of them heap-only', foretold.inPlace, after.inPlace - before.inPlace],
    ['rows deleted', counts.deleted, after.deleted - before.deleted],
    ['vacuums', foretold.vacuums, vacuums.length],
    ['a vacuum, s', foretold.vacuumSeconds / foretold.vacuums, seconds / vacuums.length],
    ['dead rows at most', foretold.counted, counted],
    ['table at first, kB', foretold.bytes[0] / 1e3, before.bytes / 1e3],
    ['table at the end, kB', foretold.bytes[2] / 1e3, after.bytes / 1e3],
    ['indexes at the end, kB', foretold.indexBytes / 1e3, after.indexBytes / 1e3],
  ];
  const lines = compared.map(([what, ours, real]) => [what, figure(ours), figure(real), figure(ours / real)]);
  console.log(`\n${table([title, 'simulated', 'real', 'ratio'], lines)}`);
  console.log(`${failed} calls found their session just expired.`);
}

/** Makes the calls of the visitors at the times of the simulation. */
async function visit(sql: Sql, peer: Peer, scenario: Scenario): Promise<{ counted: number; failed: number }> {
  const { store } = peer;
  const answered = (call: (done: (error?: unknown) => void) => void) =>
    new Promise<void>((resolve, reject) => call((error) => (error ? reject(error) : resolve())));
  /** The calls of one second, with their times in seconds. */
  let due: { at: number; call: () => Promise<void> }[] = [];
  const visitors = new Visitors(scenario, {
    create: (row, at) => due.push({ at, call: () => save(peer, sessionIdFrom(row), visitorOf(row, scenario)) }),
    request: (row, at, changes) => due.push({ at, call: () => request(sessionIdFrom(row), changes) }),
    destroy: (row, at) => due.push({ at, call: () => answered((done) => store.destroy(sessionIdFrom(row), done)) }),
    expire: () => {},
  });
  const request = async (sid: string, changes: boolean) => {
    const session = await load(peer, sid);
    session.touch();
    session.views = Number(session.views) + Number(changes);
    await answered((done) => (changes ? store.set(sid, session, done) : store.touch?.(sid, session, done)));
  };
  const started = performance.now();
  const calls: Promise<unknown>[] = [];
  let counted = 0;
  let failed = 0;
  for (let second = 0; second < scenario.seconds; second++) {
    due = [];
    visitors.second(second);
    for (const { at, call } of due.sort((a, b) => a.at - b.at)) {
      const early = started + at * 1000 - performance.now();
      if (early > 1) await sleep(early);
      calls.push(call().catch(() => failed++));
    }
    counted = Math.max(counted, (await stateOf(sql)).counted);
  }
  await Promise.all(calls);
  return { counted, failed };
}

/** The session of a visitor who is signed in. */
function visitorOf(row: number, { ttl }: Scenario): ReturnType<typeof sessionOf> {
  const session = sessionOf(row);
  session.cookie.maxAge = ttl * 1000;
  return Object.assign(session, { passport: { user: row } });
}

/** Creates the table, and fills it with copies of one session that the store has saved, with simulated expiries. */
async function fill(sql: Sql, peer: Peer, scenario: Scenario): Promise<void> {
  const { sample, partitions, fillfactor, costDelay, scaleFactor, ttl } = scenario;
  await sql.unsafe(createTableSql({ schema: 'public', table: 'sessions' }, partitions > 1 ? partitions : 0)).simple();
  const delay = costDelay === DEFAULTS.costDelay ? '' : `, autovacuum_vacuum_cost_delay = ${costDelay}`;
  const parts = await sql`select relname from pg_stat_user_tables where relname <> 'sessions' or ${partitions === 1}`;
  for (const { relname } of parts) {
    await sql.unsafe(
      `alter table ${relname} set (autovacuum_vacuum_scale_factor = ${scaleFactor}, fillfactor = ${fillfactor}${delay})`,
    );
  }
  await save(peer, 'model', visitorOf(0, scenario));
  const { expiresAt } = new Visitors(scenario, { create() {}, request() {}, destroy() {}, expire() {} });
  const seconds = [...expiresAt.subarray(0, sample)].join();
  await copyModel(sql, 'sessions', `unnest('{${seconds}}'::float8[]) with ordinality as expiry (seconds, n)`, {
    sid: "'bench-session-' || lpad((n - 1)::text, 8, '0')",
    user_id: 'n::text',
    expires_at: "now() + seconds * interval '1 second'",
    delete_after: `now() + (seconds + random() * ${slackOf(ttl)}) * interval '1 second'`,
    updated_at: `now() + (seconds - ${ttl}) * interval '1 second'`,
    created_at: `now() + (seconds - ${ttl} - random() * ${ttl}) * interval '1 second'`,
  });
  await sql`select pg_stat_force_next_flush()`;
  await sql`vacuum full sessions`;
  await sql`vacuum analyze sessions`;
  await sql`checkpoint`;
  await sql`select pg_stat_force_next_flush()`;
}

/** PostgreSQL's counters of the table. */
interface State {
  /** Dead rows. */
  readonly counted: number;
  /** Rows that were inserted. */
  readonly made: number;
  readonly updates: number;
  /** Updates that were heap-only. */
  readonly inPlace: number;
  readonly deleted: number;
  readonly bytes: number;
  readonly indexBytes: number;
}

async function stateOf(sql: Sql): Promise<State> {
  const [state] = await sql<State[]>`select sum(n_dead_tup)::float8 as counted, sum(n_tup_ins)::float8 as made,
    sum(n_tup_upd)::float8 as updates, sum(n_tup_hot_upd)::float8 as "inPlace", sum(n_tup_del)::float8 as deleted,
    sum(pg_relation_size(relid))::float8 as bytes, sum(pg_indexes_size(relid))::float8 as "indexBytes"
    from pg_stat_user_tables`;
  return state;
}
