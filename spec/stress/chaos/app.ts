/**
 * One app process of `npm run chaos`: visitors at random on sessions that all processes share, and watches of these. It
 * tells the main process what was acknowledged.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { PgStore, type PgStoreOptions } from '../../../lib/index.js';
import { random } from '../../support/random.js';
import { HttpVisits } from './http-visits.js';
import { KnownSessions } from './known-sessions.js';
import type { AppOptions, ToApp } from './messages.js';
import { Reporter } from './reporter.js';
import { StoreVisits } from './store-visits.js';
import { UserVisits } from './user-visits.js';
import { Watching } from './watching.js';

/** How many visitors of each kind a process has. */
const VISITORS = { store: 12, users: 4, http: 6 };

const { name, uri, table, seed, timeout, client, servesHttp } = JSON.parse(process.env.CHAOS_APP ?? '') as AppOptions;
const pick = random(seed);
const pool = client === 'pg' ? new pg.Pool({ connectionString: uri, statement_timeout: 0.9 * timeout }) : undefined;
// As node-postgres has it: without one, an idle connection that breaks would end the process.
pool?.on('error', () => {});

const reporter = new Reporter(name);
const store = newStore();
const known = new KnownSessions(pick);
const watching = new Watching(store, reporter);
const storeVisits = new StoreVisits(store, reporter, known, watching, pick);
const userVisits = new UserVisits(store, reporter, known, storeVisits, pick);
const httpVisits = servesHttp ? await HttpVisits.start(newStore(), reporter, known, pick) : undefined;
let isResting = false;
let ending: Promise<void> | undefined;

function newStore(): PgStore {
  const options: PgStoreOptions = {
    ...(pool ? { pool } : { uri }),
    table,
    timeout,
    touchAfter: 0,
    watchInterval: 0.5,
    user: (session: any) => session.user,
  };
  const created = new PgStore(options);
  created.on('dropped', () => reporter.report.dropped++);
  created.on('retry', () => reporter.disturbances++);
  return created;
}

async function visitor(visits: { visit(): Promise<void> }): Promise<void> {
  while (!isResting) {
    await visits.visit();
    await sleep(pick() * 30);
  }
}

function visitors(count: number, visits: { visit(): Promise<void> }): Promise<void>[] {
  return Array.from({ length: count }, () => visitor(visits));
}

/** As an app does it on SIGTERM: no new calls, those under way end, then the process. */
async function end(): Promise<void> {
  isResting = true;
  const closed = Promise.all([store.close(), httpVisits?.close()]);
  await visiting;
  await closed;
  await pool?.end();
  clearInterval(flushing);
  await reporter.flush();
  process.removeAllListeners('disconnect');
  if (process.connected) process.disconnect();
}

process.on('message', (message: ToApp) => {
  if (message === 'rest') isResting = true;
  else if (message === 'stop') ending ??= end();
  else {
    known.add(message.created);
    if (pick() < 0.5) watching.watch(message.created.sid);
  }
});
process.on('disconnect', () => process.exit(1));
process.once('SIGTERM', () => {
  ending ??= end();
});
const flushing = setInterval(() => void reporter.flush(), 50);
const visiting = Promise.all([
  ...visitors(VISITORS.store, storeVisits),
  ...visitors(VISITORS.users, userVisits),
  ...(httpVisits ? visitors(VISITORS.http, httpVisits) : []),
]);
await visiting;
await reporter.flush();
await reporter.tell('at rest');
await ending;
