/** Measures what it costs to watch many sessions, and how late their ends are noticed. */

import diagnostics from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import type { PgStore } from '../../lib/index.js';
import type { PostgresServer } from '../../spec/support/postgres-server.js';
import { median } from '../figures/measure.js';
import { serverCpu } from '../figures/server-cpu.js';
import { sessionOf } from '../stores/data.js';
import { openPgStore, type Servers, saveAll } from '../stores/peers.js';
import { sidsOf } from './calls.js';

export interface Watches {
  readonly sessions: number;
  /** Seconds between two checks. */
  readonly interval: number;
  /** How many statements one check of all sessions takes. */
  readonly statements: number;
  /** CPU time of one check in the server and in the process, in milliseconds. */
  readonly serverCpu: number;
  readonly processCpu: number;
  /** Milliseconds from the deletion of a row until the callback: the median and the longest of a hundred. */
  readonly noticed: number;
  readonly noticedLast: number;
}

/** Seconds between two checks. */
const INTERVAL = 1;
/** How many sessions are ended. */
const ENDED = 100;

/** @param checks for how many checks the CPU time is measured */
export async function watches(
  servers: Servers,
  server: PostgresServer,
  sessions: number,
  checks: number,
): Promise<Watches> {
  const peer = await openPgStore(servers, { table: 'watches', watchInterval: INTERVAL });
  const store = peer.store as PgStore;
  const sql = postgres(servers.postgres, { max: 1, onnotice: () => {} });
  const sids = sidsOf(sessions);
  await saveAll(peer, sids, sessionOf);
  const noticed: number[] = [];
  let deletedAt = Number.NaN;
  let statements = 0;
  const count = () => {
    statements++;
  };
  diagnostics.subscribe('express-pg-store:statement', count);
  for (const sid of sids) {
    store.watch(sid, () => noticed.push(performance.now() - deletedAt));
  }
  // The first checks, which look at each session as soon as its `set` has ended, are not measured.
  await sleep(2 * INTERVAL * 1000);

  statements = 0;
  const processBefore = process.cpuUsage();
  const serverBefore = serverCpu(server);
  await sleep(checks * INTERVAL * 1000);
  const processUsed = process.cpuUsage(processBefore);
  const serverUsed = serverCpu(server) - serverBefore;
  const statementsOfACheck = statements / checks;

  const ended = sids.slice(0, ENDED);
  deletedAt = performance.now();
  await sql`delete from watches where sid = any(${ended})`;
  while (noticed.length < ended.length) await sleep(10);
  diagnostics.unsubscribe('express-pg-store:statement', count);
  await peer.close();
  await sql.end();
  return {
    sessions,
    interval: INTERVAL,
    statements: statementsOfACheck,
    serverCpu: serverUsed / 1000 / checks,
    processCpu: (processUsed.user + processUsed.system) / 1000 / checks,
    noticed: median(noticed),
    noticedLast: Math.max(...noticed),
  };
}
