/**
 * Measures what calls meet while one Citus worker is down, and whether a save that was acknowledged is lost. 40
 * sessions are saved and read all the time, while the worker is stopped for 1.5 s and then for 8 s:
 *
 *     CITUS_URL=postgres://coordinator/app STOP_WORKER='…' START_WORKER='…' \
 *       npx tsx bench/citus-worker.ts 5432
 *
 * The argument is the worker's port in `pg_dist_node`. STOP_WORKER and START_WORKER are shell commands.
 */

import { execSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import type { SessionData } from 'express-session';
import postgres from 'postgres';
import { PgStore } from '../lib/index.js';
import { createTableSql } from '../lib/sql/schema.js';
import { figure, table } from './figures/report.js';

const { CITUS_URL, STOP_WORKER, START_WORKER } = process.env;
const port = Number(process.argv[2]);
if (!CITUS_URL || !STOP_WORKER || !START_WORKER || !port) throw new Error('see the head of this file');

const SHARDS = 16;
const name = { schema: 'public', table: 'citus_worker', shards: SHARDS };
const sql = postgres(CITUS_URL, { max: 1, onnotice: () => {} });
await sql`drop table if exists citus_worker`;
await sql.unsafe(createTableSql(name, 0, true)).simple();
const onWorker = new Set(
  (
    await sql`select shard from pg_dist_placement join pg_dist_node using (groupid), generate_series(0, ${SHARDS - 1}::int) shard
      where nodeport = ${port} and shardid = get_shard_id_for_distribution_column('citus_worker', shard::smallint)`
  ).map(({ shard }) => shard as number),
);

const rows: string[][] = [];
for (const outage of [1500, 8000]) rows.push(...(await during(outage)));
await sql.end();
// The coordinator's connection to the worker is broken in the session of `sql`, so another session drops the table.
const cleaner = postgres(CITUS_URL, { max: 1, onnotice: () => {} });
await cleaner`drop table citus_worker`;
await cleaner.end();
const head = ['sessions on', 'saved while it was down', 'calls that failed', 'longest, ms', 'retries', 'lost'];
console.log(table(['outage, s', ...head], rows));

/** Saves and reads sessions while the worker is down. @param outage in milliseconds @returns two rows of the table */
async function during(outage: number): Promise<string[][]> {
  const store = new PgStore({ uri: CITUS_URL as string, ...name, autodelete: false });
  await store.ready();
  let retries = 0;
  store.on('retry', () => retries++);
  const seen = { worker: { saved: 0, failed: 0, longest: 0 }, others: { saved: 0, failed: 0, longest: 0 } };
  const acknowledged = new Map<string, number>();
  let isOver = false;
  let isDown = false;
  let lost = 0;
  const numberOf = async (sid: string) => Number(((await store.get(sid)) as { n?: number } | null)?.n ?? 0);
  const visitors = Array.from({ length: 40 }, async (_, visitor) => {
    const sid = `${outage}-${visitor}`;
    const side = seen[onWorker.has(crc32(sid) % SHARDS) ? 'worker' : 'others'];
    for (let n = 1; !isOver; n++) {
      const started = performance.now();
      try {
        await store.set(sid, { cookie: {}, n } as unknown as SessionData);
        acknowledged.set(sid, n);
        if (isDown) side.saved++;
        if ((await numberOf(sid)) !== n) lost++;
      } catch {
        side.failed++;
      }
      side.longest = Math.max(side.longest, performance.now() - started);
      await sleep(5);
    }
  });
  await sleep(1000);
  isDown = true;
  execSync(STOP_WORKER as string, { stdio: 'ignore' });
  await sleep(outage);
  isDown = false;
  execSync(START_WORKER as string, { stdio: 'ignore' });
  await sleep(3000);
  isOver = true;
  await Promise.all(visitors);
  for (const [sid, n] of acknowledged) if ((await numberOf(sid)) < n) lost++;
  await store.close();
  return Object.entries(seen).map(([where, { saved, failed, longest }]) => [
    String(outage / 1000),
    where === 'worker' ? 'the worker' : 'the others',
    ...[saved, failed].map(String),
    figure(longest),
    where === 'worker' ? String(retries) : '',
    where === 'worker' ? String(lost) : '',
  ]);
}
