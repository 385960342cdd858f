/** The store works through pgpool-II, and goes on when it is restarted. */

import assert from 'node:assert/strict';
import postgres from 'postgres';
import { startPgpool } from '../support/pgpool.js';
import { itWorksBehind, PooledServer, skipWithoutPooler } from '../support/pooler-specs.js';
import { closeStores, openStore } from '../support/postgres.js';

describe('pgpool-II', () => {
  let pooled: PooledServer;

  before(async function () {
    skipWithoutPooler.call(this, 'pgpool', 'pgpool2');
    pooled = await PooledServer.start(startPgpool);
  });
  afterEach(closeStores);
  after(() => pooled?.close());

  describe('with prepared statements', () => itWorksBehind(() => pooled));
  describe('without prepared statements', () => itWorksBehind(() => pooled, { postgres: { prepare: false } }));

  it('a server connection that another client gets next has none of the store’s settings', async () => {
    const store = await openStore({ uri: pooled.uri, table: 'pooled', maxConnections: 1 });
    await store.length();
    await closeStores();
    const sql = postgres(pooled.uri, { max: 1 });
    const [row] = await sql`select current_setting('statement_timeout') as limit`;
    assert.equal(row?.limit, '0');
    await sql.end();
  });
});
