/**
 * Does any acknowledged write get lost, any destroyed session come back, any call stay unanswered,
 * whatever breaks?
 *
 * npm run chaos -- --seconds 30 --processes 4 --seed 1 --client pg
 */

import { type ChildProcess, fork } from 'node:child_process';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import postgres from 'postgres';
import { PgStore } from '../../lib/index.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { PostgresServer } from '../support/postgres-server.js';
import { random } from '../support/random.js';
import type { AppOptions, FromApp, ToApp } from './chaos-app.js';
import { Log } from './chaos-log.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '30' },
    processes: { type: 'string', default: '4' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    client: { type: 'string', default: 'postgres' },
  },
});
const { client } = values;
if (client !== 'postgres' && client !== 'pg') throw new TypeError('--client: expected postgres or pg');
const [seconds, processes, seed] = [values.seconds, values.processes, values.seed].map(Number) as [
  number,
  number,
  number,
];
if (![seconds, processes, seed].every((n) => n >= 0))
  throw new TypeError('--seconds, --processes, --seed: expected numbers');

const TABLE = 'sessions';
/** Shorter than the longest silence, so that calls do fail and connections are given up. */
const TIMEOUT = 4000;
const pick = random(seed);
const between = (least: number, most: number) => Math.round(least + pick() * (most - least));

const server = await PostgresServer.start();
const proxy = await FaultProxy.start(() => server.port);
const log = new Log();
const injected: Record<string, number> = {};
let unanswered = 0;
let started = 0;

interface App {
  readonly child: ChildProcess;
  /** It has told something: it runs, and takes signals. */
  readonly running: Promise<unknown>;
  readonly ended: Promise<number | null>;
  open: number;
}
const apps: (App | undefined)[] = [];

function startApp(slot: number): void {
  const name = `app${started++}`;
  const options: AppOptions = {
    name,
    uri: proxy.uri,
    table: TABLE,
    seed: seed * 1000 + started,
    timeout: TIMEOUT,
    client,
  };
  // Not as an argument: all users of the machine can see those, and the URI has the password.
  const env = { ...process.env, CHAOS_APP: JSON.stringify(options) };
  const child = fork(path.join(import.meta.dirname, 'chaos-app.ts'), { execArgv: ['--import', 'tsx'], env });
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  const running = Promise.race([new Promise((resolve) => child.once('message', resolve)), ended]);
  const app: App = { child, running, ended, open: 0 };
  apps[slot] = app;
  child.on('message', (message: FromApp) => {
    if ('destroying' in message) return log.destroying(message.destroying);
    log.add(message.report);
    app.open = message.report.open;
    for (const created of message.report.created) for (const other of apps) tell(other, { created });
  });
}

function tell(app: App | undefined, message: ToApp): void {
  if (app?.child.connected) app.child.send(message, () => {});
}

/** Ends an app in order; what it leaves unanswered counts. */
async function endApp(app: App, end: () => void): Promise<void> {
  await app.running;
  end();
  const code = await Promise.race([app.ended, sleep(5 * TIMEOUT, 'late' as const, { ref: false })]);
  if (code === 0) return;
  unanswered += Math.max(app.open, 1);
  console.error(
    `an app process ${code === 'late' ? 'did not end' : `ended with ${code}`}, ${app.open} calls unanswered`,
  );
  app.child.kill('SIGKILL');
  await app.ended;
}

async function asAdmin(work: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
  const sql = postgres(server.uri, { max: 1, onnotice: () => {} });
  try {
    await work(sql);
  } finally {
    await sql.end();
  }
}

const FAULTS: Record<string, () => Promise<unknown>> = {
  'server killed (-9)': async () => {
    await server.stop('kill');
    await sleep(between(100, 1500));
    await server.start();
  },
  'fast restart': () => server.restart('fast'),
  'immediate restart': () => server.restart('immediate'),
  'all connections terminated': () =>
    asAdmin(async (sql) => {
      for (let times = between(1, 10); times > 0; times--) {
        await sql`
          select pg_terminate_backend(pid) from pg_stat_activity
          where backend_type = 'client backend' and pid <> pg_backend_pid()`;
        await sleep(100);
      }
    }),
  'all connections cut': async () => {
    for (let times = between(1, 5); times > 0; times--) {
      proxy.cut();
      await sleep(between(20, 200));
    }
  },
  'network unresponsive': async () => {
    proxy.silence();
    await sleep(between(100, 2 * TIMEOUT));
    proxy.resume();
  },
  'connections refused': async () => {
    proxy.refuse(true);
    await sleep(between(100, 1500));
    proxy.refuse(false);
  },
  'table locked': () =>
    asAdmin((sql) =>
      sql.begin(async (sql) => {
        await sql`set local lock_timeout = '5s'`;
        await sql`lock table ${sql(TABLE)} in access exclusive mode`;
        await sleep(between(100, 1.5 * TIMEOUT));
      }),
    ),
  'app process killed (-9)': async () => {
    const slot = between(0, processes - 1);
    const app = apps[slot];
    app?.child.kill('SIGKILL');
    await app?.ended;
    startApp(slot);
  },
  'app process stopped (SIGTERM)': async () => {
    const slot = between(0, processes - 1);
    const app = apps[slot];
    if (app) await endApp(app, () => app.child.kill('SIGTERM'));
    startApp(slot);
  },
};

function progress(): void {
  const faults = Object.values(injected).reduce((sum, n) => sum + n, 0);
  const text = `${Math.round(performance.now() / 1000)} s: ${faults} faults, ${log.calls} calls, ${log.failed} failed`;
  if (process.stdout.isTTY) process.stdout.write(`\r${text}\u001b[K`);
  else console.log(text);
}

console.log(
  `chaos for ${seconds} s, ${processes} processes; again with: npm run chaos -- --seconds ${seconds} --processes ${processes} --seed ${seed} --client ${client}`,
);
const maker = new PgStore({ uri: server.uri, table: TABLE });
await maker.ready();
await maker.close();
for (let slot = 0; slot < processes; slot++) startApp(slot);
const ticking = setInterval(progress, process.stdout.isTTY ? 500 : 5000);
while (log.calls === 0) await sleep(50);

const names = Object.keys(FAULTS);
for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
  await sleep(between(200, 1500));
  const name = names[between(0, names.length - 1)] as string;
  try {
    await FAULTS[name]?.();
    injected[name] = (injected[name] ?? 0) + 1;
  } catch (error) {
    // Breaking it failed: a lock that was not to be had, say. The next one may work; the check at
    // the end counts.
    console.error(`\n${name}: ${error}`);
  }
}

await Promise.all(apps.map((app) => app && endApp(app, () => tell(app, 'stop'))));
clearInterval(ticking);
progress();
const sql = postgres(server.uri, { max: 1 });
const verdict = await log.check(sql, TABLE);
const [{ version }] = (await sql`show server_version`).map((row) => ({ version: row.server_version })) as [
  { version: string },
];
await sql.end();
await proxy.close();
await server.close();

const rows: [string, string | number][] = [
  ...Object.entries(injected).map(([name, n]): [string, number] => [name, n]),
  ['faults injected', Object.values(injected).reduce((sum, n) => sum + n, 0)],
  ['calls', log.calls],
  ['failed, with a clear error', `${log.failed} ${log.failed > 0 ? JSON.stringify(log.codes) : ''}`.trim()],
  ['saves discarded: session destroyed meanwhile', log.dropped],
  ['acknowledged writes', verdict.saved],
  ['lost', verdict.lost.length],
  ['not seen by a later read of the same process', verdict.stale],
  ['acknowledged destroys', verdict.destroyed],
  ['revived', verdict.revived.length],
  ['unanswered', unanswered],
  ['longest wait', `${Math.round(log.longest)} ms`],
];
console.log(
  `\n\n| ${seconds} s, ${processes} processes, client ${client}, seed ${seed}, PostgreSQL ${version}, Node ${process.version} | |\n| --- | --- |`,
);
for (const [name, value] of rows) console.log(`| ${name} | ${value} |`);
for (const each of [...verdict.lost, ...verdict.revived].slice(0, 20)) console.error(`lost or revived: ${each}`);
const wrong = verdict.lost.length + verdict.revived.length + verdict.stale + unanswered;
if (verdict.saved === 0 || verdict.destroyed === 0) console.error('nothing was acknowledged: the run shows nothing');
process.exitCode = wrong > 0 || verdict.saved === 0 || verdict.destroyed === 0 ? 1 : 0;
