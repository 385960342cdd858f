/** The store works through pgpool-II, and goes on when it is restarted. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import postgres from 'postgres';
import { eventually } from '../support/eventually.js';
import { assertSurvives, attempted, timed } from '../support/fault-load.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { Pgpool } from '../support/pgpool.js';
import { closeStores, openStore } from '../support/postgres.js';
import { PostgresServer } from '../support/postgres-server.js';
import { plain } from '../support/sessions.js';

describe('pgpool-II', () => {
  let server: PostgresServer;
  let pgpool: Pgpool | undefined;
  /** Keeps one address over pgpool-II's restarts. */
  let address: FaultProxy;
  let uri: string;

  const start = async () => {
    pgpool = await Pgpool.start(server.uri);
  };
  const stop = async () => {
    await pgpool?.close();
    pgpool = undefined;
  };

  before(async function () {
    try {
      execFileSync('pgpool', ['--version'], { stdio: 'ignore' });
    } catch (error) {
      if (process.env.CI) throw error;
      console.log('    pending: pgpool-II is not installed (Debian package pgpool2)');
      return this.skip();
    }
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
    await start();
    address = await FaultProxy.start(() => Number(new URL(pgpool?.uri ?? 'http://127.0.0.1:1').port));
    const throughProxy = new URL(pgpool?.uri ?? '');
    throughProxy.port = new URL(address.uri).port;
    uri = throughProxy.href;
  });
  afterEach(closeStores);
  after(async () => {
    await stop();
    await address?.close();
    await server?.close();
  });

  for (const prepare of [true, false]) {
    it(`sessions are stored, read and destroyed, ${prepare ? 'with' : 'without'} prepared statements`, async () => {
      const store = await openStore({ uri, table: 'pooled', postgres: { prepare } });
      const sids = Array.from({ length: 100 }, (_, n) => `s${n}`);
      for (let round = 0; round < 3; round++) {
        await Promise.all(sids.map((sid) => store.set(sid, plain({ round }))));
        const found: any[] = await Promise.all(sids.map((sid) => store.get(sid)));
        assert(found.every((session) => session.round === round));
      }
      await Promise.all(sids.map((sid) => store.destroy(sid)));
      assert.equal(await store.length(), 0);
    });
  }

  it('a server connection that another client gets next has none of the store’s settings', async () => {
    const store = await openStore({ uri, table: 'pooled', maxConnections: 1 });
    await store.length();
    await closeStores();
    const sql = postgres(uri, { max: 1 });
    const [row] = await sql`select current_setting('statement_timeout') as limit`;
    assert.equal(row?.limit, '0');
    await sql.end();
  });

  const underLoad = (fault: Parameters<typeof assertSurvives>[1]) =>
    assertSurvives(
      (table, options) => openStore({ uri, table, ...options }),
      fault,
      () => server.uri,
    );

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
