/**
 * A network that cuts, delays, halves and swallows at random moments: no uncaught error, no
 * unanswered call, no lost acknowledged write, and the store works again once the network does.
 *
 * npm run fuzz -- --seconds 60 --seed 1
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import pg from 'pg';
import postgres from 'postgres';
import { PgStore, type PgStoreOptions } from '../../lib/index.js';
import { writeCertificate } from '../support/certificate.js';
import { Load } from '../support/fault-load.js';
import { type ChunkFault, FaultProxy } from '../support/fault-proxy.js';
import { PASSWORD, PostgresServer } from '../support/postgres-server.js';
import { random } from '../support/random.js';
import { plain } from '../support/sessions.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
  },
});
const [seconds, seed] = [Number(values.seconds), Number(values.seed)];
if (!(seconds >= 0 && seed >= 0)) throw new TypeError('--seconds, --seed: expected numbers');

const TIMEOUT = 700;
const ROUND_MS = 3000;
const pick = random(seed);
const between = (least: number, most: number) => Math.round(least + pick() * (most - least));
const oneOf = <T>(list: readonly T[]) => list[between(0, list.length - 1)] as T;

const uncaught: unknown[] = [];
process.on('uncaughtException', (error) => uncaught.push(error));
process.on('unhandledRejection', (error) => uncaught.push(error));

const server = await PostgresServer.start({ settings: { fsync: 'off' } });
await writeCertificate(server);
const admin = postgres(server.uri, { max: 1, onnotice: () => {} });
await admin`alter system set ssl = on`;
await admin`alter system set max_connections = 200`;
await admin.end();
await server.restart();

const proxy = await FaultProxy.start(() => server.port);
const faults: Record<string, number> = {};
const codes: Record<string, number> = {};
const problems: string[] = [];
const total = { rounds: 0, calls: 0, failed: 0, acknowledged: 0, lost: 0, unanswered: 0 };

function count(into: Record<string, number>, name: string): void {
  into[name] = (into[name] ?? 0) + 1;
}

function chunkFault(): ChunkFault | undefined {
  if (pick() > 0.02) return undefined;
  const fault = oneOf(['cut', 'halve', 'swallow', 'delay', 'delay'] as const);
  count(faults, fault);
  return fault === 'delay' ? between(1, 1.5 * TIMEOUT) : fault;
}

/** Faults of the whole network, until told to stop. */
async function disturb(isOver: () => boolean): Promise<void> {
  while (!isOver()) {
    await sleep(between(1, 300));
    const fault = oneOf(['cut all', 'silence', 'refuse'] as const);
    count(faults, fault);
    if (fault === 'cut all') proxy.cut();
    if (fault === 'silence') proxy.silence();
    if (fault === 'refuse') proxy.refuse(true);
    await sleep(between(1, 200));
    proxy.refuse(false);
    proxy.resume();
  }
}

/** Calls of every kind; each has to be answered, whatever the answer. */
async function call(store: PgStore, isOver: () => boolean): Promise<void> {
  while (!isOver()) {
    const sid = `load-${between(0, 3)}`;
    const calls: (() => Promise<unknown>)[] = [
      () => store.touch(sid, plain()),
      () => store.length(),
      () => store.ids(),
      () => store.destroy('nobody'),
      () => store.set(`other-${between(0, 50)}`, plain({ text: 'x'.repeat(between(0, 100_000)) })),
      () => store.autodelete(),
    ];
    total.calls++;
    // Several statements have `timeout` each.
    const late = sleep(8 * TIMEOUT, 'late', { ref: false });
    const answer = await Promise.race([oneOf(calls)().catch((error) => error), late]);
    if (answer === 'late') total.unanswered++;
    if (answer instanceof Error) failed(answer);
    await sleep(between(0, 20));
  }
}

function failed(error: any): void {
  total.failed++;
  count(codes, error.code ?? 'none');
  if (error.name !== 'PgStoreError') problems.push(`an error of the wrong kind: ${error}`);
}

async function inTime<T>(what: string, work: Promise<T>): Promise<void> {
  if ((await Promise.race([work.then(() => 'done'), sleep(15 * TIMEOUT, 'late', { ref: false })])) === 'done') return;
  total.unanswered++;
  problems.push(`${what}: not within ${15 * TIMEOUT} ms`);
}

async function round(): Promise<void> {
  const isTls = pick() < 0.5;
  const hosts = between(1, 2);
  const host = Array(hosts).fill(`127.0.0.1:${proxy.port}`).join();
  const attributes = oneOf(['', '&target_session_attrs=primary']);
  const uri = `postgres://postgres:${PASSWORD}@${host}/postgres?sslmode=${isTls ? 'require' : 'disable'}${attributes}`;
  const table = `fuzz_${total.rounds++}`;
  const maxConnections = between(1, 4);
  const pool = new pg.Pool({
    connectionString: proxy.uri,
    ssl: isTls && { rejectUnauthorized: false },
    max: maxConnections,
    // Without it node-postgres waits for an unresponsive server for ever.
    connectionTimeoutMillis: TIMEOUT,
  });
  pool.on('error', () => {});
  const ofStore: PgStoreOptions = {
    uri,
    maxConnections,
    postgres: {
      ...oneOf([{}, { fetch_types: true }, { prepare: false }, { max_lifetime: 0.3, idle_timeout: 0.05 }]),
      ...oneOf([{}, { password: () => sleep(between(0, 20), PASSWORD) }]),
    },
  };
  const client = oneOf([ofStore, ofStore, { pool }]);
  const store = new PgStore({ ...client, table, timeout: TIMEOUT, touchAfter: 0, autodelete: 1 });
  const load = await Load.start(store, 8);
  const end = performance.now() + ROUND_MS;
  const isOver = () => performance.now() > end;
  proxy.chunkFault = chunkFault;
  await Promise.all([disturb(isOver), call(store, isOver), call(store, isOver)]);
  proxy.chunkFault = () => undefined;
  proxy.resume();
  const which = `over ${'pool' in client ? 'pool' : uri}`;
  await inTime(`works again ${which}`, load.progress(20));
  await inTime('writers stop', load.stop());
  await inTime('close()', store.close());
  await inTime('the pool ends', pool.end());
  total.calls += load.calls;
  total.acknowledged += load.acknowledged;
  for (const error of load.errors) failed(error);
  total.lost += await load.lost(server.uri, table);
  const sql = postgres(server.uri, { max: 1, onnotice: () => {} });
  await sql`drop table ${sql(table)}`;
  await sql.end();
  proxy.cut();
}

console.log(`fuzz for ${seconds} s; again with: npm run fuzz -- --seconds ${seconds} --seed ${seed}`);
for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
  try {
    await round();
  } catch (error) {
    problems.push(`a round ended early: ${error}`);
    break;
  }
  const progress = `${Math.round(performance.now() / 1000)} s: ${total.rounds} rounds, ${total.calls} calls`;
  if (process.stdout.isTTY) process.stdout.write(`\r${progress}\u001b[K`);
  else if (total.rounds % 10 === 0) console.log(progress);
}
await proxy.close();
await server.close();

const rows = {
  rounds: total.rounds,
  faults: Object.entries(faults)
    .map(([name, n]) => `${name} ${n}`)
    .join(', '),
  calls: total.calls,
  'failed, with a clear error': `${total.failed} ${JSON.stringify(codes)}`,
  'acknowledged writes': total.acknowledged,
  lost: total.lost,
  unanswered: total.unanswered,
  'uncaught errors': uncaught.length,
};
console.log(`\n| ${seconds} s, seed ${seed}, Node ${process.version} | |\n| --- | --- |`);
for (const [name, value] of Object.entries(rows)) console.log(`| ${name} | ${value} |`);
for (const problem of [...problems, ...uncaught].slice(0, 20)) console.error(problem);
if (total.acknowledged === 0) console.error('nothing was acknowledged: the run shows nothing');
const wrong = total.lost + total.unanswered + uncaught.length + problems.length;
process.exitCode = wrong > 0 || total.acknowledged === 0 ? 1 : 0;
