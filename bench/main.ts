/**
 * Measures PgStore beside the stores that it is compared with. README.md in this folder explains how.
 *
 *     npm run bench                       # all parts, on a quiet machine; writes bench/results.json
 *     npm run bench -- --force            # on any machine; the figures then say that it had other work
 *     npm run bench -- --quick            # the first parts, small: within a minute; writes nothing
 *     npm run bench -- --only sign-outs   # these parts alone; writes nothing
 */

import fs from 'node:fs';
import os from 'node:os';
import { parseArgs } from 'node:util';
import postgres from 'postgres';
import { PostgresServer } from '../spec/support/postgres-server.js';
import { startRedis } from '../spec/support/redis-server.js';
import { Progress } from './figures/progress.js';
import { describeQuietness, isQuiet, quietness } from './figures/quiet.js';
import { describe, machine, type Results, type Row, ratioOf, rowsOf } from './figures/results.js';
import { Samples } from './figures/samples.js';
import { tablesOf } from './figures/tables.js';
import { REQUESTS, targetsOf } from './figures/targets.js';
import { App, LoadGenerator, measureApp } from './parts/apps.js';
import { IN_FLIGHT, OPERATIONS, prepare, round, skippedTouches } from './parts/calls.js';
import { clearing, deletion, growth, heap } from './parts/long.js';
import { signOuts } from './parts/sign-outs.js';
import { updateRows, updates } from './parts/updates.js';
import { walPerRequest } from './parts/wal.js';
import { watches } from './parts/watches.js';
import { build } from './stores/build.js';
import { clearRedis, openPeer, openPgStore, type Peer, type PeerName, peersOn, type Servers } from './stores/peers.js';

interface Part {
  /** How long the part roughly takes, for the progress bar. */
  readonly seconds: number;
  /** The same for the quick run; `undefined` if that leaves the part out. */
  readonly quickSeconds?: number;
  readonly measure: () => Promise<void>;
}

/** The parts, in the order in which they are measured. */
const PARTS: Readonly<Record<string, Part>> = {
  calls: { seconds: 130, quickSeconds: 14, measure: measureCalls },
  apps: { seconds: 150, quickSeconds: 18, measure: measureApps },
  'sign-outs': { seconds: 30, quickSeconds: 3, measure: measureSignOuts },
  update: { seconds: 15, quickSeconds: 2, measure: measureUpdates },
  watch: { seconds: 20, measure: measureWatches },
  wal: { seconds: 20, measure: measureWal },
  options: { seconds: 20, measure: measureOptions },
  rows: { seconds: 60, measure: measureGrowth },
  deletion: { seconds: 90, measure: measureDeletion },
  clear: { seconds: 60, measure: measureClearing },
  heap: { seconds: 60, measure: measureHeap },
};

/** Options of PgStore that cost time in each call. */
const OPTIONS = ['encryptionKey', 'hashIds', 'secret'] as const;

/** The stores of the quick run, and of the apps whose sessions are one long string. */
const COMPARED: readonly PeerName[] = ['MemoryStore', 'connect-pg-simple', 'connect-redis (redis 6)', 'PgStore'];

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    force: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
  },
});
const { quick } = values;
const isFullRun = !quick && !values.only;
for (const name of values.only ?? []) {
  if (!(name in PARTS)) throw new Error(`--only ${name}: expected ${Object.keys(PARTS).join(', ')}`);
}
const chosen = Object.entries(PARTS).filter(
  ([name, part]) => values.only?.includes(name) ?? (!quick || part.quickSeconds !== undefined),
);

/**
 * The size of the run: `ms` are the milliseconds of one measurement, `appSeconds` and `appWarmUp` seconds of load on an
 * app, and `signIns` the numbers of concurrent sign-ins.
 */
const size = quick
  ? { rounds: 2, ms: 60, appRounds: 1, appSeconds: 0.5, appWarmUp: 0.2, signIns: [50, 100], signInRounds: 1 }
  : { rounds: 5, ms: 400, appRounds: 3, appSeconds: 2.5, appWarmUp: 2, signIns: [50, 100, 200, 400], signInRounds: 3 };

build();
// `shared_buffers` is a quarter of the memory, as PostgreSQL's documentation recommends. The rest has its default.
const settings = { shared_buffers: `${Math.floor(os.totalmem() / 4 / 2 ** 20)}MB` };
const server = await PostgresServer.start({ settings });
const redis = await startRedis();
const servers: Servers = { postgres: server.uri, redis: redis?.url };
const stores = peersOn(servers).filter((name) => !quick || COMPARED.includes(name));
const sql = postgres(server.uri, { max: 1, onnotice: () => {} });
const version = (await sql`show server_version`)[0]?.server_version as string;
if (!redis) console.log('connect-redis is skipped: there is no `redis-server` on the PATH and no REDIS_URL.');
const before = await quietness(servers, quick ? 4 : 12);
console.log(describeQuietness(before));
if (isFullRun && !isQuiet(before) && !values.force) {
  console.log('Nothing was measured, because other work would distort the figures. Wait, or run it with --force.');
  await end();
  process.exit(1);
}

const results: Results = { samples: new Samples(), variants: new Samples() };
const secondsOf = ({ seconds, quickSeconds }: Part) => (quick ? (quickSeconds ?? 0) : seconds);
const progress = new Progress(chosen.reduce((sum, [, part]) => sum + secondsOf(part), 0));
for (const [name, part] of chosen) {
  progress.at(name);
  await part.measure();
}
progress.stop();

for (const text of tablesOf(allRows(), results, OPTIONS)) console.log(`\n${text}`);
if (isFullRun) await write();
else console.log('\nOnly a part of the benchmark was run, so bench/results.json was not changed.');
await end();

async function end(): Promise<void> {
  await sql.end();
  await server.close();
  if (redis) await clearRedis(redis.url);
  await redis?.close();
}

function step(text: string): void {
  progress.at(text);
}

async function measureCalls(): Promise<void> {
  const peers: Peer[] = [];
  // With `touchAfter: 0` every touch is written, as the other stores write it.
  for (const name of stores) peers.push(await openPeer(name, servers, { touchAfter: 0 }));
  const subjects = [];
  for (const peer of peers) subjects.push(await prepare(peer));
  // The first round warms up the compiler and the caches, and is not counted.
  await round(subjects, size.ms / 3, 0, () => {});
  for (let n = 0; n < size.rounds; n++) {
    await round(subjects, size.ms, n, (name, operation, inFlight, sample) => {
      results.samples.add(name, operation, inFlight, sample);
      const measurements = size.rounds * IN_FLIGHT.length * OPERATIONS.length * subjects.length;
      progress.passed(secondsOf(PARTS.calls as Part) / measurements);
      step(`${operation}, ${inFlight} in flight`);
    });
  }
  for (const peer of peers) await peer.close();
  results.skipped = await skippedTouches(servers);
}

async function measureApps(): Promise<void> {
  const generator = new LoadGenerator();
  const apps: App[] = [];
  for (const name of stores) apps.push(await App.start(name, servers));
  const paths = Object.keys(REQUESTS);
  const appsOf = (path: string) => apps.filter(({ name }) => path !== 'read-text' || COMPARED.includes(name));
  for (const path of paths) {
    for (const app of appsOf(path)) await measureApp(app, generator, `/${path}`, size.appWarmUp);
  }
  for (let n = 0; n < size.appRounds; n++) {
    for (const path of paths) {
      const measured = appsOf(path);
      for (let turn = 0; turn < measured.length; turn++) {
        const app = measured[(turn + n) % measured.length] as App;
        step(`${REQUESTS[path]}`);
        const sample = await measureApp(app, generator, `/${path}`, size.appSeconds);
        results.samples.add(app.name, path, 100, sample);
        progress.passed(secondsOf(PARTS.apps as Part) / size.appRounds / paths.length / measured.length);
      }
    }
  }
  for (const app of apps) await app.stop();
  await generator.stop();
}

async function measureSignOuts(): Promise<void> {
  results.signOuts = await signOuts(servers, size.signIns, size.signInRounds, step);
}

async function measureUpdates(): Promise<void> {
  results.updates = await updates(servers, size.ms, size.rounds, step);
}

async function measureWatches(): Promise<void> {
  results.watches = await watches(servers, server, 10_000, 5);
}

async function measureWal(): Promise<void> {
  const generator = new LoadGenerator();
  const measured = async (name: 'PgStore' | 'connect-pg-simple') => {
    const bytes = await walPerRequest(name, servers, sql, generator, 10_000);
    progress.passed(secondsOf(PARTS.wal as Part) / 2);
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
    progress.passed(secondsOf(PARTS.options as Part) / size.rounds / 2 / subjects.length);
    step(`${operation} with options`);
  };
  await round(subjects, size.ms / 3, 0, () => {}, [128], ['get', 'set']);
  for (let n = 0; n < size.rounds; n++) await round(subjects, size.ms, n, add, [128], ['get', 'set']);
  for (const peer of peers) await peer.close();
}

async function measureGrowth(): Promise<void> {
  results.growth = await growth(servers, 3, 5, step);
}

async function measureDeletion(): Promise<void> {
  results.deletion = await deletion(servers, server, step);
}

async function measureClearing(): Promise<void> {
  results.clearing = await clearing(servers, server, step);
}

async function measureHeap(): Promise<void> {
  results.heap = await heap(servers, step);
}

function allRows(): Row[] {
  const { samples } = results;
  return [
    ...IN_FLIGHT.flatMap((inFlight) => OPERATIONS.flatMap((operation) => rowsOf(samples, stores, operation, inFlight))),
    ...Object.keys(REQUESTS).flatMap((path) => rowsOf(samples, stores, path, 100)),
  ];
}

/** Writes bench/results.json, unless a second check of the machine shows that it had other work meanwhile. */
async function write(): Promise<void> {
  const after = await quietness(servers);
  console.log(`\nAfter the run: ${describeQuietness(after)}`);
  if (!isQuiet(after) && !values.force) {
    console.log('Nothing was written. Run it again, or with --force.');
    process.exitCode = 1;
    return;
  }
  const { samples: _, variants, updates: updateSamples, ...measured } = results;
  const options = Object.fromEntries(
    OPTIONS.map((name) => [
      name,
      { get: ratioOf(variants, name, 'off', 'get', 128), set: ratioOf(variants, name, 'off', 'set', 128) },
    ]),
  );
  const where = machine(version, redis?.version, [before, after]);
  const all = {
    machine: where,
    stores: allRows(),
    options,
    ...measured,
    ...(updateSamples ? { updates: updateRows(updateSamples) } : {}),
    targets: targetsOf(results),
  };
  fs.writeFileSync(new URL('results.json', import.meta.url), `${JSON.stringify(all, roundedNumber, 2)}\n`);
  console.log(`\nWritten: bench/results.json. \`npm run docs:bench\` writes the pages and the chart from it.`);
  console.log(describe(where));
}

/** Rounds to four significant digits, because further ones change with each run. */
function roundedNumber(_: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
}
