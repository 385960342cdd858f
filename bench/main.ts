/**
 * Measures PgStore beside its peers: `npm run bench`. `-- --quick`: within a minute.
 * `-- --only store`: one part (store, app, wal, options, rows, deletion, heap). A whole run on a
 * quiet machine writes bench/results.json and docs/benchmark.svg; `-- --force` does on any, and
 * they say so.
 */

import fs from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import postgres from 'postgres';
import { PostgresServer } from '../spec/support/postgres-server.js';
import { startRedis } from '../spec/support/redis-server.js';
import { App, LoadGenerator, measureApp } from './app-level.js';
import { build } from './build.js';
import { chart } from './chart.js';
import { deletion, growth, heap } from './long.js';
import { clearRedis, openPeer, openPgStore, type Peer, peersOn, type Servers } from './peers.js';
import { Progress } from './progress.js';
import { describeQuietness, isQuiet, quietness } from './quiet.js';
import { figure, spread, table } from './report.js';
import { describe, machine, type Results, type Row, ratioOf, rowsOf } from './results.js';
import { IN_FLIGHT, OPERATIONS, prepare, round, Samples } from './store-level.js';
import { REQUESTS, targetsOf, titleOf } from './targets.js';
import { walPerRequest } from './wal.js';

const PARTS = ['store', 'app', 'wal', 'options', 'rows', 'deletion', 'heap'] as const;
type Part = (typeof PARTS)[number];
/** Options of PgStore that cost something. */
const OPTIONS = ['encryptionKey', 'hashIds', 'secret'] as const;

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    force: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
  },
});
const { quick } = values;
const isWhole = !quick && !values.only;
for (const part of values.only ?? []) {
  if (!(PARTS as readonly string[]).includes(part)) throw new Error(`--only ${part}: expected ${PARTS.join(', ')}`);
}
const isAsked = (part: Part) => values.only?.includes(part) ?? (!quick || PARTS.indexOf(part) < 2);

/** Rounds, milliseconds of a measurement, seconds of load on an app. */
const size = quick
  ? { rounds: 2, ms: 80, appRounds: 1, appSeconds: 0.8, optionRounds: 0 }
  : { rounds: 5, ms: 400, appRounds: 3, appSeconds: 2.5, optionRounds: 5 };
/** Roughly; the progress bar learns from it only how the parts compare. */
const seconds: Record<Part, number> = quick
  ? { store: 24, app: 18, wal: 0, options: 0, rows: 0, deletion: 0, heap: 0 }
  : { store: 130, app: 130, wal: 20, options: 20, rows: 60, deletion: 90, heap: 60 };

build();
// A quarter of the memory, as PostgreSQL's documentation recommends; else its defaults.
const settings = { shared_buffers: `${Math.floor(os.totalmem() / 4 / 2 ** 20)}MB` };
const server = await PostgresServer.start({ settings });
const redis = await startRedis();
const servers: Servers = { postgres: server.uri, redis: redis?.url };
const stores = peersOn(servers);
const sql = postgres(server.uri, { max: 1, onnotice: () => {} });
const version = (await sql`show server_version`)[0].server_version as string;
if (!redis) console.log('connect-redis is skipped: there is no `redis-server` on the PATH and no REDIS_URL.');
const before = await quietness(servers, quick ? 6 : 12);
console.log(describeQuietness(before));
if (isWhole && !isQuiet(before) && !values.force) {
  console.log('Nothing was measured: its figures would say more of the other work. Wait, or run it with --force.');
  await end();
  process.exit(1);
}

const results: Results = { samples: new Samples(), variants: new Samples() };
const progress = new Progress(PARTS.filter(isAsked).reduce((sum, part) => sum + seconds[part], 0));
const parts: Record<Part, () => Promise<void>> = {
  store: measureStores,
  app: measureApps,
  wal: measureWal,
  options: measureOptions,
  rows: async () => {
    results.growth = await growth(servers, 3, 5, (step) => progress.at(step));
  },
  deletion: async () => {
    results.deletion = await deletion(servers, server, (step) => progress.at(step));
  },
  heap: async () => {
    results.heap = await heap(servers, (step) => progress.at(step));
  },
};
for (const part of PARTS.filter(isAsked)) {
  progress.at(part);
  await parts[part]();
}
progress.stop();

show();
if (isWhole) await write();
else console.log('\nA part of the benchmark: bench/results.json and docs/benchmark.svg are left as they are.');
await end();

async function end(): Promise<void> {
  await sql.end();
  await server.close();
  if (redis) await clearRedis(redis.url);
  await redis?.close();
}

async function measureStores(): Promise<void> {
  const peers: Peer[] = [];
  // Rounds are of touches that must write.
  for (const name of stores) peers.push(await openPeer(name, servers, { touchAfter: 0 }));
  const subjects = [];
  for (const peer of peers) subjects.push(await prepare(peer));
  // For the compiler and the caches; not counted.
  await round(subjects, size.ms / 3, 0, () => {});
  for (let n = 0; n < size.rounds; n++) {
    await round(subjects, size.ms, n, (name, operation, inFlight, sample) => {
      results.samples.add(name, operation, inFlight, sample);
      progress.passed(seconds.store / size.rounds / IN_FLIGHT.length / OPERATIONS.length / subjects.length);
      progress.at(`${operation}, ${inFlight} in flight`);
    });
  }
  for (const peer of peers) await peer.close();
  results.skipped = await skippedTouches();
}

/** Of sessions that were just saved, with the default `touchAfter`. */
async function skippedTouches(): Promise<{ touches: number; statements: number }> {
  let statements = 0;
  const debug = () => {
    statements++;
  };
  const peer = await openPgStore(servers, { postgres: { debug } });
  const { calls } = await prepare(peer);
  statements = 0;
  const touches = 2_000;
  await Promise.all(
    Array.from({ length: touches }, (_, n) => new Promise<void>((done) => calls.touch(n, () => done()))),
  );
  await peer.close();
  return { touches, statements };
}

async function measureApps(): Promise<void> {
  const generator = new LoadGenerator();
  const apps = await Promise.all(stores.map((name) => App.start(name, servers)));
  const paths = ['read', 'change'] as const;
  for (const app of apps) for (const path of paths) await measureApp(app, generator, `/${path}`, quick ? 0.3 : 2);
  for (let n = 0; n < size.appRounds; n++) {
    for (const path of paths) {
      for (let turn = 0; turn < apps.length; turn++) {
        const app = apps[(turn + n) % apps.length];
        progress.at(`app, requests that ${path}`);
        const sample = await measureApp(app, generator, `/${path}`, size.appSeconds);
        results.samples.add(app.name, path, 100, sample);
        progress.passed(seconds.app / size.appRounds / 2 / apps.length);
      }
    }
  }
  for (const app of apps) await app.stop();
  await generator.stop();
}

async function measureWal(): Promise<void> {
  const generator = new LoadGenerator();
  const measured = async (name: 'PgStore' | 'connect-pg-simple') => {
    const bytes = await walPerRequest(name, servers, sql, generator, 10_000);
    progress.passed(seconds.wal / 2);
    return bytes;
  };
  results.wal = { ours: await measured('PgStore'), theirs: await measured('connect-pg-simple') };
  await generator.stop();
}

async function measureOptions(): Promise<void> {
  const peers = [
    await openPgStore(servers, { table: 'plain' }, 'off'),
    await openPgStore(servers, { table: 'encrypted', encryptionKey: 'a key for the benchmark only' }, 'encryptionKey'),
    await openPgStore(servers, { table: 'hashed', hashIds: true }, 'hashIds'),
    await openPgStore(servers, { table: 'signed', secret: 'a secret' }, 'secret'),
  ];
  const subjects = [];
  for (const peer of peers) subjects.push(await prepare(peer));
  const add: Parameters<typeof round>[3] = (name, operation, inFlight, sample) => {
    results.variants.add(name, operation, inFlight, sample);
    progress.passed(seconds.options / size.optionRounds / 2 / subjects.length);
    progress.at(`${operation} with options`);
  };
  await round(subjects, size.ms / 3, 0, () => {}, [128], ['get', 'set']);
  for (let n = 0; n < size.optionRounds; n++) await round(subjects, size.ms, n, add, [128], ['get', 'set']);
  for (const peer of peers) await peer.close();
}

function allRows(): Row[] {
  const { samples } = results;
  return [
    ...IN_FLIGHT.flatMap((inFlight) => OPERATIONS.flatMap((operation) => rowsOf(samples, stores, operation, inFlight))),
    ...Object.keys(REQUESTS).flatMap((path) => rowsOf(samples, stores, path, 100)),
  ];
}

function show(): void {
  const all = allRows();
  for (const title of new Set(all.map(titleOf))) {
    const rows = all.filter((row) => titleOf(row) === title);
    const lines = rows.map(({ store, rate, ratio, p50, p99, cpu, delay }) => [
      store,
      spread(rate),
      spread(ratio),
      ...[p50, p99, cpu, delay ?? Number.NaN].map(figure),
    ]);
    const head = [title, 'a second', 'x connect-pg-simple', 'p50 ms', 'p99 ms', 'CPU µs', 'loop p99 ms'];
    console.log(`\n${table(head, lines)}`);
  }
  const variants = ['off', ...OPTIONS].flatMap((name) => {
    if (results.variants.of(name, 'get', 128).length === 0) return [];
    return [
      [name, ...['get', 'set'].map((operation) => spread(ratioOf(results.variants, name, 'off', operation, 128)))],
    ];
  });
  if (variants.length > 0) console.log(`\n${table(['rate with an option, off = 1', 'get', 'set'], variants)}`);
  const targets = targetsOf(results).map(({ what, goal, measured, reached }) => [
    what,
    goal,
    measured,
    reached ? 'reached' : 'NOT reached',
  ]);
  console.log(`\n${table(['target', 'goal', 'measured (quartiles)', ''], targets, 'left')}`);
}

/** What else ran meanwhile shows in a second look at the machine. */
async function write(): Promise<void> {
  const after = await quietness(servers);
  console.log(`\nAfter the run: ${describeQuietness(after)}`);
  if (!isQuiet(after) && !values.force) {
    console.log('Nothing was written. Run it again, or with --force.');
    process.exitCode = 1;
    return;
  }
  const where = machine(version, redis?.version, [before, after]);
  const { samples: _, variants, ...rest } = results;
  const options = Object.fromEntries(
    OPTIONS.map((name) => [
      name,
      { get: ratioOf(variants, name, 'off', 'get', 128), set: ratioOf(variants, name, 'off', 'set', 128) },
    ]),
  );
  const rows = allRows();
  const all = { machine: where, stores: rows, options, ...rest, targets: targetsOf(results) };
  const file = (name: string) => new URL(`../${name}`, import.meta.url);
  fs.writeFileSync(file('bench/results.json'), `${JSON.stringify(all, rounded, 2)}\n`);
  fs.writeFileSync(file('docs/benchmark.svg'), await chart(rows, where));
  console.log(`\nWritten: bench/results.json and docs/benchmark.svg\n${describe(where)}`);
}

/** Four significant digits. */
function rounded(_: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
}
