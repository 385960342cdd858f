/** What `npm run chaos` breaks. */

import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import type { FaultProxy } from '../../support/fault-proxy.js';
import type { PostgresServer } from '../../support/postgres-server.js';
import type { AppProcesses } from './processes.js';

export interface Broken {
  readonly server: PostgresServer;
  readonly proxy: FaultProxy;
  readonly apps: AppProcesses;
  /** How many app processes there are. */
  readonly processes: number;
  readonly table: string;
  /** Option `timeout` of the app processes' stores. */
  readonly timeout: number;
}

/** @param between a whole number at random, the least and the most included */
export function faultsOf(
  { server, proxy, apps, processes, table, timeout }: Broken,
  between: (least: number, most: number) => number,
): Record<string, () => Promise<unknown>> {
  async function asAdmin(work: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
    const sql = postgres(server.uri, { max: 1, onnotice: () => {} });
    try {
      await work(sql);
    } finally {
      await sql.end();
    }
  }

  return {
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
      await sleep(between(100, 2 * timeout));
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
          await sql`lock table ${sql(table)} in access exclusive mode`;
          await sleep(between(100, 1.5 * timeout));
        }),
      ),
    'app process killed (-9)': async () => {
      const slot = between(0, processes - 1);
      await apps.kill(slot);
      apps.start(slot);
    },
    'app process stopped (SIGTERM)': async () => {
      const slot = between(0, processes - 1);
      await apps.terminate(slot);
      apps.start(slot);
    },
  };
}
