/**
 * The store's own connections: how many, to which host, and what becomes of one that ends, breaks
 * or gives no answer.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import net from 'node:net';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import postgres, { type Sql } from 'postgres';
import { ConnectionPool } from '../../lib/client/pool.js';
import { parseOptions } from '../../lib/options.js';
import { runNode } from '../support/child.js';
import { eventually, patiently } from '../support/eventually.js';
import { type ChunkFault, FaultProxy } from '../support/fault-proxy.js';
import { closeStores, freshTable, openOwnStore as openStore } from '../support/postgres.js';
import { PASSWORD, PostgresServer } from '../support/postgres-server.js';
import { plain } from '../support/sessions.js';

describe('connection pool', () => {
  let server: PostgresServer;
  let sql: Sql;
  let proxy: FaultProxy;

  before(async () => {
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
    sql = postgres(server.uri, { max: 3, onnotice: () => {} });
  });
  beforeEach(async () => {
    proxy = await FaultProxy.start(() => server.port);
  });
  afterEach(async () => {
    proxy.chunkFault = () => undefined;
    proxy.resume();
    await closeStores();
    await proxy.close();
  });
  after(async () => {
    await sql.end();
    await server.close();
  });

  /** Runs `work` while nobody else can use the table. */
  async function whileLocked(table: string, work: () => Promise<unknown>): Promise<void> {
    await sql.begin(async (locking) => {
      await locking`lock table ${locking(table)} in access exclusive mode`;
      await work();
    });
  }

  /** Statements that wait for a lock of the table. */
  async function blocked(table: string): Promise<number> {
    const [row] = await sql`
      select count(*)::integer from pg_locks where relation = ${table}::regclass and not granted`;
    return row?.count;
  }

  /** The same fault for the next chunk only. */
  function strikeOnce(fault: ChunkFault): void {
    let isDone = false;
    proxy.chunkFault = () => {
      if (isDone) return undefined;
      isDone = true;
      return fault;
    };
  }

  for (const maxConnections of [1, 3]) {
    it(`planned ends fail no call, though nothing is tried again, with ${maxConnections} connections`, async () => {
      let opened = 0;
      const socket = () => {
        opened++;
        return net.connect(server.port, '127.0.0.1');
      };
      const store = await openStore({
        uri: server.uri,
        maxConnections,
        retry: { attempts: 1 },
        postgres: { max_lifetime: 0.5, idle_timeout: 0.001, socket },
        table: freshTable(),
      });
      for (let n = 0; opened < 100; n++) {
        await Promise.all([store.set(`s${n}`, plain()), store.get('a'), store.length(), store.destroy('b')]);
        // The connections are idle for 0 to 2 ms, around `idle_timeout`.
        await sleep(n % 3);
      }
    });
  }

  it('never more sockets than `maxConnections`, while long statements run and connections are cut', async () => {
    const sockets: net.Socket[] = [];
    let most = 0;
    const socket = () => {
      const opened = net.connect(proxy.port, '127.0.0.1');
      sockets.push(opened);
      most = Math.max(most, sockets.filter(({ destroyed }) => !destroyed).length);
      return opened;
    };
    const table = freshTable();
    const store = await openStore({ uri: proxy.uri, table, maxConnections: 3, postgres: { socket } });
    await store.ready();
    const calls = () => [store.get('a'), store.set('b', plain()), store.destroy('c'), store.length(), store.ids()];
    const answers: Promise<unknown>[] = [];
    await whileLocked(table, async () => {
      for (let round = 0; round < 4; round++) {
        answers.push(...calls());
        // The server does not notice a cut while it waits for a lock.
        await eventually(async () => (await blocked(table)) >= 3 * (round + 1));
        proxy.cut();
      }
      // Else fewer connections may serve all the calls that are left.
      await eventually(async () => (await blocked(table)) >= 15);
    });
    await Promise.all(answers);
    assert(sockets.length >= 15, `${sockets.length} sockets`);
    assert.equal(most, 3);
  });

  it('a socket of the app that comes when its call has failed is closed', async () => {
    let give: (socket: net.Socket) => void = () => {};
    const socket = () => new Promise<net.Socket>((resolve) => (give = resolve));
    const store = await openStore({ uri: server.uri, timeout: 50, postgres: { socket } });
    await assert.rejects(store.get('a'), { code: /^(TIMEOUT|CONNECT_TIMEOUT)$/ });
    // The connection's attempt may end a moment later than the call.
    await store.close();
    const late = net.connect(server.port, '127.0.0.1');
    give(late);
    await eventually(() => late.destroyed);
  });

  it('a `max_lifetime` of a month does not end connections at once', async () => {
    let opened = 0;
    const socket = () => {
      opened++;
      return net.connect(server.port, '127.0.0.1');
    };
    const postgres = { max_lifetime: 30 * 86_400, idle_timeout: 30 * 86_400, socket };
    const store = await openStore({ uri: server.uri, table: freshTable(), maxConnections: 1, postgres });
    for (let n = 0; n < 20; n++) {
      await store.set('a', plain({ n }));
      await sleep(5);
    }
    assert.equal(opened, 1);
  });

  it('a server that hangs up at once: the call fails at once, with a transient error', async () => {
    const listener = net.createServer((socket) => void socket.on('error', () => {}).end());
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    const { port } = listener.address() as net.AddressInfo;
    for (const sslmode of ['disable', 'require']) {
      const uri = `postgres://postgres@127.0.0.1:${port}/postgres?sslmode=${sslmode}`;
      const store = await openStore({ uri, retry: { attempts: 1 } });
      for (let n = 0; n < 20; n++) {
        await assert.rejects(store.get('a'), { code: /^(CONNECTION_CLOSED|CONNECTION_ENDED|ECONNRESET|EPIPE)$/ });
      }
    }
    listener.close();
  });

  it('at the connection limit of its role, fails no call and tries nothing again', async () => {
    const table = freshTable();
    await (await openStore({ uri: server.uri, table })).ready();
    await sql.unsafe(`create role limited login connection limit 2 password '${PASSWORD}'`);
    await sql`grant all on ${sql(table)} to limited`;
    const uri = server.uri.replace('//postgres:', '//limited:');
    const store = await openStore({ uri, table, retry: { attempts: 1 } });
    for (let round = 0; round < 20; round++) {
      await Promise.all([
        ...Array.from({ length: 50 }, (_, n) => store.set(`s${n}`, plain({ round }))),
        ...Array.from({ length: 50 }, (_, n) => store.get(`s${n}`)),
        ...Array.from({ length: 20 }, () => store.length()),
      ]);
    }
    await store.close();
    await sql`drop owned by limited`;
    await sql`drop role limited`;
  });

  it('one refused attempt does not shrink the pool for long', async () => {
    const table = freshTable();
    const name = freshTable();
    await (await openStore({ uri: server.uri, table })).ready();
    await sql.unsafe(`create role few login password '${PASSWORD}' connection limit 1`);
    await sql`grant all on ${sql(table)} to few`;
    const uri = `${server.uri.replace('//postgres:', '//few:')}?application_name=${name}`;
    const store = await openStore({ uri, table, createTable: false });
    const count = async () => (await sql`select from pg_stat_activity where application_name = ${name}`).length;
    /** Calls of several kinds at once, for which one connection is too few. */
    const burst = () =>
      Promise.all([store.get('a'), store.length(), store.set('b', plain()), store.destroy('c'), store.ids()]);
    for (let round = 0; round < 5; round++) await burst();
    assert.equal(await count(), 1);
    await sql`alter role few connection limit 10`;
    // No connection of the store's ends meanwhile.
    const [before] = await sql`select pid from pg_stat_activity where application_name = ${name}`;
    while ((await count()) < 2) await burst();
    const after = await sql`select pid from pg_stat_activity where application_name = ${name}`;
    assert(after.some(({ pid }) => pid === before?.pid));
    await store.close();
    await sql`drop owned by few`;
    await sql`drop role few`;
  });

  it('a connection to a server that takes no writes any more is replaced, and the call repeated', async () => {
    const table = freshTable();
    const store = await openStore({ uri: server.uri, table, maxConnections: 1 });
    await store.set('a', plain({ n: 1 }));
    const codes: string[] = [];
    store.on('retry', (_call, _attempt, error: any) => codes.push(error.code));
    // As on a primary that a failover has made a standby: on this connection alone.
    const [{ role }] = await sql`select current_user as role`;
    await sql`alter role ${sql(role)} set default_transaction_read_only = on`;
    const readOnly = await openStore({ uri: server.uri, table, maxConnections: 1, createTable: false });
    assert.equal(((await readOnly.get('a')) as any).n, 1);
    await sql`alter role ${sql(role)} reset default_transaction_read_only`;
    readOnly.on('retry', (_call, _attempt, error: any) => codes.push(error.code));
    await readOnly.set('a', plain({ n: 2 }));
    await readOnly.destroy('a');
    assert.deepEqual(codes, ['25006']);
  });

  it('a connection that the server has ended for its idleness is replaced, and the call repeated', async () => {
    const store = await openStore({ uri: `${server.uri}?idle_session_timeout=50`, table: freshTable() });
    let ended = 0;
    // Which of the two is known first is chance.
    store.on('retry', (_call, _attempt, error: any) => {
      if (/^(57P05|CONNECTION_CLOSED)$/.test(error.code)) ended++;
    });
    const busy = new Int32Array(new SharedArrayBuffer(4));
    for (let n = 0; ended < 2; n++) {
      await store.set('a', plain({ n }));
      // Nobody hears of the end before the next call.
      Atomics.wait(busy, 0, 0, 100);
      assert.equal(((await store.get('a')) as any).n, n);
    }
  });

  describe('the isolation level', () => {
    const levelOf = async (uri: string, given = {}) => {
      const pool = new ConnectionPool(parseOptions({ uri, postgres: given }));
      const [row] = await pool.query('show default_transaction_isolation', [], performance.now() + 10_000);
      await pool.end();
      return row?.[0];
    };

    it('is read committed, whatever the role has, unless the app says another', async () => {
      await sql.unsafe(`create role strict login password '${PASSWORD}'`);
      await sql`alter role strict set default_transaction_isolation = serializable`;
      const uri = server.uri.replace('//postgres:', '//strict:');
      assert.equal(await levelOf(uri), 'read committed');
      assert.equal(await levelOf(server.uri), 'read committed');
      assert.equal(await levelOf(`${uri}?default_transaction_isolation=repeatable%20read`), 'repeatable read');
      assert.equal(await levelOf(`${uri}?options=-c%20default_transaction_isolation=serializable`), 'serializable');
      const connection = { default_transaction_isolation: 'serializable' };
      assert.equal(await levelOf(server.uri, { connection }), 'serializable');
      await sql`drop role strict`;
    });
  });

  it('a connection that gives no answer fails its own call, and no statement of another connection', async () => {
    const table = freshTable();
    const store = await openStore({ uri: proxy.uri, table, timeout: 3000 });
    await patiently(() => store.set('a', plain({ n: 1 })));
    store.on('retry', () => assert.fail('tried again'));
    strikeOnce('swallow');
    const start = performance.now();
    const swallowed = assert.rejects(store.set('a', plain({ n: 2 })), { code: 'TIMEOUT' });
    let waiting: Promise<unknown> | undefined;
    await whileLocked(table, async () => {
      // The second call has half of its own time left when the first one fails.
      await eventually(() => performance.now() > start + 1500);
      waiting = store.get('b');
      await swallowed;
    });
    await waiting;
    assert.equal(((await store.get('a')) as any).n, 1);
  });

  describe('a statement that waits on the server for longer than `timeout`', () => {
    it('is ended there: no connection stays blocked, and no given-up write is done after a later one', async () => {
      const table = freshTable();
      const store = await openStore({ uri: server.uri, table, timeout: 400 });
      await patiently(() => store.set('a', plain({ n: 1 })));
      await whileLocked(table, async () => {
        const calls = [store.set('a', plain({ n: 2 })), store.touch('b', plain()), store.destroy('c'), store.length()];
        for (const call of calls as Promise<unknown>[]) await assert.rejects(call, { code: 'TIMEOUT' });
        await eventually(async () => (await blocked(table)) === 0);
      });
      const other = await openStore({ uri: server.uri, table });
      await other.set('a', plain({ n: 3 }));
      await store.close();
      assert.equal(((await other.get('a')) as any).n, 3);
    });

    it('keeps its connection', async () => {
      const table = freshTable();
      const store = await openStore({ uri: proxy.uri, table, timeout: 2000, maxConnections: 1 });
      await patiently(() => store.set('a', plain({ n: 1 })));
      await whileLocked(table, () => assert.rejects(store.length(), { code: 'TIMEOUT' }));
      assert.equal(proxy.connections, 1);
      assert.equal(((await patiently(() => store.get('a'))) as any).n, 1);
    });

    it('is ended as the app or the role says, where they do', async () => {
      const table = freshTable();
      await (await openStore({ uri: server.uri, table })).ready();
      await sql.unsafe(`create role hasty login password '${PASSWORD}'`);
      await sql`grant all on ${sql(table)} to hasty`;
      await sql`alter role hasty set statement_timeout = '100ms'`;
      const hasty = await openStore({ uri: server.uri.replace('//postgres:', '//hasty:'), table, createTable: false });
      const patient = await openStore({
        uri: server.uri,
        table,
        createTable: false,
        timeout: 2000,
        postgres: { connection: { statement_timeout: 60_000 } },
      });
      await whileLocked(table, async () => {
        await assert.rejects(hasty.length(), { code: '57014' });
        await assert.rejects(patient.length(), { code: 'TIMEOUT' });
        await eventually(async () => (await blocked(table)) === 0);
      });
      await hasty.close();
      await sql`drop owned by hasty`;
      await sql`drop role hasty`;
    });
  });

  describe('several hosts', () => {
    for (const [name, ports] of Object.entries({ 'a list of ports': true, 'one port': false })) {
      it(`as lists in \`postgres\`, the dead one first, with ${name}: goes on after terminated connections`, async () => {
        const dead = ports ? '127.0.0.1' : '127.0.0.2';
        const given = {
          host: [dead, '127.0.0.1'],
          port: ports ? [1, server.port] : server.port,
          user: 'postgres',
          password: PASSWORD,
          database: 'postgres',
        };
        const before = structuredClone(given);
        const store = await openStore({ postgres: given, uri: undefined, table: freshTable(), maxConnections: 2 });
        for (let round = 0; round < 5; round++) {
          await Promise.all([store.set('a', plain({ round })), store.length(), store.ids()]);
          assert.equal(((await store.get('a')) as any).round, round);
          await sql`select pg_terminate_backend(pid) from pg_stat_activity
            where backend_type = 'client backend' and query like '%from "public"%' and pid <> pg_backend_pid()`;
        }
        assert.deepEqual(given, before);
      });
    }

    it('the first one silent: a call is answered by the second, in time', async () => {
      proxy.silence();
      const hosts = `127.0.0.1:${proxy.port},127.0.0.1:${server.port}`;
      const store = await openStore({
        uri: `postgres://postgres:${PASSWORD}@${hosts}/postgres`,
        table: freshTable(),
        timeout: 3000,
      });
      await store.set('a', plain({ n: 1 }));
    });

    it('none of them there: the call fails when `retry` ends, not by `timeout`', async () => {
      const store = await openStore({
        uri: 'postgres://postgres@127.0.0.1:1,127.0.0.1:2/postgres',
        retry: { attempts: 2, delay: 1 },
        timeout: 50_000,
      });
      await assert.rejects(store.get('a'), { code: 'ECONNREFUSED' });
    });
  });

  it('`fetch_types` is left out, and a connection cut at its start does not end the process', async () => {
    const store = await openStore({ uri: proxy.uri, table: freshTable(), postgres: { fetch_types: true } });
    for (let n = 1; n <= 5; n++) {
      proxy.cutIn('pg_backend_pid');
      await store.set('a', plain({ n }));
      assert.equal(proxy.hits, n);
      proxy.cut();
    }
    proxy.cutIn('typarray');
    await store.set('a', plain());
    assert.equal(proxy.hits, 5);
  });

  it('a connection that closes just after its start leaves no timer that keeps the process up', async () => {
    // The message that ends the start is `Z`, with a length of 5 and a state.
    const { code, stdout, stderr } = await runNode(`
      import net from 'node:net';
      import { PgStore } from './lib/index.js';
      let started = 0;
      const socket = () => {
        const socket = net.connect(${server.port}, '127.0.0.1');
        socket.prependListener('data', (bytes) => {
          if (bytes.at(-6) === 90 && started++ === 0) process.nextTick(() => socket.destroy());
        });
        return socket;
      };
      const store = new PgStore({ uri: '${server.uri}', table: '${freshTable()}', autodelete: false, postgres: { socket } });
      await store.ready();
      await store.close();
      console.log(started > 1);
      // Calls back only where something else keeps the process up.
      setTimeout(() => process.exit(1), 5000).unref();`);
    assert.deepEqual([stdout.trim(), code], ['true', 0], stderr);
  });

  describe('a password from a function', () => {
    const SECRET = 'of the app';
    let uri: string;

    before(async () => {
      await sql.unsafe(`create role careful login password '${SECRET}'`);
      await sql`grant all on schema public to careful`;
      uri = `postgres://careful@127.0.0.1`;
    });

    const at = (port: number) => `${uri}:${port}/postgres`;

    it('is asked for at each connection', async () => {
      let asked = 0;
      const password = async () => {
        asked++;
        return SECRET;
      };
      const store = await openStore({ uri: at(proxy.port), postgres: { password }, maxConnections: 1 });
      await store.set('a', plain());
      proxy.cut();
      await store.set('b', plain());
      assert.equal(asked, 2);
    });

    it('that fails: so does the call, with its error as the cause', async () => {
      const password = () => Promise.reject(new Error('no token'));
      const store = await openStore({ uri: at(server.port), postgres: { password } });
      await assert.rejects(store.get('a'), (error: any) => {
        assert.equal(error.code, 'NO_PASSWORD');
        assert.match(error.cause.message, /no token/);
        return true;
      });
    });

    it('that finds no file: an error of the call, not `ENOENT`, which express-session takes for no session', async () => {
      const password = () => fs.readFile('/nowhere/password', 'utf8');
      const store = await openStore({ uri: at(server.port), postgres: { password } });
      await assert.rejects(store.get('a'), (error: any) => {
        assert.equal(error.code, 'NO_PASSWORD');
        assert.equal(error.cause.code, 'ENOENT');
        return true;
      });
    });

    it('and connections cut while it is on its way: no call fails', async () => {
      const answers: (() => void)[] = [];
      let isHeld = false;
      const password = async () => {
        if (isHeld) await new Promise<void>((resolve) => answers.push(resolve));
        return SECRET;
      };
      const store = await openStore({ uri: at(proxy.port), postgres: { password }, table: freshTable() });
      for (let n = 0; n < 10; n++) {
        // The next call needs a new connection.
        proxy.cut();
        isHeld = true;
        const call = store.set('a', plain({ n }));
        await eventually(() => answers.length > 0);
        isHeld = false;
        proxy.cut();
        for (const answer of answers.splice(0)) answer();
        // And once more, a little later each time.
        for (let turns = 0; turns < n; turns++) await nextTurn();
        proxy.cut();
        await call;
      }
    });
  });

  it('drops nothing in silence: a certificate that is none is an error of the constructor', async () => {
    await assert.rejects(openStore({ uri: server.uri, postgres: { ssl: { ca: '-', key: '-', cert: '-' } } }));
  });
});
