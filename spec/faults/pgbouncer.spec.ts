/** The store works through PgBouncer in transaction mode, and goes on when it is restarted. */

import assert from 'node:assert/strict';
import postgres from 'postgres';
import { startPgBouncer } from '../support/pgbouncer.js';
import { itWorksBehind, PooledServer, skipWithoutPooler } from '../support/pooler-specs.js';
import { closeStores, openStore } from '../support/postgres.js';
import { plain } from '../support/sessions.js';

describe('PgBouncer in transaction mode', () => {
  let pooled: PooledServer;
  const options = { postgres: { prepare: false } };

  before(async function () {
    skipWithoutPooler.call(this, 'pgbouncer', 'pgbouncer');
    const settings = { default_pool_size: 3, server_login_retry: 1 };
    pooled = await PooledServer.start((target) => startPgBouncer(target, 'transaction', settings));
  });
  afterEach(closeStores);
  after(() => pooled?.close());

  itWorksBehind(() => pooled, options);

  it("the store sets nothing on server connections, which are others' in the next transaction", async () => {
    const store = await openStore({ uri: pooled.uri, table: 'pooled', ...options });
    await Promise.all([store.length(), store.get('a'), store.set('b', plain()), store.destroy('c')]);
    const sql = postgres(pooled.uri, { prepare: false, max: 3 });
    // Transactions that are open at the same time have a server connection each, so these are all three.
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

  it('a statement that is given up is cancelled behind it, too', async () => {
    const store = await openStore({ uri: pooled.uri, table: 'given_up', timeout: 3000, ...options });
    await store.set('a', plain({ n: 1 }));
    const sql = postgres(pooled.server.uri, { max: 2 });
    await sql.begin(async (lock) => {
      await lock`lock table given_up in exclusive mode`;
      await assert.rejects(store.set('a', plain({ n: 2 })), { code: 'TIMEOUT' });
      assert.equal((await sql`select from pg_stat_activity where wait_event_type = 'Lock'`).length, 0);
    });
    await sql.end();
    assert.equal(((await store.get('a')) as any).n, 1);
  });
});
