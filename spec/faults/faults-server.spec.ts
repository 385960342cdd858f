/**
 * A server that refuses, is full, slow or altered fails calls clearly, one by one, and no longer
 * than that.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import postgres, { type Sql } from 'postgres';
import type { PgStore } from '../../lib/index.js';
import { runNode } from '../support/child.js';
import { eventually, patiently } from '../support/eventually.js';
import { everythingOf } from '../support/fault-load.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { closeStores, freshTable, openStore } from '../support/postgres.js';
import { PostgresServer } from '../support/postgres-server.js';
import { plain } from '../support/sessions.js';

describe('faults: a server that refuses', () => {
  let server: PostgresServer;
  let admin: Sql;

  before(async () => {
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
    admin = postgres(server.uri, { max: 2, onnotice: () => {} });
  });
  afterEach(closeStores);
  after(async () => {
    await admin.end();
    await server.close();
  });

  /** The call fails with this code, names itself, and shows nothing of the session. */
  async function fails(call: 'get' | 'set' | 'destroy', answer: Promise<unknown>, code: string): Promise<void> {
    const error: any = await answer.then(
      () => assert.fail(`${call} succeeded, expected ${code}`),
      (error) => error,
    );
    assert.equal(error.code, code, error.message);
    assert.equal(error.cause?.code, code);
    assert.match(error.message, new RegExp(`^PgStore\\.${call}: `));
    assert.doesNotMatch(everythingOf(error), /the-sid|the-data/);
  }

  async function works(store: PgStore): Promise<void> {
    await patiently(() => store.set('the-sid', plain({ text: 'the-data' })));
    assert.equal(((await patiently(() => store.get('the-sid'))) as any).text, 'the-data');
  }

  /** Whether a call is answered without an error. */
  function succeeds(call: Promise<unknown>): Promise<boolean> {
    return call.then(
      () => true,
      () => false,
    );
  }

  it('out of connections: 53300 when `retry` ends, works once there are some', async () => {
    const small = await PostgresServer.start({
      settings: { max_connections: 6, superuser_reserved_connections: 0, max_wal_senders: 0, fsync: 'off' },
    });
    const others = postgres(small.uri, { max: 6 });
    try {
      const taken = await Promise.all(Array.from({ length: 6 }, () => others.reserve()));
      const store = await openStore({ uri: small.uri, retry: { attempts: 2, delay: 10 } });
      await fails('set', store.set('the-sid', plain({ text: 'the-data' })), '53300');
      await fails('get', store.get('the-sid'), '53300');
      for (const connection of taken) connection.release();
      await others.end();
      // The server's processes end a little later than their connections.
      await eventually(() => succeeds(store.get('the-sid')));
      await works(store);
      await store.close();
    } finally {
      await others.end();
      await small.close();
    }
  });

  it('disk full: 53100, reading goes on, works once there is room', async function () {
    // Stands in for the table's file: the kernel answers each write with ENOSPC. Linux only.
    if (!fs.existsSync('/dev/full')) return this.skip();
    const full = await PostgresServer.start({ settings: { fsync: 'off' } });
    const sql = postgres(full.uri, { max: 1 });
    try {
      const store = await openStore({ uri: full.uri, table: 'full' });
      await store.ready();
      const [{ file }] = await sql`select pg_relation_filepath('full') as file`;
      await sql.end();
      const table = path.join(full.dataDir, file);
      await full.stop();
      fs.renameSync(table, `${table}.kept`);
      fs.symlinkSync('/dev/full', table);
      await full.start();
      await fails('set', store.set('the-sid', plain({ text: 'the-data' })), '53100');
      const [one, two] = await Promise.allSettled([store.set('b', plain()), store.set('c', plain())]);
      assert.deepEqual(
        [one, two].map((answer: any) => answer.reason?.code),
        ['53100', '53100'],
      );
      assert.equal(await store.get('the-sid'), null);
      await full.stop();
      fs.renameSync(`${table}.kept`, table);
      await full.start();
      await works(store);
      await store.close();
    } finally {
      await full.close();
    }
  });

  it('read-only transactions: writes fail with 25006, reading goes on', async () => {
    // On one connection: each server process takes up the new setting in its own time.
    const store = await openStore({ uri: server.uri, maxConnections: 1 });
    await works(store);
    await admin`alter system set default_transaction_read_only = on`;
    await admin`select pg_reload_conf()`;
    try {
      await eventually(async () => !(await succeeds(store.set('other', plain()))));
      await fails('set', store.set('the-sid', plain({ text: 'the-data-2' })), '25006');
      await fails('destroy', store.destroy('the-sid'), '25006');
      assert.equal(((await store.get('the-sid')) as any).text, 'the-data');
    } finally {
      await admin`set default_transaction_read_only = off`;
      await admin`alter system reset default_transaction_read_only`;
      await admin`select pg_reload_conf()`;
    }
    await eventually(() => succeeds(store.set('other', plain())));
    await works(store);
  });

  for (const [setting, code] of [
    ['statement_timeout', '57014'],
    ['lock_timeout', '55P03'],
  ]) {
    it(`a locked table and ${setting}: ${code} to each call, works once the lock is released`, async () => {
      const table = freshTable();
      await (await openStore({ uri: server.uri, table })).ready();
      const store = await openStore({ uri: `${server.uri}?${setting}=1000`, table });
      await works(store);
      const other = await admin.reserve();
      await other`begin`;
      await other`lock table ${other(table)} in access exclusive mode`;
      const calls = await Promise.allSettled([
        fails('get', store.get('the-sid'), code),
        fails('set', store.set('the-sid', plain({ text: 'the-data' })), code),
        fails('set', store.set('b', plain()), code),
        fails('set', store.set('c', plain()), code),
        fails('destroy', store.destroy('d'), code),
      ]);
      await other`rollback`;
      other.release();
      for (const answer of calls) if (answer.status === 'rejected') throw answer.reason;
      await works(store);
    });
  }

  it('a locked row fails its own call by `timeout`, and delays no other', async () => {
    const table = freshTable();
    const store = await openStore({ uri: server.uri, table, timeout: 2000 });
    await works(store);
    const other = await admin.reserve();
    await other`begin`;
    await other`select from ${other(table)} where sid = 'the-sid' for update`;
    const held = assert.rejects(store.set('the-sid', plain({ text: 'the-data' })), { code: 'TIMEOUT' });
    await Promise.all(['b', 'c', 'd'].map((sid) => store.set(sid, plain())));
    await held;
    await other`rollback`;
    other.release();
    await works(store);
  });

  it('the table dropped, renamed, or its schema dropped: created again at the next call', async () => {
    const schema = freshTable();
    const store = await openStore({ uri: server.uri, schema, table: 's' });
    for (const change of [
      () => admin`drop table ${admin(schema)}.s`,
      () => admin`alter table ${admin(schema)}.s rename to ${admin(freshTable())}`,
      () => admin`drop schema ${admin(schema)} cascade`,
    ]) {
      await works(store);
      await change();
      const found = await Promise.all([store.get('the-sid'), store.get('other'), store.length()]);
      assert.deepEqual(found, [null, null, 0]);
      await works(store);
    }
  });

  it('the table dropped with `createTable: false`: 42P01 to each call, works once it is back', async () => {
    const table = freshTable();
    await works(await openStore({ uri: server.uri, table }));
    const store = await openStore({ uri: server.uri, table, createTable: false });
    await works(store);
    await admin`alter table ${admin(table)} rename to moved`;
    await fails('get', store.get('the-sid'), '42P01');
    // From the second call on the store looks for the table first.
    await assert.rejects(store.set('the-sid', plain({ text: 'the-data' })), {
      code: '42P01',
      message: `PgStore.set: table "public"."${table}" is missing, and option \`createTable\` is false`,
    });
    await admin`alter table moved rename to ${admin(table)}`;
    assert.equal(((await store.get('the-sid')) as any).text, 'the-data');
  });

  it('a column missing: 42703 to each call that needs it, works once it is back', async () => {
    const table = freshTable();
    const store = await openStore({ uri: server.uri, table });
    await works(store);
    await admin`alter table ${admin(table)} drop column user_id`;
    await fails('set', store.set('the-sid', plain({ text: 'the-data-2' })), '42703');
    assert.equal(((await store.get('the-sid')) as any).text, 'the-data');
    await admin`alter table ${admin(table)} drop column cookie`;
    await fails('get', store.get('the-sid'), '42703');
    await admin`alter table ${admin(table)} add column user_id text, add column cookie json`;
    await works(store);
  });

  it('a trigger that refuses one session fails that call only, and the error discloses nothing of it', async () => {
    const table = freshTable();
    const store = await openStore({ uri: server.uri, table });
    await store.ready();
    await admin.unsafe(`
      create function refuse() returns trigger language plpgsql as $$ begin
        if new.sid = 'the-sid' then raise exception 'no % here: %', new.sid, new.data; end if; return new;
      end $$;
      create trigger refuse before insert on "${table}" for each row execute function refuse()`);
    await Promise.all([
      fails('set', store.set('the-sid', plain({ text: 'the-data' })), 'P0001'),
      ...['a', 'b', 'c'].map((sid) => store.set(sid, plain())),
    ]);
    assert.equal(await store.length(), 3);
  });

  it('ten times the load it can take: late calls fail, the others are answered, then all is normal', async () => {
    const table = freshTable();
    const store = await openStore({ uri: server.uri, table, timeout: 3000 });
    await patiently(() => store.ready());
    await admin.unsafe(`
      create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.001); return new; end $$;
      create trigger slow before insert on "${table}" for each row execute function slow()`);
    const codes: Record<string, number> = {};
    let pending = 0;
    let most = 0;
    let made = 0;
    // Goes on until far fewer calls wait than were answered or given up. It would never end if they
    // piled up.
    while (made < 20_000 || made < 3 * most) {
      // 10,000 calls a second; the server takes about 1,000.
      await sleep(20);
      for (let n = 0; n < 200; n++, made++) {
        most = Math.max(most, ++pending);
        const count = (code: string) => {
          pending--;
          codes[code] = (codes[code] ?? 0) + 1;
        };
        store.set(`s${made}`, plain()).then(
          () => count('answered'),
          (error) => count(error.code),
        );
      }
    }
    await eventually(() => pending === 0);
    const { answered = 0, TIMEOUT = 0, ...others } = codes;
    assert.deepEqual(others, {});
    assert.equal(answered + TIMEOUT, made);
    // What the server did was not in vain.
    const [{ rows }] = await admin`select count(*)::int as rows from ${admin(table)}`;
    assert(answered > rows / 2, `${answered} calls answered, ${rows} rows written`);
    const later = await Promise.allSettled(Array.from({ length: 50 }, (_, n) => store.set(`later${n}`, plain())));
    assert.deepEqual(new Set(later.map(({ status }) => status)), new Set(['fulfilled']));
  });

  it('close() on SIGTERM with calls in flight: what was accepted is in the table, and the process ends', async () => {
    const table = freshTable();
    const proxy = await FaultProxy.start(() => server.port);
    const ended = runNode(
      `
      import { PgStore } from './lib/index.js';
      const store = new PgStore({ uri: '${proxy.uri}', table: '${table}', timeout: 60_000 });
      await store.ready();
      process.stdin.once('data', () => {
        let answered = 0;
        for (let n = 0; n < 1000; n++) store.set('s' + n, { cookie: {}, n }).then(() => answered++);
        process.once('SIGTERM', async () => {
          const closed = store.close();
          console.log('closing');
          const refused = await store.set('late', { cookie: {} }).catch((error) => error.code);
          await closed;
          console.log(JSON.stringify({ answered, refused }));
        });
        process.stdin.destroy();
        console.log('made');
      });
      console.log('ready');`,
      {
        started: (child) => {
          let output = '';
          child.stdout?.on('data', (text) => {
            const before = output;
            output += text;
            const says = (word: string) => output.includes(word) && !before.includes(word);
            if (says('ready')) {
              proxy.silence();
              child.stdin?.write('go');
            }
            // Deno says of a child that `child.kill` was called on that it died of the signal.
            if (says('made')) process.kill(child.pid as number, 'SIGTERM');
            if (says('closing')) proxy.resume();
          });
        },
      },
    );
    const { code, stdout, stderr } = await ended;
    await proxy.close();
    assert.equal(code, 0, stderr);
    assert.deepEqual(JSON.parse(stdout.trim().split('\n').at(-1) ?? ''), { answered: 1000, refused: 'CLOSED' });
    const [{ rows }] = await admin`select count(*)::int as rows from ${admin(table)}`;
    assert.equal(rows, 1000);
  });

  it('app servers whose clocks are an hour off: no session ends early or lives on, none is deleted early', async () => {
    const table = freshTable();
    const ours = await openStore({ uri: server.uri, table });
    // An hour is three times as long as these sessions live; the processes below may take minutes
    // to start.
    const minutes = 20;
    const maxAge = minutes * 60_000;
    await ours.set('ours', plain({}, maxAge));
    await ours.set('over', plain({}, maxAge));
    await admin`
      update ${admin(table)} set (expires_at, delete_after) = row(now() - interval '1 second', now() - interval '1 second')
      where sid = 'over'`;
    const onServer = (hours: number, code: string) =>
      runNode(`
        const Real = Date, shift = ${hours} * 3600e3;
        globalThis.Date = class extends Real {
          constructor(...given) { if (given.length > 0) super(...given); else super(Real.now() + shift); }
          static now() { return Real.now() + shift; }
        };
        const { PgStore } = await import('./lib/index.js');
        const store = new PgStore({ uri: '${server.uri}', table: '${table}' });
        const session = (maxAge) => ({ cookie: { originalMaxAge: maxAge, expires: new Date(Date.now() + maxAge).toISOString() } });
        ${code}
        await store.close();`);
    const made = await Promise.all(
      [1, -1].map((hours) => onServer(hours, `await store.set('at ${hours}', session(${maxAge}));`)),
    );
    for (const { code, stderr } of made) assert.equal(code, 0, stderr);
    const seen = await Promise.all(
      [1, -1].map((hours) =>
        onServer(
          hours,
          `const left = {};
          for (const sid of ['ours', 'over', 'at 1', 'at -1']) {
            const found = await store.get(sid);
            left[sid] = found && Math.round((new Date(found.cookie.expires) - Date.now()) / ${maxAge});
            if (found) await store.touch(sid, session(${maxAge}));
          }
          console.log(JSON.stringify(left));`,
        ),
      ),
    );
    for (const { stdout } of seen) {
      assert.deepEqual(JSON.parse(stdout), { ours: 1, over: null, 'at 1': 1, 'at -1': 1 });
    }
    const deleting = await onServer(1, 'console.log(await store.autodelete());');
    assert.equal(deleting.stdout.trim(), '1');
    const rows = await admin`
      select sid, round(extract(epoch from expires_at - now()) / ${minutes * 60})::int as left from ${admin(table)} order by sid`;
    assert.deepEqual(
      [...rows],
      [
        { sid: 'at -1', left: 1 },
        { sid: 'at 1', left: 1 },
        { sid: 'ours', left: 1 },
      ],
    );
  });
});
