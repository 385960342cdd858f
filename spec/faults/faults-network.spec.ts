/** The store keeps working when the network cuts connections, loses answers or drops packets. */

import assert from 'node:assert/strict';
import postgres from 'postgres';
import type { PgStoreOptions } from '../../lib/index.js';
import { createTableSql } from '../../lib/sql/schema.js';
import { assertAnswersDuringCuts, assertSurvivesCuts } from '../support/connection-cuts.js';
import { eventually, patiently } from '../support/eventually.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { closeStores, freshTable, ON_POOL, openStore } from '../support/postgres.js';
import { PASSWORD, PostgresServer } from '../support/postgres-server.js';
import { load, plain } from '../support/sessions.js';

describe('faults: the network', () => {
  let server: PostgresServer;
  let proxy: FaultProxy;

  before(async () => {
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
  });
  beforeEach(async () => {
    proxy = await FaultProxy.start(() => server.port);
  });
  afterEach(async () => {
    proxy.resume();
    await closeStores();
    await proxy.close();
  });
  after(() => server.close());

  /** The row as SQL sees it. */
  async function row(table: string, sid: string): Promise<{ data: any; version: number } | undefined> {
    const sql = postgres(server.uri, { max: 1 });
    const [found] = await sql<
      { data: any; version: number }[]
    >`select data, version from ${sql(table)} where sid = ${sid}`;
    await sql.end();
    return found;
  }

  it('connections cut again and again under 32 writers: no call fails, no acknowledged write is lost', async () => {
    const table = freshTable();
    const store = await openStore({ uri: proxy.uri, table });
    await assertSurvivesCuts(store, proxy, 15, { uri: server.uri, table });
  });

  it('a connection cut in the middle of a statement: the statement is repeated', async () => {
    const table = freshTable();
    const store = await openStore({ uri: proxy.uri, table });
    await store.ready();
    for (const [n, sid] of ['a', 'b', 'c'].entries()) {
      proxy.cutIn(`marker-${n}`);
      await store.set(sid, plain({ text: `marker-${n}` }));
      assert.equal((await row(table, sid))?.data.text, `marker-${n}`);
    }
    assert.equal(proxy.hits, 3);
  });

  it('an idle connection cut: a statement is answered at whichever moment of the cut it comes', async () => {
    const store = await openStore({ uri: proxy.uri, table: freshTable(), maxConnections: 1 });
    await assertAnswersDuringCuts(store, proxy);
  });

  it('with several hosts too: also the first statement of a connection is repeated', async () => {
    const table = freshTable();
    const host = `127.0.0.1:${proxy.port}`;
    const store = await openStore({
      uri: `postgres://postgres:${PASSWORD}@${host},${host}/postgres`,
      table,
      createTable: false,
    });
    const sql = postgres(server.uri, { max: 2 });
    await sql.unsafe(createTableSql({ schema: 'public', table })).simple();
    await store.get('a');
    const calls: Promise<unknown>[] = [];
    await sql.begin(async (lock) => {
      await lock`lock table ${lock(table)} in access exclusive mode`;
      calls.push(store.get('a'), store.length(), store.set('b', plain()), store.ids());
      const waiting = () => sql`select from pg_locks where relation = ${table}::regclass and not granted`;
      await eventually(async () => (await waiting()).length === calls.length);
      proxy.cut();
    });
    const ended = await Promise.allSettled(calls);
    await sql.end();
    assert.deepEqual(
      ended.map(({ status }) => status),
      Array(4).fill('fulfilled'),
    );
  });

  /** A merge for counters: both sides' increments count. */
  const merge: PgStoreOptions['merge'] = (base: any, ours: any, theirs: any) => ({
    ...theirs,
    ...ours,
    n: theirs.n + ours.n - base.n,
  });

  for (const [name, options] of Object.entries({
    'the default merge': {},
    'a counting merge': { merge },
    'encrypted data': { merge, encryptionKey: 'an encryption key for specs' },
  })) {
    it(`a save whose answer was lost counts once, with ${name}`, async () => {
      const table = freshTable();
      const store = await openStore({ uri: proxy.uri, table, ...options });
      const direct = await openStore({ uri: server.uri, table, ...options });
      await store.set('sid', plain({ n: 0 }));
      for (let n = 1; n <= 5; n++) {
        const session = await load(store, 'sid');
        assert(session);
        session.n++;
        session.by = n;
        // The changed cookie goes over the wire as it is, even where the data is encrypted.
        session.cookie.path = `/${n}`;
        proxy.loseAnswerTo(`"path":"/${n}"`);
        await store.set('sid', session);
        assert.equal(proxy.hits, n);
        const seen: any = await direct.get('sid');
        assert.equal(seen.n, n);
        assert.equal(seen.by, n);
      }
    });
  }

  it('a destroy whose answer was lost is no error, and the session stays away', async () => {
    const table = freshTable();
    const store = await openStore({ uri: proxy.uri, table });
    await store.set('the-sid', plain({ n: 0 }));
    const session = await load(store, 'the-sid');
    assert(session);
    proxy.loseAnswerTo('the-sid');
    await store.destroy('the-sid');
    assert.equal(proxy.hits, 1);
    session.n = 1;
    await store.set('the-sid', session);
    assert.equal(await row(table, 'the-sid'), undefined);
  });

  it('an unresponsive network: calls fail within `timeout`, everything works afterwards, no call and no socket is left', async () => {
    const table = freshTable();
    const store = await openStore({ uri: proxy.uri, table, timeout: 500 });
    for (let n = 0; n < 20; n++) await patiently(() => store.set(`s${n}`, plain({ n })));
    for (let round = 0; round < 2; round++) {
      proxy.silence();
      const calls = Array.from({ length: 40 }, (_, n) =>
        n % 2 ? store.get(`s${n >> 1}`) : store.set(`s${n >> 1}`, plain({ n: n >> 1 })),
      );
      for (const answer of await Promise.allSettled<unknown>(calls)) {
        assert.equal(answer.status, 'rejected');
        assert.equal(answer.reason.code, 'TIMEOUT');
        assert.match(answer.reason.message, /^PgStore\.(get|set): no answer in time/);
      }
      // Unresponsive connections are closed, although nobody ever answered them; a pool keeps those
      // that were idle.
      if (!ON_POOL) await eventually(() => proxy.connections === 0);
      proxy.resume();
      for (let n = 0; n < 20; n++) assert.equal(((await patiently(() => store.get(`s${n}`))) as any)?.n, n);
    }
    assert(proxy.connections <= 10);
    await closeStores();
    await eventually(() => proxy.connections === 0);
  });

  it('a write that timed out on an unresponsive network does not arrive after a later one', async () => {
    const table = freshTable();
    const store = await openStore({ uri: proxy.uri, table, timeout: 300 });
    await patiently(() => store.set('sid', plain({ n: 1 })));
    proxy.silence();
    await assert.rejects(store.set('sid', plain({ n: 2 })), { code: 'TIMEOUT' });
    await eventually(() => proxy.connections === 0);
    const direct = await openStore({ uri: server.uri, table });
    await direct.set('sid', plain({ n: 3 }));
    proxy.resume();
    // Over the same proxy, after all that it had queued.
    await patiently(() => store.get('sid'));
    assert.equal((await row(table, 'sid'))?.data.n, 3);
  });

  it('a pause that is shorter than `timeout` fails nothing', async () => {
    const store = await openStore({ uri: proxy.uri, table: freshTable() });
    await store.set('sid', plain({ n: 1 }));
    proxy.silence();
    const pending = [store.get('sid'), store.set('sid', plain({ n: 2 })), store.get('sid')] as const;
    await eventually(() => proxy.held > 0);
    proxy.resume();
    const [before, , after] = await Promise.all(pending);
    assert.deepEqual([(before as any).n, (after as any).n], [1, 2]);
  });

  it('unresponsive from the first connection on: fails within `timeout`, works later', async () => {
    const store = await openStore({ uri: proxy.uri, table: freshTable(), timeout: 300 });
    proxy.silence();
    await assert.rejects(store.get('sid'), { code: 'TIMEOUT', message: /^PgStore\.get: / });
    await assert.rejects(store.ready(), { code: 'TIMEOUT', message: /^PgStore\.ready: / });
    proxy.resume();
    await patiently(() => store.set('sid', plain({ n: 1 })));
    assert.equal(((await patiently(() => store.get('sid'))) as any).n, 1);
  });

  it('the app’s own client is left alone, and its calls still end', async () => {
    const sql = postgres(proxy.uri, { max: 3, onnotice: () => {} });
    const store = await openStore({ sql, table: freshTable(), timeout: 300 });
    await patiently(() => store.set('sid', plain({ n: 1 })));
    proxy.silence();
    await assert.rejects(store.get('sid'), { code: 'TIMEOUT' });
    proxy.resume();
    assert.equal(((await patiently(() => store.get('sid'))) as any).n, 1);
    assert.deepEqual([...(await sql`select 1 as n`)], [{ n: 1 }]);
    await store.close();
    await sql.end({ timeout: 1 });
  });
});
