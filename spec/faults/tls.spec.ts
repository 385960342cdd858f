/**
 * Connections are encrypted and certificates checked where the app asks for it, and faults are
 * survived there, too.
 */

import assert from 'node:assert/strict';
import postgres, { type Sql } from 'postgres';
import type { PgStore } from '../../lib/index.js';
import { certificate, writeCertificate } from '../support/certificate.js';
import { assertAnswersDuringCuts, assertSurvivesCuts } from '../support/connection-cuts.js';
import { eventually, patiently } from '../support/eventually.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { closeStores, freshTable, ON_POOL, openOwnStore, openStore } from '../support/postgres.js';
import { PASSWORD, PostgresServer } from '../support/postgres-server.js';
import { plain } from '../support/sessions.js';

describe('TLS', () => {
  let server: PostgresServer;
  let proxy: FaultProxy;
  let sql: Sql;
  /** The server's certificate, which is its own authority. */
  let ca: string;

  before(async () => {
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
    sql = postgres(server.uri, { max: 1, ssl: false });
    ca = await writeCertificate(server);
    await offer(true);
  });
  beforeEach(async () => {
    proxy = await FaultProxy.start(() => server.port);
  });
  afterEach(async () => {
    proxy.resume();
    await closeStores();
    await proxy.close();
  });
  after(async () => {
    await sql.end();
    await server.close();
  });

  async function offer(on: boolean): Promise<void> {
    await sql.unsafe(`alter system set ssl = ${on}`);
    await sql`select pg_reload_conf()`;
    // The postmaster applies it in its own time; a connection opened since then shows it.
    const isOffered = async () => {
      const probe = postgres(server.uri, { max: 1 });
      const [row] = await probe`show ssl`;
      await probe.end();
      return row?.ssl === (on ? 'on' : 'off');
    };
    await eventually(isOffered);
  }

  for (const [name, options] of Object.entries({
    'in the address': { uri: (uri: string) => `${uri}?sslmode=require` },
    'with the authority': { postgres: () => ({ ssl: { ca } }) },
    'by the option of the client': { postgres: () => ({ ssl: 'require' }) },
  } as Record<string, { uri?: (uri: string) => string; postgres?: () => object }>)) {
    it(`asked for ${name}, encrypts each connection`, async () => {
      const { uri = (given: string) => given, postgres = () => ({}) } = options;
      const store = await openStore({
        uri: uri(server.uri),
        postgres: { connection: { application_name: name }, ...postgres() },
        table: freshTable(),
      });
      await Promise.all([store.set('a', plain({ n: 1 })), store.get('b'), store.length(), store.ids()]);
      assert.equal(((await store.get('a')) as any).n, 1);
      const seen =
        await sql`select ssl from pg_stat_ssl join pg_stat_activity using (pid) where application_name = ${name}`;
      assert(seen.length > 0);
      assert(seen.every(({ ssl }) => ssl));
    });
  }

  it('takes the file with the authority from the address', async () => {
    const uri = `${server.uri}?sslmode=verify-full&sslrootcert=${server.dataDir}/server.crt`;
    const store = await openStore({ uri, table: freshTable() });
    await store.set('a', plain());
    const missing = { name: 'TypeError', message: /parameter `sslrootcert` .* cannot be read \(ENOENT\)/ };
    await assert.rejects(openStore({ uri: uri.replace('server.crt', 'missing.crt') }), missing);
  });

  it('refuses a server of another authority, or of another name, and sends it nothing', async () => {
    const other = (await certificate()).cert;
    const refusals: [ssl: object | string, code: string][] = [
      [{ ca: other }, 'DEPTH_ZERO_SELF_SIGNED_CERT'],
      ['verify-full', 'DEPTH_ZERO_SELF_SIGNED_CERT'],
      [{ ca, servername: 'db.example.com' }, 'ERR_TLS_CERT_ALTNAME_INVALID'],
    ];
    const table = freshTable();
    for (const [ssl, code] of refusals) {
      const store = await openStore({ uri: server.uri, table, postgres: { ssl } });
      await assert.rejects(store.set('sid', plain()), { code, message: /^PgStore\.set: / });
    }
    assert.deepEqual([...(await sql`select from pg_tables where tablename = ${table}`)], []);
  });

  it('asked for, is not done without where the server has none', async () => {
    await offer(false);
    const store = await openStore({ uri: `${server.uri}?sslmode=require`, table: freshTable() });
    store.on('retry', () => assert.fail('no transient error'));
    const refused = { code: 'TLS_NOT_OFFERED', message: /^PgStore\.set: the server offers no TLS/ };
    await assert.rejects(store.set('sid', plain()), refused);
    await offer(true);
    await store.set('sid', plain({ n: 1 }));
    assert.equal(((await store.get('sid')) as any).n, 1);
  });

  it('a connection cut at any chunk of its start: the call is answered, no error reaches the process', async () => {
    const uri = `postgres://postgres:${PASSWORD}@127.0.0.1:${proxy.port}/postgres?sslmode=require`;
    // Postgres.js begins to listen to its socket in a timer, which is late on a busy machine.
    const { setTimeout } = globalThis;
    const late = (callback: () => void, ms: number) => setTimeout(callback, ms === 0 ? 20 : ms);
    globalThis.setTimeout = late as typeof setTimeout;
    try {
      for (let last = 1; last <= 12; last++) {
        let chunks = 0;
        proxy.chunkFault = () => (++chunks === last ? 'cut' : undefined);
        const store = await openOwnStore({ uri, maxConnections: 1 });
        await store.set('sid', plain({ last }));
        assert(chunks > last, 'it was cut, and connected again');
      }
    } finally {
      globalThis.setTimeout = setTimeout;
    }
  });

  it('answers that come at any moment around `timeout`: no error reaches the process', async () => {
    const uri = `postgres://postgres:${PASSWORD}@127.0.0.1:${proxy.port}/postgres?sslmode=require`;
    const stores = await Promise.all(
      Array.from({ length: 8 }, () => openStore({ uri, table: freshTable(), timeout: 60, maxConnections: 3 })),
    );
    proxy.chunkFault = () => (Math.random() < 0.3 ? Math.round(Math.random() * 120) : undefined);
    let timedOut = 0;
    const visit = async (store: PgStore) => {
      while (timedOut < 2000) {
        const calls: Promise<unknown>[] = [store.get('a'), store.set('b', plain()), store.destroy('c')];
        for (const { status } of await Promise.allSettled(calls)) if (status === 'rejected') timedOut++;
      }
    };
    await Promise.all(stores.map(visit));
    proxy.chunkFault = () => undefined;
  });

  for (const [name, hosts] of Object.entries({ 'one host': 1, 'two hosts': 2 })) {
    const uri = () =>
      `postgres://postgres:${PASSWORD}@${Array(hosts).fill(`127.0.0.1:${proxy.port}`).join()}/postgres?sslmode=require`;

    it(`connections cut again and again, ${name}: no call fails, no acknowledged write is lost`, async () => {
      const table = freshTable();
      const store = await openStore({ uri: uri(), table });
      await assertSurvivesCuts(store, proxy, 10, { uri: server.uri, table });
    });

    it(`an idle connection cut, ${name}: a statement is answered at whichever moment of the cut it comes`, async () => {
      const store = await openStore({ uri: uri(), table: freshTable(), maxConnections: 1 });
      await assertAnswersDuringCuts(store, proxy);
    });

    it(`an unresponsive network, ${name}: calls fail within \`timeout\`, no socket is left, everything works afterwards`, async () => {
      const store = await openStore({ uri: uri(), table: freshTable(), timeout: 1000 });
      await patiently(() => store.set('sid', plain({ n: 1 })));
      proxy.silence();
      const calls = [store.get('sid'), store.set('sid', plain({ n: 2 })), store.length()];
      for (const call of await Promise.allSettled<unknown>(calls)) {
        assert.equal((call as PromiseRejectedResult).reason?.code, 'TIMEOUT');
      }
      // A pool keeps the connections that were idle.
      if (!ON_POOL) await eventually(() => proxy.connections === 0);
      proxy.resume();
      assert.equal(((await patiently(() => store.get('sid'))) as any).n, 1);
      await closeStores();
      await eventually(() => proxy.connections === 0);
    });
  }
});
