/** What parallel requests lose with each store, as a table: `npm run races`. */

import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { build } from '../../bench/stores/build.js';
import { clearRedis, openPeer, type Peer, type PeerName, peersOn, type Servers } from '../../bench/stores/peers.js';
import { PostgresServer } from '../support/postgres-server.js';
import { Gate, listen, raceApp, Visitor } from '../support/race-app.js';
import { type Redis, startRedis } from '../support/redis-server.js';

const COUNT = 20;
const COLUMNS = [
  'store',
  `keys lost of ${COUNT}`,
  `nested keys lost of ${COUNT}`,
  `sessions revived after logout, of ${COUNT}`,
  'changed `cookie.maxAge` kept',
];
const DAY = 86_400_000;
const names = Array.from({ length: COUNT }, (_, n) => `request${n}`);

/**
 * Lets the requests go on when all have loaded their session and `meanwhile` is done; none has
 * saved before.
 */
async function overlap(gate: Gate, requests: Promise<void>[], meanwhile = async () => {}): Promise<void> {
  await gate.arrived(requests.length);
  await meanwhile();
  gate.open();
  await Promise.all(requests);
}

async function loggedIn(url: string): Promise<Visitor> {
  const visitor = new Visitor();
  await visitor.post(`${url}/login/ann`);
  return visitor;
}

/** How many keys are missing after that many requests have each set one at the same time. */
async function lostKeys(url: string, gate: Gate, route: 'key' | 'nested'): Promise<number> {
  const visitor = await loggedIn(url);
  await overlap(
    gate,
    names.map((name) => visitor.twin().post(`${url}/${route}/${name}`)),
  );
  const { data } = await visitor.session(url);
  return names.filter((name) => !(name in (route === 'key' ? data : data.files))).length;
}

/**
 * How many sessions are there again after a logout while a request that changes them was running.
 */
async function revived(url: string, gate: Gate): Promise<number> {
  const visitors = await Promise.all(names.map(() => loggedIn(url)));
  await overlap(
    gate,
    visitors.map((visitor) => visitor.twin().post(`${url}/key/late`)),
    async () => {
      for (const visitor of visitors) await visitor.twin().post(`${url}/logout`);
    },
  );
  const sessions = await Promise.all(visitors.map((visitor) => visitor.session(url)));
  return sessions.filter(({ data }) => data.user === 'ann').length;
}

/** Whether "remember me" lasts: a request that changes `cookie.maxAge` and nothing else. */
async function keepsMaxAge(url: string): Promise<boolean> {
  const visitor = await loggedIn(url);
  await visitor.post(`${url}/max-age/${DAY}`);
  return (await visitor.session(url)).maxAge === DAY;
}

async function measure({ store }: Peer): Promise<(number | string)[]> {
  const gate = new Gate();
  const { url, close } = await listen(raceApp({ store, gate }));
  try {
    return [
      await lostKeys(url, gate, 'key'),
      await lostKeys(url, gate, 'nested'),
      await revived(url, gate),
      (await keepsMaxAge(url)) ? 'yes' : 'no',
    ];
  } finally {
    await close();
  }
}

function nameOf(name: PeerName): string {
  if (name === 'MemoryStore') return `MemoryStore (express-session ${versionOf('express-session')})`;
  const [store] = name.split(' ') as [string];
  return name === 'PgStore' ? '**PgStore**' : `${store} ${versionOf(store)}`;
}

function versionOf(name: string): string {
  // Read as a file: connect-redis does not export its package.json.
  const folders = createRequire(import.meta.url).resolve.paths(name) ?? [];
  const file = folders.map((folder) => path.join(folder, name, 'package.json')).find((each) => fs.existsSync(each));
  return JSON.parse(fs.readFileSync(file as string, 'utf8')).version;
}

let postgres: PostgresServer | undefined;
let redis: Redis | undefined;
try {
  build();
  postgres = await PostgresServer.start();
  redis = await startRedis();
  const servers: Servers = { postgres: postgres.uri, redis: redis?.url };
  console.log(`| ${COLUMNS.join(' | ')} |\n|${' --- |'.repeat(COLUMNS.length)}`);
  for (const name of peersOn(servers)) {
    if (['plain postgres', 'connect-redis (redis 5)', 'PgStore on pg.Pool'].includes(name)) continue;
    const peer = await openPeer(name, servers);
    const row = await measure(peer);
    console.log(`| ${[nameOf(name), ...row].join(' | ')} |`);
    await peer.close();
  }
  if (!redis) console.log('\nWithout connect-redis: there is no `redis-server` here, and REDIS_URL is not set.');
} finally {
  if (process.env.REDIS_URL && redis) await clearRedis(redis.url);
  await redis?.close();
  await postgres?.close();
}
