/**
 * Do all promises hold on a node-postgres pool that the app has, and does the pool stay the app's?
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import pg from 'pg';
import { assertSurvivesCuts } from '../support/connection-cuts.js';
import { eventually, patiently } from '../support/eventually.js';
import { Load } from '../support/fault-load.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { appPool, closeStores, directUri, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { exercise, plain } from '../support/sessions.js';

const PREPARED = 'select name from pg_prepared_statements order by name';

describe('pool-client', () => {
  const pools: pg.Pool[] = [];

  /** A pool that ends with the spec. */
  async function openPool(settings: pg.PoolConfig = {}, open: (settings: pg.PoolConfig) => pg.Pool = plainPool) {
    const pool = open({ connectionString: await directUri(), max: 3, ...settings });
    pools.push(pool);
    return pool;
  }

  function plainPool(settings: pg.PoolConfig): pg.Pool {
    return new pg.Pool(settings).on('error', () => {});
  }

  afterEach(async () => {
    await closeStores();
    await Promise.all(pools.splice(0).map((pool) => pool.ended || pool.end()));
  });

  describe('works on a pool', () => {
    for (const [name, open] of Object.entries({
      'as it is': plainPool,
      'with parsers, a search path and a format of its own': appPool,
      'of a single connection': (settings) => plainPool({ ...settings, max: 1 }),
      'whose statements are sent before the last is answered': (settings) => plainPool({ ...settings, pipeline: true }),
      'that deallocates all statements after each use': (settings) =>
        plainPool(settings).on('acquire', (client) => void client.query('deallocate all')),
    } as Record<string, (settings: pg.PoolConfig) => pg.Pool>)) {
      it(name, async () => {
        const pool = await openPool({}, open);
        const store = await openStore({ pool });
        await exercise(store);
        await store.close();
        const { rows } = await pool.query({ text: 'select 1', rowMode: 'array', types: pg.types });
        assert.deepEqual(rows, [[1]], 'still open');
      });
    }
  });

  it('prepares its statements under names of their own', async () => {
    const pool = await openPool({ max: 1 });
    await pool.query({ name: 'mine', text: 'select 1' });
    const [one, two] = [await openStore({ pool }), await openStore({ pool })];
    for (const store of [one, two, one, two]) await store.get('a');
    const names = (await pool.query(PREPARED)).rows.map(({ name }) => name);
    assert.equal(new Set(names).size, names.length);
    assert(names.includes('mine'));
    assert(names.length >= 3);
    for (const name of names) assert.match(name, /^(mine|express_pg_store_[0-9a-f]{32})$/);
  });

  it('prepares none with `postgres: { prepare: false }`', async () => {
    const pool = await openPool({ max: 1 });
    await exercise(await openStore({ pool, postgres: { prepare: false } }));
    assert.deepEqual((await pool.query(PREPARED)).rows, []);
  });

  it('runs no statement in a transaction of the app', async () => {
    const pool = await openPool({ max: 2 });
    const store = await openStore({ pool });
    const client = await pool.connect();
    await client.query('begin');
    await store.set('sid', plain());
    await client.query('rollback');
    client.release();
    assert.deepEqual(await store.ids(), ['sid']);
  });

  describe('a statement without an answer', () => {
    it('destroys its connection, and no other', async () => {
      const pool = await openPool();
      const table = freshTable();
      const store = await openStore({ pool, table, timeout: 300 });
      await patiently(() => store.ready());
      /** Of the server processes of all three connections. */
      const pids = async () => {
        const clients = await Promise.all([pool.connect(), pool.connect(), pool.connect()]);
        const rows = await Promise.all(clients.map((client) => client.query('select pg_backend_pid() as pid')));
        for (const client of clients) client.release();
        return rows.map(({ rows: [{ pid }] }) => pid);
      };
      const before = await pids();
      const sql = await sqlClient();
      await sql.begin(async (locking) => {
        await locking`lock table ${locking(table)}`;
        await assert.rejects(store.get('sid'), { code: 'TIMEOUT' });
      });
      assert.equal(pool.totalCount, 2);
      const after = await pids();
      assert.equal(after.filter((pid) => before.includes(pid)).length, 2);
      assert.equal(await patiently(() => store.get('sid')), null);
    });

    it('that got no connection within `timeout` is not run later', async () => {
      const pool = await openPool({ max: 1 });
      const timeout = 200;
      const store = await openStore({ pool, timeout });
      await patiently(() => store.ready());
      const client = await pool.connect();
      const set = store.set('sid', plain());
      await eventually(() => pool.waitingCount === 1);
      const start = performance.now();
      await assert.rejects(set, { code: 'TIMEOUT' });
      // The statement's own time began a moment after the call's.
      await eventually(() => performance.now() > start + timeout);
      // After a delay of the event loop its timer may come after that of `eventually`.
      await nextTurn();
      client.release();
      assert.deepEqual(await patiently(() => store.ids()), []);
      assert.deepEqual([pool.totalCount, pool.idleCount], [1, 1]);
    });

    it('does not arrive after a later one, over TCP', async () => {
      const proxy = await FaultProxy.start(() => Number(new URL(target).port));
      const target = await directUri();
      const table = freshTable();
      try {
        const pool = await openPool({
          connectionString: target.replace(new URL(target).host, `127.0.0.1:${proxy.port}`),
        });
        const store = await openStore({ pool, table, timeout: 300 });
        await patiently(() => store.set('sid', plain({ n: 1 })));
        proxy.silence();
        await assert.rejects(store.set('sid', plain({ n: 2 })), { code: 'TIMEOUT' });
        await eventually(() => proxy.connections === 0);
        const direct = await openStore({ table });
        await direct.set('sid', plain({ n: 3 }));
        proxy.resume();
        // Over the same proxy, after all that it held.
        assert.equal(((await patiently(() => store.get('sid'))) as any).n, 3);
      } finally {
        proxy.resume();
        await proxy.close();
      }
    });
  });

  describe('connections lost under 32 writers: no call fails, no acknowledged write is lost', () => {
    it('cut by the network', async () => {
      const target = new URL(await directUri());
      const proxy = await FaultProxy.start(() => Number(target.port));
      try {
        const pool = await openPool({
          connectionString: target.href.replace(target.host, `127.0.0.1:${proxy.port}`),
          max: 10,
        });
        const table = freshTable();
        await assertSurvivesCuts(await openStore({ pool, table }), proxy, 15, { uri: target.href, table });
      } finally {
        await proxy.close();
      }
    });

    it('terminated by the server', async () => {
      const pool = await openPool({ max: 10, application_name: freshTable() });
      const table = freshTable();
      const load = await Load.start(await openStore({ pool, table }));
      const sql = await sqlClient();
      let terminated = 0;
      for (let n = 0; n < 20; n++) {
        await load.progress(20);
        terminated += (
          await sql`select pg_terminate_backend(pid) from pg_stat_activity
            where application_name = ${pool.options.application_name as string}`
        ).length;
      }
      await load.progress();
      await load.stop();
      assert.deepEqual(load.errors, []);
      assert.equal(await load.lost(await postgresUri(), table), 0);
      assert(terminated >= 10, `${terminated} connections were terminated`);
    });
  });

  it('a connection that is terminated in the moment when it is there ends no process', async () => {
    const target = new URL(await directUri());
    let isFirst = true;
    /** Adds the message of a termination to the first ReadyForQuery, in one packet. */
    const server = net.createServer((socket) => {
      const upstream = net.connect(Number(target.port), target.hostname);
      socket.on('error', () => {}).on('close', () => upstream.destroy());
      upstream.on('error', () => {}).on('close', () => socket.destroy());
      socket.pipe(upstream);
      upstream.on('data', (chunk) => {
        if (!isFirst || chunk.at(-6) !== 0x5a) return void socket.write(chunk);
        isFirst = false;
        const fields = Buffer.from('SFATAL\0C57P01\0Mterminating connection\0\0');
        const header = Buffer.from([0x45, 0, 0, 0, fields.length + 4]);
        socket.end(Buffer.concat([chunk, header, fields]));
      });
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    try {
      const { port } = server.address() as net.AddressInfo;
      const pool = await openPool({ connectionString: target.href.replace(target.host, `127.0.0.1:${port}`) });
      const store = await openStore({ pool });
      const retried = once(store, 'retry');
      await store.set('sid', plain());
      await retried;
      assert.equal(isFirst, false);
      assert.deepEqual(await store.ids(), ['sid']);
    } finally {
      server.close();
    }
  });

  describe('gives a clear error to each call', () => {
    const calls = {
      get: (store: any) => store.get('sid'),
      set: (store: any) => store.set('sid', plain()),
      destroy: (store: any) => store.destroy('sid'),
      length: (store: any) => store.length(),
      autodelete: (store: any) => store.autodelete(),
    };

    async function assertFails(store: object, code: string, reason: RegExp): Promise<void> {
      (store as any).on('retry', () => assert.fail('it was tried again'));
      for (const [name, call] of Object.entries(calls)) {
        await assert.rejects(call(store), (error: any) => {
          assert.match(error.message, new RegExp(`^PgStore\\.${name}: ${reason.source}`));
          assert.equal(error.code, code);
          return true;
        });
      }
    }

    it('on a pool that was ended', async () => {
      const pool = await openPool();
      const store = await openStore({ pool });
      await store.ready();
      await pool.end();
      await assertFails(store, 'POOL_ENDED', /the pool of option `pool` was ended$/);
    });

    it('on a pool whose user lacks privileges', async () => {
      const sql = await sqlClient();
      const role = freshTable();
      const table = freshTable();
      await (await openStore({ table })).ready();
      await sql`create role ${sql(role)}`;
      try {
        const pool = await openPool({ options: `-c role=${role}` });
        await assertFails(await openStore({ pool, table }), '42501', /permission denied for table/);
      } finally {
        await sql`drop role ${sql(role)}`;
      }
    });

    it('on a pool whose password function fails', async () => {
      // PostgreSQL's request for a clear-text password.
      const sockets: net.Socket[] = [];
      const server = net.createServer((socket) => {
        sockets.push(socket.on('error', () => {}));
        socket.once('data', () => socket.write(Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 3])));
      });
      await once(server.listen(0, '127.0.0.1'), 'listening');
      try {
        const { port } = server.address() as net.AddressInfo;
        const password = () => Promise.reject(new Error('no token'));
        const pool = await openPool({ connectionString: undefined, host: '127.0.0.1', port, user: 'me', password });
        await assertFails(await openStore({ pool }), 'CONNECTION_FAILED', /no token$/);
      } finally {
        // node-postgres leaves them open.
        for (const socket of sockets) socket.destroy();
        server.close();
      }
    });
  });
});
