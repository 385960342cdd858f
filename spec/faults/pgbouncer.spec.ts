/** The store works through PgBouncer in transaction mode, and goes on when it is restarted. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import postgres from 'postgres';
import { eventually } from '../support/eventually.js';
import { assertSurvives, attempted, timed } from '../support/fault-load.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { PgBouncer } from '../support/pooler.js';
import { closeStores, openStore } from '../support/postgres.js';
import { PostgresServer } from '../support/postgres-server.js';
import { plain } from '../support/sessions.js';

describe('PgBouncer in transaction mode', () => {
  let server: PostgresServer;
  let bouncer: PgBouncer | undefined;
  /** Keeps one address over PgBouncer's restarts. */
  let address: FaultProxy;

  const start = async () => {
    bouncer = await PgBouncer.start(server.uri, 'transaction', { default_pool_size: 3, server_login_retry: 1 });
  };
  const stop = async () => {
    await bouncer?.close();
    bouncer = undefined;
  };

  before(async function () {
    try {
      execFileSync('pgbouncer', ['--version'], { stdio: 'ignore' });
    } catch (error) {
      if (process.env.CI) throw error;
      console.log('    pending: PgBouncer is not installed (Debian package pgbouncer)');
      return this.skip();
    }
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
    await start();
    address = await FaultProxy.start(() => Number(new URL(bouncer?.uri ?? 'http://127.0.0.1:1').port));
  });
  afterEach(closeStores);
  after(async () => {
    await stop();
    await address?.close();
    await server?.close();
  });

  it('statements of one store run on whatever server connection is free', async () => {
    const store = await openStore({ uri: address.uri, table: 'pooled', postgres: { prepare: false } });
    const sids = Array.from({ length: 100 }, (_, n) => `s${n}`);
    for (let round = 0; round < 3; round++) {
      await Promise.all(sids.map((sid) => store.set(sid, plain({ round }))));
      const found: any[] = await Promise.all(sids.map((sid) => store.get(sid)));
      assert(found.every((session) => session.round === round));
    }
    await Promise.all(sids.map((sid) => store.destroy(sid)));
    assert.equal(await store.length(), 0);
  });

  it("the store sets nothing on server connections, which are others' in the next transaction", async () => {
    const store = await openStore({ uri: address.uri, table: 'pooled', postgres: { prepare: false } });
    await Promise.all([store.length(), store.get('a'), store.set('b', plain()), store.destroy('c')]);
    const sql = postgres(bouncer?.uri ?? '', { prepare: false, max: 3 });
    // Transactions that are open at the same time have a server connection each, so these are all
    // three.
    const connections = await Promise.all([sql.reserve(), sql.reserve(), sql.reserve()]);
    const pids = new Set<number>();
    for (const connection of connections) {
      await connection`begin`;
      const [row] = await connection`select current_setting('statement_timeout') as limit, pg_backend_pid() as pid`;
      assert.equal(row?.limit, '0');
      pids.add(row?.pid);
    }
    assert.equal(pids.size, 3);
    for (const connection of connections) {
      await connection`commit`;
      connection.release();
    }
    await sql.end();
  });

  const underLoad = (fault: Parameters<typeof assertSurvives>[1]) =>
    assertSurvives(
      (table, options) => openStore({ uri: address.uri, table, postgres: { prepare: false }, ...options }),
      fault,
      () => server.uri,
    );

  it('a statement that is given up is cancelled behind it, too', async () => {
    const store = await openStore({ uri: address.uri, table: 'given_up', timeout: 3000, postgres: { prepare: false } });
    await store.set('a', plain({ n: 1 }));
    const sql = postgres(server.uri, { max: 2 });
    await sql.begin(async (lock) => {
      await lock`lock table given_up in exclusive mode`;
      await assert.rejects(store.set('a', plain({ n: 2 })), { code: 'TIMEOUT' });
      assert.equal((await sql`select from pg_stat_activity where wait_event_type = 'Lock'`).length, 0);
    });
    await sql.end();
    assert.equal(((await store.get('a')) as any).n, 1);
  });

  it('restarted under 32 writers: no call fails, no acknowledged write is lost', async () => {
    await underLoad(async (load, store) => {
      let away = 0;
      for (let n = 0; n < 3; n++) {
        await load.progress();
        const restarted = await timed(async () => {
          const failed = attempted(store, 1);
          await stop();
          await failed;
          await start();
        });
        away = Math.max(away, restarted);
      }
      return away;
    });
  });

  it('the server behind it killed under 32 writers, back once all of them wait: the same', async () => {
    await underLoad((load) =>
      timed(async () => {
        await server.stop('kill');
        await eventually(() => load.waiting === 32);
        await server.start();
      }),
    );
  });
});
