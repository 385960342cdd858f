/** A statement gets its answer, whatever happens to the server. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { patiently } from '../support/eventually.js';
import { closeStores, freshTable, ON_POOL, openStore, sqlClient } from '../support/postgres.js';
import { PostgresServer } from '../support/postgres-server.js';
import { plain } from '../support/sessions.js';

describe('database', () => {
  let server: PostgresServer;
  let isDown = false;

  async function stop(): Promise<void> {
    await server.stop();
    isDown = true;
  }

  async function start(): Promise<void> {
    await server.start();
    isDown = false;
  }

  before(async () => {
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
  });
  after(() => server.close());
  afterEach(async () => {
    await closeStores();
    if (isDown) await start();
  });

  it('connects to nothing until first use', async () => {
    await stop();
    const store = await openStore({ uri: server.uri, autodelete: 900 });
    store.on('retry', () => assert.fail('it tried to connect'));
    await store.close();
  });

  it('works later without a new store where the server was down at start', async () => {
    await stop();
    const store = await openStore({ uri: server.uri, retry: { attempts: 1 } });
    await assert.rejects(store.ready(), { code: 'ECONNREFUSED' });
    await assert.rejects(store.set('a', plain()), { code: 'ECONNREFUSED' });
    await assert.rejects(store.all(), { code: 'ECONNREFUSED' });
    await start();
    await store.set('a', plain({ n: 1 }));
    assert.equal(((await store.get('a')) as any).n, 1);
  });

  it('tries again while the server is down, and answers when it is back', async () => {
    await stop();
    const store = await openStore({ uri: server.uri, retry: { attempts: 1000, delay: 1 }, timeout: 60_000 });
    const retried = once(store, 'retry');
    const saved = store.set('a', plain());
    const [what, attempt] = await retried;
    assert.deepEqual([what, attempt], ['set', 1]);
    await start();
    await saved;
    assert.deepEqual(await store.ids(), ['a']);
  });

  it('goes on after a restart of the server', async () => {
    const store = await openStore({ uri: server.uri });
    await Promise.all(Array.from({ length: 20 }, (_, n) => store.set(`s${n}`, plain())));
    await server.restart();
    assert.equal(await store.length(), 20);
    await Promise.all(Array.from({ length: 20 }, (_, n) => store.destroy(`s${n}`)));
    assert.equal(await store.length(), 0);
  });

  it('fails after its attempts, and says why', async () => {
    await stop();
    const store = await openStore({ uri: server.uri, retry: { attempts: 3, delay: 1 } });
    let retries = 0;
    store.on('retry', () => retries++);
    await assert.rejects(store.get('a'), { name: 'PgStoreError', code: 'ECONNREFUSED' });
    assert.equal(retries, 2);
  });

  it('tries nothing again that does not pass', async () => {
    const uri = new URL(server.uri);
    uri.pathname = '/missing';
    const store = await openStore({ uri: uri.href });
    store.on('retry', () => assert.fail('no retry'));
    await assert.rejects(store.get('a'), { code: '3D000' });
  });

  it('tries nothing again after the time of the call', async () => {
    await stop();
    const store = await openStore({ uri: server.uri, timeout: 200, retry: { attempts: 1e6, delay: 10 } });
    await assert.rejects(store.get('a'), (error: any) => ['TIMEOUT', 'ECONNREFUSED'].includes(error.code));
    let retries = 0;
    store.on('retry', () => retries++);
    await store.close();
    assert.equal(retries, 0);
  });

  it('sends nothing for a call that has failed while the table was waited for', async () => {
    const client = await sqlClient();
    const sent: string[] = [];
    let find: () => void = () => {};
    const found = new Promise<void>((resolve) => (find = resolve));
    const unsafe = (text: string, values: any[], options: object) => ({
      simple: () => client.unsafe(text).simple(),
      values: async () => {
        sent.push(text);
        // So the table is looked for once more, for longer than the call has.
        if (sent.length === 1) throw Object.assign(new Error('cut'), { code: 'ECONNRESET' });
        if (sent.length === 2) await found;
        return client.unsafe(text, values, options).values();
      },
    });
    const sql = Object.assign(() => {}, { unsafe, options: client.options }) as unknown as typeof client;
    const store = await openStore({ sql, table: freshTable(), timeout: 1000, retry: { attempts: 2, delay: 300 } });
    await assert.rejects(store.set('a', plain()), { code: 'TIMEOUT' });
    find();
    assert.equal(await patiently(() => store.length()), 0);
    assert.deepEqual(
      sent.filter((text) => text.includes('insert')),
      [],
    );
  });

  it('does not wait forever for an unresponsive server, nor keep the process up', async () => {
    const sockets = new Set<net.Socket>();
    const silent = net.createServer((socket) => {
      sockets.add(socket.on('error', () => {}));
    });
    await once(silent.listen(0, '127.0.0.1'), 'listening');
    const { port } = silent.address() as net.AddressInfo;
    const store = await openStore({ uri: `postgres://nobody@127.0.0.1:${port}/none`, timeout: 100 });
    try {
      const calls = [store.get('a'), store.set('a', plain()), store.length()];
      // A pool may have a time limit of its own for connections, which can come first.
      const code = ON_POOL ? /^(TIMEOUT|CONNECTION_CLOSED)$/ : /^TIMEOUT$/;
      await Promise.all(calls.map((call: Promise<unknown>) => assert.rejects(call, { code })));
      await closeStores();
      await Promise.all(
        [...sockets].map((socket) => socket.closed || new Promise((end) => socket.resume().once('close', end))),
      );
      assert(sockets.size > 0);
    } finally {
      for (const socket of sockets) socket.destroy();
      silent.close();
    }
  });

  it('stays within `timeout` for a statement that waits on the server, and works afterwards', async () => {
    const table = freshTable();
    const store = await openStore({ table, timeout: 300 });
    await patiently(() => store.set('a', plain()));
    const sql = await sqlClient();
    await sql.begin(async (locking) => {
      await locking`lock table ${locking(table)}`;
      await assert.rejects(store.get('a'), { code: 'TIMEOUT' });
    });
    assert(await patiently(() => store.get('a')));
  });
});
