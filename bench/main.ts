/**
 * How fast is PgStore beside its peers? `npm run bench`; `-- --quick` for a minute's worth; `-- --only store` for one part
 * (store, app, wal, options, rows, deletion, heap).
 */

import fs from 'node:fs';
import { parseArgs } from 'node:util';
import postgres from 'postgres';
import { PostgresServer } from '../example/postgres-server.js';
import { App, LoadGenerator, measureApp } from './app-level.js';
import { build } from './build.js';
import { chart } from './chart.js';
import { deletion, growth, heap } from './long.js';
import { clearRedis, openPeer, openPgStore, type Peer, peersOn, type Servers } from './peers.js';
import { Progress } from './progress.js';
import { startRedis } from './redis-server.js';
import { figure, table } from './report.js';
import { type Machine, machine, type Results, type Row, ratioOf, rowsOf } from './results.js';
import { prepare, round, Samples } from './store-level.js';
import { targetsOf, targetTable } from './targets.js';
import { walPerRequest } from './wal.js';

const PARTS = ['store', 'app', 'wal', 'options', 'rows', 'deletion', 'heap'] as const;
type Part = (typeof PARTS)[number];

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
  },
});
const { quick } = values;
for (const part of values.only ?? []) {
  if (!(PARTS as readonly string[]).includes(part)) throw new Error(`--only ${part}: expected ${PARTS.join(', ')}`);
}
const isAsked = (part: Part) => values.only?.includes(part) ?? (!quick || PARTS.indexOf(part) < 4);

/** Rounds, milliseconds of a measurement, seconds of load on an app. */
const size = quick
  ? { rounds: 2, ms: 200, appRounds: 1, appSeconds: 1, walRequests: 2_000, optionRounds: 1 }
  : { rounds: 9, ms: 1_000, appRounds: 5, appSeconds: 4, walRequests: 10_000, optionRounds: 5 };
/** Roughly; the progress bar learns from it only how the parts compare. */
const seconds: Record<Part, number> = quick
  ? { store: 24, app: 18, wal: 8, options: 4, rows: 0, deletion: 0, heap: 0 }
  : { store: 320, app: 240, wal: 30, options: 60, rows: 150, deletion: 150, heap: 90 };

build();
const server = await PostgresServer.start();
const redis = await startRedis();
const servers: Servers = { postgres: server.uri, redis: redis?.url };
const stores = peersOn(servers);
const sql = postgres(server.uri, { max: 1, onnotice: () => {} });
const where = machine((await sql`show server_version`)[0].server_version, redis?.version);
console.log(describe(where));
if (!redis) console.log('connect-redis is left out: there is no `redis-server` on the PATH and no REDIS_URL.');

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
if (quick || values.only)
  console.log('\nA part of the benchmark: bench/results.json and docs/benchmark.svg are left as they are.');
else await write();

await sql.end();
await server.close();
if (redis) await clearRedis(redis.url);
await redis?.close();

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
      progress.passed(seconds.store / size.rounds / 6 / subjects.length);
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
  const apps: App[] = [];
  for (const name of stores) apps.push(await App.start(name, servers));
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
    const bytes = await walPerRequest(name, servers, sql, generator, size.walRequests);
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

function describe({ date, cpu, cores, memoryGb, system, versions }: Machine): string {
  const packages = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return `${date}, ${cores} cores of ${cpu}, ${memoryGb} GB, ${system}\n${packages.join(', ')}\n`;
}

function allRows(): Row[] {
  const { samples } = results;
  return [
    ...[128, 1].flatMap((inFlight) =>
      ['get', 'set', 'touch'].flatMap((operation) => rowsOf(samples, stores, operation, inFlight)),
    ),
    ...['read', 'change'].flatMap((path) => rowsOf(samples, stores, path, 100)),
  ];
}

function show(): void {
  const rows = allRows();
  const head = ['', 'a second', 'x connect-pg-simple', 'p50 ms', 'p99 ms', 'CPU µs'];
  for (const { what, inFlight } of rows.filter(
    (row, n) => n === 0 || row.what !== rows[n - 1].what || row.inFlight !== rows[n - 1].inFlight,
  )) {
    const title = inFlight === 100 ? `app, requests that ${what}, 100 connections` : `${what}, ${inFlight} in flight`;
    const lines = rows
      .filter((row) => row.what === what && row.inFlight === inFlight)
      .map(({ store, rate, ratio, p50, p99, cpu }) => [store, ...[rate, ratio, p50, p99, cpu].map(figure)]);
    console.log(`\n${table([title, ...head.slice(1)], lines)}`);
  }
  const variants = ['off', 'encryptionKey', 'hashIds', 'secret'].flatMap((name) => {
    const get = results.variants.of(name, 'get', 128);
    if (get.length === 0) return [];
    return [
      [name, ...['get', 'set'].map((operation) => figure(ratioOf(results.variants, name, 'off', operation, 128)))],
    ];
  });
  if (variants.length > 0) console.log(`\n${table(['rate with an option, off = 1', 'get', 'set'], variants)}`);
  console.log(`\n${targetTable(targetsOf(results))}`);
}

async function write(): Promise<void> {
  const { samples: _, variants, ...rest } = results;
  const options = Object.fromEntries(
    ['encryptionKey', 'hashIds', 'secret'].map((name) => [
      name,
      { get: ratioOf(variants, name, 'off', 'get', 128), set: ratioOf(variants, name, 'off', 'set', 128) },
    ]),
  );
  const rows = allRows();
  const all = { machine: where, stores: rows, options, ...rest, targets: targetsOf(results) };
  const file = (name: string) => new URL(`../${name}`, import.meta.url);
  fs.writeFileSync(file('bench/results.json'), `${JSON.stringify(all, rounded, 2)}\n`);
  fs.writeFileSync(file('docs/benchmark.svg'), await chart(rows, where));
  console.log('\nWritten: bench/results.json and docs/benchmark.svg');
}

/** Four significant digits. */
function rounded(_: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
}
