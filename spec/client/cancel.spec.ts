/** A statement that is given up is cancelled on the server: it is not done later, and no backend goes on with it. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import postgres, { type Sql } from 'postgres';
import { ConnectionPool } from '../../lib/client/pool.js';
import type { PgStoreOptions } from '../../lib/index.js';
import { parseOptions } from '../../lib/options.js';
import { writeCertificate } from '../support/certificate.js';
import { patiently } from '../support/eventually.js';
import { temporaryFolder } from '../support/folders.js';
import { closeStores, freshTable, openOwnStore } from '../support/postgres.js';
import { PASSWORD, PostgresServer } from '../support/postgres-server.js';
import { plain } from '../support/sessions.js';

/** The number that marks a cancel request (PostgreSQL: Message Formats, CancelRequest). */
const CANCEL_REQUEST = 80_877_102;

describe('a statement that is given up', () => {
  let server: PostgresServer;
  let sql: Sql;
  let folder: string;
  const pools: pg.Pool[] = [];

  before(async () => {
    folder = temporaryFolder();
    fs.chmodSync(folder, 0o777);
    server = await PostgresServer.start({ settings: { fsync: 'off', unix_socket_directories: folder } });
    sql = postgres(server.uri, { max: 10, onnotice: () => {} });
    await writeCertificate(server);
    await sql`alter system set ssl = on`;
    await sql`select pg_reload_conf()`;
    const answersWithTls = async () => {
      const probe = postgres(server.uri, { max: 1, ssl: 'require' });
      const isOn = await probe`select 1`.then(
        () => true,
        () => false,
      );
      await probe.end();
      return isOn;
    };
    while (!(await answersWithTls())) await sleep(10);
  });
  afterEach(async () => {
    await closeStores();
    await Promise.all(pools.splice(0).map((pool) => pool.end()));
  });
  after(async () => {
    await sql.end();
    await server.close();
  });

  function poolOf(settings: pg.PoolConfig): pg.Pool {
    const pool = new pg.Pool({ max: 3, connectionTimeoutMillis: 10_000, ...settings }).on('error', () => {});
    pools.push(pool);
    return pool;
  }

  const onSocket = () => ({
    host: folder,
    port: server.port,
    user: 'postgres',
    password: PASSWORD,
    database: 'postgres',
  });
  const clients: Record<string, () => PgStoreOptions> = {
    'own connections': () => ({ uri: server.uri }),
    'own connections with TLS': () => ({ uri: `${server.uri}?sslmode=require` }),
    'own connections over a Unix socket': () => ({ uri: server.uri, postgres: onSocket() }),
    'a node-postgres pool': () => ({ uri: undefined, pool: poolOf({ connectionString: server.uri }) }),
    'a node-postgres pool with TLS': () => ({
      uri: undefined,
      pool: poolOf({ connectionString: server.uri, ssl: { rejectUnauthorized: false } }),
    }),
    'a node-postgres pool over a Unix socket': () => ({ uri: undefined, pool: poolOf(onSocket()) }),
  };
  it('is cancelled before the call fails, so it is not done when the lock goes at once', async () => {
    const giveUp = async ([name, options]: [string, () => PgStoreOptions]) => {
      const table = freshTable();
      const store = await openOwnStore({ ...options(), table, timeout: 4000 });
      await store.set('a', plain({ n: 1 }));
      await sql.begin(async (lock) => {
        await lock`lock table ${lock(table)} in exclusive mode`;
        await assert.rejects(store.set('a', plain({ n: 2 })), { code: 'TIMEOUT' }, name);
        // Before the lock goes.
        const waiting = await lock`select from pg_stat_activity
          where query like ${`%${table}%`} and wait_event_type = 'Lock'`;
        assert.equal(waiting.length, 0, name);
      });
      assert.equal(((await store.get('a')) as any).n, 1, name);
    };
    await Promise.all(Object.entries(clients).map(giveUp));
  });

  it('does not close the connection of its cancel request before the server does, which ends PgBouncer 1.18', async () => {
    const requests: { socket: net.Socket; isLeft: boolean }[] = [];
    // Passes connections on, but leaves cancel requests without an answer.
    const between = net.createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', (first) => {
        if (first.readUInt32BE(4) === CANCEL_REQUEST) {
          const request = { socket, isLeft: false };
          requests.push(request);
          socket.resume().on('close', () => {
            request.isLeft = true;
          });
          return;
        }
        const toServer = net.connect(server.port, '127.0.0.1').on('error', () => {});
        toServer.write(first);
        socket.pipe(toServer).pipe(socket);
      });
    });
    await new Promise<void>((resolve) => between.listen(0, '127.0.0.1', resolve));
    const uri = new URL(server.uri);
    uri.port = String((between.address() as net.AddressInfo).port);
    const table = freshTable();
    const store = await openOwnStore({ uri: uri.href, table, timeout: 2000 });
    await patiently(() => store.set('a', plain()));
    await sql.begin(async (lock) => {
      await lock`lock table ${lock(table)} in exclusive mode`;
      await assert.rejects(store.set('a', plain()), { code: 'TIMEOUT' });
    });
    assert.deepEqual(
      requests.map(({ isLeft }) => isLeft),
      [false],
    );
    for (const { socket } of requests) socket.end();
    await closeStores();
    await new Promise((resolve) => between.close(resolve));
  });

  it('never strikes the statement after it, whenever the answer comes', async () => {
    const pool = new ConnectionPool(parseOptions({ uri: server.uri, maxConnections: 2, timeout: 60_000 }));
    try {
      await pool.query('select 1::text', [], performance.now() + 60_000);
      let lost = 0;
      let answered = 0;
      const worker = async (offset: number) => {
        for (let n = offset; lost < 10 || answered < 10; n += 2) {
          // It ends about when it is cancelled.
          const seconds = String(0.18 + (n % 40) / 1000);
          const given = pool.query('select pg_sleep($1::text::float8)::text', [seconds], performance.now() + 220);
          const outcome = await given.then(
            () => 'answered',
            (error) => error.code,
          );
          if (outcome === 'TIMEOUT') lost++;
          else answered++;
          assert.match(outcome, /^(answered|TIMEOUT)$/);
          await pool.query('select pg_sleep(0.005)::text', [], performance.now() + 60_000);
        }
      };
      await Promise.all([worker(0), worker(1)]);
    } finally {
      await pool.end();
    }
  });

  it('leaves no backend behind while each write waits for a standby that is not there', async () => {
    const name = freshTable();
    const table = freshTable();
    const options = { uri: server.uri, table, postgres: { connection: { application_name: name } } };
    const store = await openOwnStore({ ...options, timeout: 300, maxConnections: 3, retry: { attempts: 1 } });
    await store.ready();
    await sql`alter system set synchronous_standby_names = 'nobody'`;
    await sql`select pg_reload_conf()`;
    let most = 0;
    let timeouts = 0;
    let isDone = false;
    const watching = (async () => {
      for (; !isDone; await sleep(5)) {
        const rows = await sql`select from pg_stat_activity where application_name = ${name}`;
        most = Math.max(most, rows.length);
      }
    })();
    const write = async (sid: string) => {
      while (timeouts < 60) {
        const code = await store.set(sid, plain()).then(
          () => 'stored',
          (error) => error.code,
        );
        if (code === 'TIMEOUT') timeouts++;
      }
    };
    try {
      await Promise.all(['a', 'b', 'c', 'd'].map(write));
    } finally {
      isDone = true;
      await watching;
      await sql`alter system reset synchronous_standby_names`;
      await sql`select pg_reload_conf()`;
    }
    assert(most >= 1 && most <= 5, `${most} backends`);
    const works = () =>
      store.set('e', plain()).then(
        () => true,
        () => false,
      );
    while (!(await works())) await sleep(10);
  });

  it('is not counted as done when its cancellation ends the wait for a standby', async () => {
    const table = freshTable();
    const store = await openOwnStore({ uri: server.uri, table, timeout: 500 });
    await store.ready();
    await sql`alter system set synchronous_standby_names = 'nobody'`;
    await sql`select pg_reload_conf()`;
    const isWaiting = async () =>
      (await sql`show synchronous_standby_names`)[0]?.synchronous_standby_names === 'nobody';
    while (!(await isWaiting())) await sleep(10);
    try {
      // Until the backend of the store has heard of it, too.
      let code: string;
      do {
        code = await store.set('a', plain()).then(
          () => 'stored',
          (error) => error.code,
        );
      } while (code === 'stored');
      assert.equal(code, 'TIMEOUT');
    } finally {
      await sql`alter system reset synchronous_standby_names`;
      await sql`select pg_reload_conf()`;
    }
  });
});
