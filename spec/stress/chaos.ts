/**
 * Does any acknowledged write get lost, any destroyed session come back, any watcher miss an end, any call stay
 * unanswered, whatever breaks?
 *
 * npm run chaos -- --seconds 30 --processes 4 --seed 1 --client pg
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import postgres from 'postgres';
import { PgStore } from '../../lib/index.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { PostgresServer } from '../support/postgres-server.js';
import { random } from '../support/random.js';
import { faultsOf } from './chaos/faults.js';
import { Log, type Verdict } from './chaos/log.js';
import { AppProcesses } from './chaos/processes.js';

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
const seconds = Number(values.seconds);
const processes = Number(values.processes);
const seed = Number(values.seed);
if (![seconds, processes, seed].every((n) => n >= 0))
  throw new TypeError('--seconds, --processes, --seed: expected numbers');

const TABLE = 'sessions';
/** Shorter than the longest silence, so that calls do fail and connections are given up. */
const TIMEOUT = 4000;
/** Milliseconds after the last fault in which the watchers must have been told of all ends. */
const WATCHERS_PATIENCE = 30_000;

const pick = random(seed);
const between = (least: number, most: number) => Math.round(least + pick() * (most - least));

const server = await PostgresServer.start();
const proxy = await FaultProxy.start(() => server.port);
const log = new Log();
const apps = new AppProcesses({ uri: proxy.uri, table: TABLE, seed, timeout: TIMEOUT, client }, log);
const faults = faultsOf({ server, proxy, apps, processes, table: TABLE, timeout: TIMEOUT }, between);
const injected: Record<string, number> = {};

function faultCount(): number {
  return Object.values(injected).reduce((sum, n) => sum + n, 0);
}

function progress(): void {
  const time = Math.round(performance.now() / 1000);
  const text = `${time} s: ${faultCount()} faults, ${log.calls} calls, ${log.failed} failed`;
  if (process.stdout.isTTY) process.stdout.write(`\r${text}\u001b[K`);
  else console.log(text);
}

/** Breaks one thing after the other, at random. */
async function breakThings(): Promise<void> {
  const names = Object.keys(faults);
  for (const end = performance.now() + seconds * 1000; performance.now() < end; ) {
    await sleep(between(200, 1500));
    const name = names[between(0, names.length - 1)] as string;
    try {
      await faults[name]?.();
      injected[name] = (injected[name] ?? 0) + 1;
    } catch (error) {
      // Breaking it failed: a lock that was not to be had, say. The next one may work; the check at the end counts.
      console.error(`\n${name}: ${error}`);
    }
  }
}

/** Waits until the watchers have been told of all ends. @returns the watches that have not been told */
async function untoldEnds(sql: postgres.Sql): Promise<string[]> {
  for (const end = performance.now() + WATCHERS_PATIENCE; ; ) {
    const sids = new Set((await sql`select sid from ${sql(TABLE)}`).map(({ sid }) => sid));
    const untold = log.watches.untold((sid) => sids.has(sid));
    if (untold.length === 0 || performance.now() > end) return untold;
    await sleep(100);
  }
}

function rowsOf({ wrong, acknowledged, updates, countedTwice, destroyed }: Verdict): [string, string | number][] {
  const codes = log.failed > 0 ? JSON.stringify(log.codes) : '';
  const bulkCalls = log.destructions.acknowledged.destroySessionsOf + log.destructions.acknowledged.limitSessionsOf;
  return [
    ...Object.entries(injected),
    ['faults injected', faultCount()],
    ['calls', log.calls],
    ['failed, with a clear error', `${log.failed} ${codes}`.trim()],
    ['saves discarded: session destroyed meanwhile', log.dropped],
    ['requests to Fastify, answered with 200', log.requests],
    ['acknowledged writes', acknowledged],
    ['lost', wrong.lost.length],
    ['not seen by a later read of the same process', log.stale],
    ['of these writes, by `update`', updates],
    ['counted twice: answer lost, and session saved meanwhile', countedTwice],
    ['counted wrongly', wrong.miscounted.length],
    ['acknowledged calls of `destroySessionsOf` and `limitSessionsOf`', bulkCalls],
    ['destroyed sessions', destroyed],
    ['revived', wrong.revived.length],
    ['not found, though nobody destroyed them', wrong.missed.length],
    ['watches', log.watches.begun],
    ['ends told', log.watches.told],
    ['ends not told', wrong.untoldEnds.length],
    ['told, though nobody destroyed the session', wrong.falseEnds.length],
    ['told again', wrong.repeatedEnds.length],
    ['unanswered', apps.unanswered],
    ['longest wait for a call on one session', `${Math.round(log.longest)} ms`],
  ];
}

/** What must have happened at least once, or the run shows nothing. */
function missingParts({ acknowledged, updates, destroyed }: Verdict): string[] {
  const { destroySessionsOf, limitSessionsOf } = log.destructions.acknowledged;
  const parts = {
    writes: acknowledged,
    updates,
    destroyed,
    destroySessionsOf,
    limitSessionsOf,
    requests: log.requests,
    ends: log.watches.told,
  };
  return Object.entries(parts).flatMap(([name, count]) => (count === 0 ? [name] : []));
}

console.log(
  `chaos for ${seconds} s, ${processes} processes; again with: npm run chaos -- --seconds ${seconds} --processes ${processes} --seed ${seed} --client ${client}`,
);
const maker = new PgStore({ uri: server.uri, table: TABLE });
await maker.ready();
await maker.close();
for (let slot = 0; slot < processes; slot++) apps.start(slot);
const ticking = setInterval(progress, process.stdout.isTTY ? 500 : 5000);
while (log.calls === 0) await sleep(50);
await breakThings();

await apps.rest();
const sql = postgres(server.uri, { max: 1 });
const untold = await untoldEnds(sql);
await apps.stop();
clearInterval(ticking);
progress();
const verdict = await log.check(sql, TABLE, untold);
const [version] = await sql`show server_version`;
await sql.end();
await proxy.close();
await server.close();

const title = `${seconds} s, ${processes} processes, client ${client}, seed ${seed}`;
console.log(`\n\n| ${title}, PostgreSQL ${version?.server_version}, Node ${process.version} | |\n| --- | --- |`);
for (const [name, value] of rowsOf(verdict)) console.log(`| ${name} | ${value} |`);
for (const [kind, cases] of Object.entries(verdict.wrong)) {
  for (const each of cases.slice(0, 20)) console.error(`${kind}: ${each}`);
}
const missing = missingParts(verdict);
if (missing.length > 0) console.error(`the run shows nothing: none of ${missing.join(', ')}`);
const wrong = Object.values(verdict.wrong).reduce((sum, cases) => sum + cases.length, log.stale + apps.unanswered);
process.exitCode = wrong > 0 || missing.length > 0 ? 1 : 0;
