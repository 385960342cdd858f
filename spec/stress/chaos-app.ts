/**
 * One app process of `npm run chaos`: visitors at random on sessions that all processes share, and
 * a log of what was acknowledged.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { PgStore } from '../../lib/index.js';
import { random } from '../support/random.js';
import { load, plain } from '../support/sessions.js';

export interface AppOptions {
  name: string;
  uri: string;
  table: string;
  seed: number;
  timeout: number;
  /** `pg`: over a node-postgres pool; else over connections of the store. */
  client: string;
}

/**
 * What a process tells about its calls since it last told. Times are milliseconds on the machine's
 * monotonic clock.
 */
export interface Report {
  calls: number;
  failed: number;
  dropped: number;
  /** Calls without an answer now. */
  open: number;
  longest: number;
  codes: Record<string, number>;
  created: string[];
  /** Acknowledged saves: session, and the key that this save alone added. */
  saved: [string, string][];
  /** Acknowledged destroys, and when. */
  destroyed: [string, number][];
  /** When the latest `get` began that found the session. */
  found: Record<string, number>;
  /** Keys whose save this process had acknowledged, and a later `get` of its own did not find. */
  stale: number;
}

export type FromApp = { report: Report } | { destroying: string };
export type ToApp = { created: string } | 'stop';

const VISITORS = 12;
const { name, uri, table, seed, timeout, client } = JSON.parse(process.env.CHAOS_APP ?? '') as AppOptions;
const pick = random(seed);
const pool = client === 'pg' ? new pg.Pool({ connectionString: uri, statement_timeout: 0.9 * timeout }) : undefined;
// As node-postgres has it: without one, an idle connection that breaks would end the process.
pool?.on('error', () => {});
const store = new PgStore({ ...(pool ? { pool } : { uri }), table, timeout, touchAfter: 0 });
const sids: string[] = [];
const mine = new Map<string, string[]>();
let report = emptyReport();
let open = 0;
let stopped = false;
let ending: Promise<void> | undefined;
let count = 0;

function emptyReport(): Report {
  return {
    calls: 0,
    failed: 0,
    dropped: 0,
    open: 0,
    longest: 0,
    codes: {},
    created: [],
    saved: [],
    destroyed: [],
    found: {},
    stale: 0,
  };
}

const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;

function tell(message: FromApp): Promise<void> {
  return new Promise((resolve) => (process.connected ? process.send?.(message, () => resolve()) : resolve()));
}

function flush(): Promise<void> {
  const told = { ...report, open };
  report = emptyReport();
  return tell({ report: told });
}

/** Makes a call; `undefined` if it failed. */
async function call<T>(make: () => Promise<T>): Promise<{ value: T; began: number } | undefined> {
  const began = now();
  report.calls++;
  open++;
  try {
    return { value: await make(), began };
  } catch (error: any) {
    report.failed++;
    report.codes[error.code] = (report.codes[error.code] ?? 0) + 1;
    return undefined;
  } finally {
    open--;
    report.longest = Math.max(report.longest, now() - began);
  }
}

function knows(sid: string): void {
  sids.push(sid);
  if (sids.length > 40) mine.delete(sids.shift() as string);
}

async function create(): Promise<void> {
  const sid = `${name}-${count++}`;
  if (await call(() => store.set(sid, plain({}, 3_600_000)))) report.created.push(sid);
}

async function find(sid: string) {
  const known = [...(mine.get(sid) ?? [])];
  const found = await call(() => load(store, sid));
  if (!found?.value) return undefined;
  report.found[sid] = Math.max(report.found[sid] ?? 0, found.began);
  const session = found.value;
  report.stale += known.filter((key) => session[key] !== key).length;
  return session;
}

async function save(sid: string): Promise<void> {
  const session = await find(sid);
  if (!session) return;
  await sleep(pick() * 20);
  const key = `${name}:${count++}`;
  session[key] = key;
  if (!(await call(() => store.set(sid, session)))) return;
  report.saved.push([sid, key]);
  const keys = mine.get(sid) ?? [];
  keys.push(key);
  mine.set(sid, keys);
}

async function destroy(sid: string): Promise<void> {
  // Known before it is done: if this process is killed in between, nobody may count the session's
  // writes as lost.
  await tell({ destroying: sid });
  if (await call(() => store.destroy(sid))) report.destroyed.push([sid, now()]);
}

async function touch(sid: string): Promise<void> {
  const session = await find(sid);
  if (session) await call(() => store.touch(sid, session));
}

async function visitor(): Promise<void> {
  while (!stopped) {
    const sid = sids[Math.floor(pick() * sids.length)];
    const dice = pick();
    if (sid === undefined || dice < 0.06) await create();
    else if (dice < 0.09) await destroy(sid);
    else if (dice < 0.2) await touch(sid);
    else if (dice < 0.35) await find(sid);
    else await save(sid);
    await sleep(pick() * 30);
  }
}

store.on('dropped', () => report.dropped++);
process.on('message', (message: ToApp) => {
  if (message === 'stop') stopped = true;
  else knows(message.created);
});
process.on('disconnect', () => process.exit(1));
const flushing = setInterval(flush, 50);
const visitors = Array.from({ length: VISITORS }, visitor);

/** As an app does it on SIGTERM: no new calls, those under way end, then the process. */
async function end(): Promise<void> {
  stopped = true;
  const closed = store.close();
  await Promise.all(visitors);
  await closed;
  clearInterval(flushing);
  await flush();
  process.removeAllListeners('disconnect');
  if (process.connected) process.disconnect();
}

process.once('SIGTERM', () => {
  ending ??= end();
});
await Promise.all(visitors);
ending ??= end();
await ending;
