/**
 * Nothing that reaches logs shows a secret, a key, a password, a session ID or a session's data.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { setImmediate as immediate } from 'node:timers/promises';
import { inspect } from 'node:util';
import express from 'express';
import session from 'express-session';
import postgres, { type Sql } from 'postgres';
import request from 'supertest';
import { PgStore, type PgStoreOptions } from '../../lib/index.js';
import { patiently } from '../support/eventually.js';
import { freePort } from '../support/free-port.js';
import { closeStores, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { generated, load, plain } from '../support/sessions.js';

const SECRET = 'canary-secret';
const OLD_SECRET = 'canary-older-secret';
const KEY = 'canary-encryption-key';
const SID = 'canary-sid';
const DATA = 'canary-data';
const USER = 'canary-user';

/** Every way in which a value might be printed. */
function printed(value: unknown): string {
  const all = {
    showHidden: true,
    depth: Infinity,
    getters: true,
    maxArrayLength: null,
    maxStringLength: null,
  } as const;
  const texts = [inspect(value), inspect(value, all), String(value), inspect(reachable(value), all)];
  try {
    texts.push(JSON.stringify(value) ?? '', JSON.stringify(value, Object.getOwnPropertyNames(Object(value))) ?? '');
  } catch {
    // A cycle: JSON shows nothing of it.
  }
  return texts.join('\n');
}

/**
 * All texts and bytes that own properties lead to, whatever kind of property, and those of the
 * prototypes.
 */
function reachable(root: unknown): string[] {
  const texts: string[] = [];
  const seen = new Set<unknown>([Object.prototype, Function.prototype]);
  const queue = [root];
  while (queue.length > 0) {
    const value = queue.pop();
    if (typeof value === 'string') texts.push(value);
    if (value === null || (typeof value !== 'object' && typeof value !== 'function') || seen.has(value)) continue;
    seen.add(value);
    if (ArrayBuffer.isView(value)) texts.push(Buffer.from(value.buffer).toString('latin1'), 'bytes');
    if (value instanceof Map || value instanceof Set) queue.push(...[...value].flat());
    for (const key of Reflect.ownKeys(value)) {
      queue.push(typeof key === 'symbol' ? key.description : key);
      try {
        queue.push((value as any)[key]);
      } catch {
        // A getter that is not meant for this object.
      }
    }
    queue.push(Object.getPrototypeOf(value));
  }
  return texts;
}

function assertClean(what: string, value: unknown): void {
  const text = printed(value);
  const at = text.indexOf('canary');
  assert(at < 0, `${what}: …${text.slice(Math.max(0, at - 200), at + 200)}…`);
}

/** Collects all that the store tells, and prints. */
function listen(store: PgStore): unknown[] {
  const told: unknown[] = [];
  for (const event of ['autodelete', 'retry', 'unreadable', 'conflict', 'dropped'] as const) {
    store.on(event, (...args: unknown[]) => void told.push([event, ...args]));
  }
  return told;
}

describe('leaks', () => {
  let sql: Sql;
  let table: string;
  const open = (options: PgStoreOptions = {}) =>
    openStore({ table, touchAfter: 0, secret: [SECRET, OLD_SECRET], encryptionKey: KEY, user: () => USER, ...options });
  const session1 = () => plain({ value: DATA, [DATA]: 1 });

  beforeEach(async () => {
    sql = await sqlClient();
    table = freshTable();
  });
  afterEach(closeStores);

  it('finds what is there to be found', () => {
    for (const leak of [
      new Error('canary'),
      new Error('x', { cause: { canary: 1 } }),
      Object.defineProperty({}, 'hidden', { value: 'canary' }),
      { nested: [new Map([['k', { deep: 'canary' }]])] },
      {
        get it() {
          return 'canary';
        },
      },
      { [Symbol('canary')]: 1 },
    ]) {
      assert.throws(() => assertClean('leak', leak), { code: 'ERR_ASSERTION' });
    }
  });

  it('a store shows nothing of itself, at rest and at work', async () => {
    const role = freshTable();
    await sql.unsafe(`create role ${role} login superuser password 'canary-password'`);
    const uri = new URL(await postgresUri());
    Object.assign(uri, { username: role, password: 'canary-password' });
    const store = await open({ uri: uri.href, permanent: true });
    session({ store, secret: 'x', resave: false, saveUninitialized: false });
    assertClean('fresh', store);
    await store.set(SID, session1());
    const calls = [store.get(SID), store.set(SID, session1()), store.touch(SID, session1()), store.all()];
    assertClean('at work', store);
    assertClean('promises', calls);
    await Promise.all(calls);
    const mine = await load(store, SID);
    assertClean('with a loaded session', store);
    assert(mine);
    assert(!reachable(store).includes('bytes'), 'no keys as bytes either');
    assertClean('class', PgStore);
  });

  it('a store on the app’s client shows nothing of that client', async () => {
    const client = postgres(await postgresUri(), { connection: { application_name: 'canary' } });
    const store = await open({ sql: client });
    await store.set(SID, session1());
    assertClean('store', store);
    await store.close();
    await client.end();
  });

  it('what is shown to a user names sessions by handles', async () => {
    const store = await open();
    await store.set(SID, plain({ ok: true }));
    const [row] = await sql`select sid from ${sql(table)}`;
    const listed = await store.sessionsOf(USER);
    assert.equal(listed.length, 1);
    const text = printed(listed);
    assert(!text.includes(SID) && !text.includes(row?.sid));
    assert.equal(await store.get(listed[0]?.handle as string), null);
  });

  it('events name sessions by handles only', async () => {
    const store = await open();
    const told = listen(store);
    await store.set(SID, session1());
    const [one, two, three] = [await load(store, SID), await load(store, SID), await load(store, SID)];
    assert(one && two && three);
    await store.set(SID, Object.assign(one, { one: DATA }));
    await store.set(SID, Object.assign(two, { two: DATA }));
    await sql`update ${sql(table)} set data = '"canary-envelope"'`;
    assert.equal(await store.get(SID), null);
    await sql`update ${sql(table)} set data = '{"canary":1}', cookie = '{"canary":1}'`;
    assert.equal(await store.get(SID), null);
    await store.destroy(SID);
    await store.set(SID, Object.assign(three, { three: DATA }));
    await store.touch(SID, three);
    await immediate();
    const names = told.map(([event]: any) => event).sort();
    assert.deepEqual(names, ['conflict', 'dropped', 'dropped', 'unreadable', 'unreadable']);
    assertClean('events', told);
  });

  describe('errors', () => {
    /**
     * What a failed call gives; also prints what the store tells and writes to the console
     * meanwhile.
     */
    async function failureOf(what: string, call: Promise<unknown>): Promise<Error & { code: string }> {
      const error = await call.then(
        () => assert.fail(`${what} did not fail`),
        (error) => error,
      );
      assertClean(what, error);
      assert.match(error.message, /^PgStore\.\w+: /, what);
      return error;
    }

    it('of PostgreSQL: constraints, triggers, values, limits, rights', async () => {
      const store = await open({ encryptionKey: undefined, secret: undefined, retry: { attempts: 1 } });
      await store.ready();
      const told = listen(store);
      const guard = (body: string) =>
        sql.unsafe(`create or replace function ${table}_guard() returns trigger language plpgsql as
          $$ begin ${body} return new; end $$;`);
      await guard('');
      await sql.unsafe(
        `create trigger guard before insert or update on ${table} for each row execute function ${table}_guard()`,
      );
      const cases: Record<string, [body: string, code: string]> = {
        'a trigger': [`raise exception 'bad: % %', new.sid, new.data;`, 'P0001'],
        'a trigger with details': [`raise exception 'bad' using detail = new.data, hint = new.sid;`, 'P0001'],
        'a trigger with names': [
          `raise exception 'bad' using schema = new.data, table = new.sid, column = new.data, constraint = new.sid,
            datatype = new.sid;`,
          'P0001',
        ],
        'a trigger’s cast': [`perform (new.data->>'value')::integer;`, '22P02'],
        'a trigger’s notice': [
          `raise notice 'see %', new.data; raise unique_violation using message = new.sid;`,
          '23505',
        ],
        'a trigger’s dynamic SQL': [`execute 'select from ' || new.sid;`, '42601'],
        'a trigger’s dynamic column': [`execute format('select %I', new.sid);`, '42703'],
        'a trigger’s dynamic table': [`execute format('select from %I', new.sid);`, '42P01'],
        'a trigger’s dynamic function': [`execute format('select %I()', new.sid);`, '42883'],
        'a trigger’s dynamic schema': [`execute format('create table %I.a ()', new.sid);`, '3F000'],
        'a trigger’s dynamic type': [`execute format('select null::%I', new.sid);`, '42704'],
        'a trigger’s setting': [`perform current_setting(new.sid);`, '42704'],
        'a trigger’s file': [`perform pg_read_file(new.sid);`, '58P01'],
        'a trigger’s trigger': [`perform public.${table}_deeper(new.data);`, '42P01'],
      };
      await sql.unsafe(`create function ${table}_deeper(data json) returns void language plpgsql as
        $$ begin execute format('select from %I', data); end $$`);
      // Every class of PostgreSQL's Appendix A, those that the store passes on and retries among them.
      const classes =
        `01 02 03 08 09 0A 0B 0F 0L 0P 0Z 20 21 22 23 24 25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F 40 42 44 45 53 54
        55 57 58 72 F0 HV P0 XX`.split(/\s+/);
      const codes = classes.flatMap((start) => [`${start}000`, `${start}001`, `${start}P01`]);
      for (const code of ['42501', '53300', '57014', '58030', ...codes]) {
        cases[`a trigger with the code ${code}`] = [`raise 'bad: %', new.data using errcode = '${code}';`, code];
      }
      for (const [what, [body, code]] of Object.entries(cases)) {
        await guard(body);
        assert.equal((await failureOf(what, store.set(SID, session1()))).code, code, what);
        // As a batch, then each alone.
        const many = await Promise.allSettled(['1', '2', '3', '4'].map((n) => store.set(SID + n, session1())));
        for (const one of many)
          await failureOf(what, one.status === 'rejected' ? Promise.reject(one.reason) : Promise.resolve());
      }
      await sql.unsafe(`drop trigger guard on ${table}; drop function ${table}_guard()`);
      const expressions: Record<string, string> = {
        'to a table': 'sid::regclass is not null',
        'to a schema': 'sid::regnamespace is not null',
        'to a type': 'sid::regtype is not null',
        'to a function': 'sid::regprocedure is not null',
        'to a role': 'sid::regrole is not null',
        'to a query': `(sid || ' !')::tsquery is not null`,
        'to a setting': 'current_setting(sid) is not null',
        'to a unit of time': 'date_trunc(sid, now()) is not null',
        'to a file': 'pg_read_file(sid) is not null',
      };
      for (const [what, expression] of Object.entries(expressions)) {
        await sql.unsafe(`alter table ${table} add constraint odd check (${expression})`);
        await failureOf(`a constraint’s cast ${what}`, store.set(SID, session1()));
        await sql.unsafe(`alter table ${table} drop constraint odd`);
      }
      // What is wrong with the store's own statement is said.
      await sql.unsafe(`alter table ${table} rename column cookie to biscuit`);
      const renamed = await failureOf('a column', store.set(SID, session1()));
      assert.equal(renamed.code, '42703');
      assert.match(renamed.message, /^PgStore\.set: column .*cookie.* does not exist$/);
      await sql.unsafe(`alter table ${table} rename column biscuit to cookie`);
      await sql.unsafe(`alter table ${table} add constraint clean check (data::text not like '%canary%')`);
      assert.equal((await failureOf('a constraint', store.set(SID, session1()))).code, '23514');
      const long =
        SID + Array.from({ length: 3000 }, (_, n) => String.fromCodePoint(0x4e00 + ((n * 7919) % 20000))).join('');
      assert.equal((await failureOf('a long session ID', store.set(long, plain()))).code, 'INVALID_SID');
      await sql.unsafe(`drop table ${table}; create view ${table} as select 1 as sid`);
      await failureOf('a wrong table', store.set(SID, session1()));
      await sql.unsafe(`drop view ${table}`);
      assertClean('events', told);
    });

    it('of the app’s own making', async () => {
      const store = await open({ merge: () => undefined, ttl: () => Number.NaN, user: () => ({ canary: 1 }) as any });
      await failureOf('ttl', store.set(SID, { value: DATA } as any));
      await failureOf('user', store.set(SID, session1()));
      await failureOf('NUL', store.set(`${SID}\0`, session1()));
      await failureOf('half a pair', store.set(`${SID}\ud83d`, session1()));
      await failureOf('no session ID', store.set({ [SID]: 1 } as any, session1()));
      await failureOf('BigInt', store.set(SID, { value: DATA, big: 1n } as any));
      await failureOf('undefined', store.set(SID, undefined as any));
      await failureOf('except', store.destroySessionsOf(USER, { except: `${SID}\0` }));
      await failureOf('user type', store.sessionsOf({ [USER]: 1 } as any));
      const merging = await open({ merge: () => undefined });
      await merging.set(SID, session1());
      const [one, two] = [await load(merging, SID), await load(merging, SID)];
      await merging.set(SID, Object.assign(one as any, { one: 1 }));
      await failureOf('merge', merging.set(SID, Object.assign(two as any, { two: 1 })));
    });

    it('of a store in option `previous` that names its files by session IDs', async () => {
      const refuse = (_: string, callback: (error?: any) => void) => fs.readFile(`/dev/null/${SID}.json`, callback);
      const store = await open({ previous: { get: refuse as any, destroy: refuse } });
      assert.equal((await failureOf('get', store.get(SID))).code, 'ENOTDIR');
    });

    it('of the connection', async () => {
      const port = await freePort();
      const store = await open({
        uri: `postgres://canary-user:canary-password@127.0.0.1:${port}/canary-database`,
        retry: { attempts: 2, delay: 1 },
      });
      const told = listen(store);
      assert.equal((await failureOf('refused', store.set(SID, session1()))).code, 'ECONNREFUSED');
      await immediate();
      assert.equal(told.length, 1);
      assertClean('retry', told);
      await (await open()).ready();
      const waiting = await open({ timeout: 300 });
      await patiently(() => waiting.get(SID));
      await sql.begin(async (locking) => {
        await locking.unsafe(`lock table ${table} in access exclusive mode`);
        assert.equal((await failureOf('timeout', waiting.set(SID, session1()))).code, 'TIMEOUT');
      });
      await waiting.close();
      await failureOf('closed', waiting.get(SID));
    });

    it('of options: the password of a connection string is not quoted', () => {
      const password = 'canary-password';
      const bad: unknown[] = [
        `postgres://user:${password}@host/db`,
        { uri: `postgres://user:${password}@ho st/db` },
        { uri: `postgres://user:${password}%zz@host/db` },
        { uri: `postgres://user:${password}@host:99999/db` },
        { uri: `postgres://user:${password}@[/db` },
        { uri: `postgres://user:${password}\0@host/db` },
        { uri: [`postgres://user:${password}@host/db`] },
        { secret: { [SECRET]: 1 } },
        { secret: [SECRET, ''] },
        { encryptionKey: 'canary' },
        { encryptionKey: [KEY, 'canary'] },
        { postgres: SECRET },
        { sql: SECRET },
      ];
      for (const options of bad) {
        assert.throws(
          () => new PgStore(options as PgStoreOptions),
          (error: Error) => {
            assertClean(inspect(options), error);
            return error instanceof TypeError && error.message.startsWith('PgStore: ');
          },
        );
      }
    });

    it('on the page that Express shows in development', async () => {
      const store = await open();
      await store.ready();
      await sql.unsafe(`alter table ${table} add constraint no_rows check (sid is null)`);
      const app = express();
      app.set('env', 'development');
      app.use(session({ store, secret: SECRET, genid: () => SID, resave: false, saveUninitialized: false }));
      app.get('/', (req, res, next) => {
        (req.session as any).value = DATA;
        req.session.save((error) => (error ? next(error) : res.end()));
      });
      const errors: unknown[] = [];
      app.use(((error, _req, _res, next) => {
        errors.push(error);
        next(error);
      }) as express.ErrorRequestHandler);
      const { error } = console;
      const logged: unknown[] = [];
      console.error = (...args) => void logged.push(args);
      try {
        const page = await request(app).get('/').expect(500);
        assert.match(page.text, /PgStore\.set: PostgreSQL refused a value/);
        assertClean('page', page.text);
        // Express writes to the console after its answer.
        while (logged.length === 0) await immediate();
      } finally {
        console.error = error;
      }
      assert.equal(errors.length, 1);
      assertClean('error', errors);
      assertClean('console', logged);
    });
  });

  it('nothing is written to the console', async () => {
    const written: unknown[] = [];
    const methods = ['log', 'info', 'warn', 'error', 'debug', 'trace'] as const;
    const before = methods.map((method) => console[method]);
    for (const method of methods) console[method] = (...args: unknown[]) => void written.push(args);
    try {
      const store = await open();
      await store.set(SID, generated(store, SID, { value: DATA }));
      await sql.unsafe(`update ${table} set data = '1'`);
      await store.get(SID);
      await store.autodelete();
      await store.destroy(SID);
    } finally {
      for (const [n, method] of methods.entries()) console[method] = before[n] as () => void;
    }
    assert.deepEqual(written, []);
  });
});
