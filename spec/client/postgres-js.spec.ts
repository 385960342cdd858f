/**
 * What Postgres.js does that lib/client/connection.ts works around. A test that fails here after
 * an update of Postgres.js says that this part of the workaround can go.
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { eventually } from '../support/eventually.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { PostgresServer } from '../support/postgres-server.js';

describe('Postgres.js', () => {
  let server: PostgresServer;
  let proxy: FaultProxy;

  before(async () => {
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
    proxy = await FaultProxy.start(() => server.port);
  });
  after(async () => {
    proxy.resume();
    await proxy.close();
    await server.close();
  });

  /**
   * Whether it has settled after half a second. That it never settles cannot be waited for; a busy
   * machine, on which it takes longer, does not make these specs fail.
   */
  const settles = (answer: Promise<unknown>) =>
    Promise.race([
      answer.then(
        () => true,
        () => true,
      ),
      sleep(500, false),
    ]);

  /** Runs a program with a client `sql` over the proxy; resolves with its exit code and errors. */
  function run(options: string, program: string, uri = proxy.uri): Promise<{ code: unknown; stderr: string }> {
    const text = `import postgres from 'postgres';
      const sql = postgres(${JSON.stringify(uri)}, { max: 1, ${options} });
      ${program}
      await sql.end({ timeout: 1 });`;
    return new Promise((resolve) => {
      execFile(process.execPath, ['--input-type=module', '-e', text], (error, _stdout, stderr) =>
        resolve({ code: error?.code ?? 0, stderr }),
      );
    });
  }

  it('cannot drop an unresponsive connection (#1089): `end` leaves its socket open', async () => {
    const sql = postgres(proxy.uri, { max: 1 });
    await sql`select 1`;
    proxy.silence();
    await sql.end({ timeout: 0 });
    // By the time another client has connected and was answered, a closed socket would be seen.
    const other = postgres(server.uri, { max: 1 });
    await other`select 1`;
    await other.end();
    assert.equal(proxy.connections, 1);
    proxy.resume();
    await eventually(() => proxy.connections === 0);
  });

  it('gives no answer to a statement that comes between the reset of its connection and the notice of it (#1133)', async () => {
    const answered: boolean[] = [];
    for (let turns = 0; turns < 8; turns++) {
      const sql = postgres(proxy.uri, { max: 1, fetch_types: false, backoff: false });
      await sql`select 1`;
      proxy.cut();
      for (let n = 0; n < turns; n++) await nextTurn();
      answered.push(await settles(sql`select 2`));
      await sql.end({ timeout: 0 });
    }
    assert(answered.includes(false), 'each was answered');
  });

  it('goes on for ever with several hosts of which none is there (#1174)', async () => {
    const sql = postgres('postgres://127.0.0.1:1,127.0.0.1:2/postgres', { max: 1, backoff: false });
    assert.equal(await settles(sql`select 1`), false);
    await sql.end({ timeout: 0 });
  });

  it('ends the process by a connection cut while it fetches types (#1192)', async () => {
    proxy.cutIn('typarray');
    const { code, stderr } = await run('', 'await sql`select 1`.catch(() => {});');
    assert.notEqual(code, 0);
    assert.match(stderr, /ECONNRESET|CONNECTION_CLOSED/);
  });

  it('ends the process by a connection cut while it waits for a password (#1208)', async () => {
    const admin = postgres(server.uri, { max: 1 });
    await admin.unsafe(`create role careful login password 'of the app'`);
    const file = path.join(server.dataDir, 'pg_hba.conf');
    server.writeFile('pg_hba.conf', `host all careful all password\n${fs.readFileSync(file, 'utf8')}`);
    await admin`select pg_reload_conf()`;
    await admin.end();
    const asked = `password: () => { setTimeout(() => process.send('asked'), 50); return new Promise((resolve) => setTimeout(resolve, 500, 'x')) }`;
    const { code, stderr } = await run(
      `${asked.replace("process.send('asked')", 'socket.resetAndDestroy()')},
       socket: async ({ host, port }) => (globalThis.socket = (await import('node:net')).connect(port[0], host[0]))`,
      'await sql`select 1`.catch(() => {}); await new Promise((resolve) => setTimeout(resolve, 1000));',
      `postgres://careful@127.0.0.1:${proxy.port}/postgres`,
    );
    assert.notEqual(code, 0);
    assert.match(stderr, /Cannot read properties of null \(reading 'write'\)/);
  });

  it('goes on with TLS where the server has answered that it offers none', async () => {
    const sql = postgres(server.uri, { max: 1, ssl: 'require' });
    await assert.rejects(sql`select 1`, { message: /before secure TLS connection was established/ });
    await sql.end();
  });
});
