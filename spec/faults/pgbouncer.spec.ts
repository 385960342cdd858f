/** The store works through PgBouncer in transaction mode, and goes on when it is restarted. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { PostgresServer } from '../../example/postgres-server.js';
import { Load } from '../support/fault-load.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { PgBouncer } from '../support/pooler.js';
import { closeStores, openStore } from '../support/postgres.js';
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
    const seen = await Promise.all(
      Array.from({ length: 3 }, () => sql`select current_setting('statement_timeout') as limit, pg_sleep(0.1)`),
    );
    assert.deepEqual(new Set(seen.map(([row]) => row?.limit)), new Set(['0']));
    await sql.end();
  });

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
    const store = await openStore({ uri: address.uri, table: 'restarted', postgres: { prepare: false } });
    const load = await Load.start(store);
    for (let n = 0; n < 3; n++) {
      await load.progress();
      await stop();
      await sleep(300);
      await start();
    }
    await load.progress();
    await load.stop();
    assert.deepEqual(load.errors, []);
    assert.equal(await load.lost(server.uri, 'restarted'), 0);
  });

  it('the server behind it killed under 32 writers, back after 1 s: the same', async () => {
    const store = await openStore({ uri: address.uri, table: 'behind', postgres: { prepare: false } });
    const load = await Load.start(store);
    await load.progress();
    await server.stop('kill');
    await sleep(1000);
    await server.start();
    await load.progress();
    await load.stop();
    assert.deepEqual(load.errors, []);
    assert.equal(await load.lost(server.uri, 'behind'), 0);
  });
});
