/**
 * No value, session ID, cookie or row can crash the process, hang, fail another call or reach
 * another session.
 */

import assert from 'node:assert/strict';
import { sign } from 'cookie-signature';
import express from 'express';
import session from 'express-session';
import fc from 'fast-check';
import request from 'supertest';
import { PgStoreError } from '../../lib/index.js';
import { parseOptions } from '../../lib/options.js';
import { Codec } from '../../lib/session/codec.js';
import { closeStores, freshTable, openStore, sqlClient } from '../support/postgres.js';
import { load, plain } from '../support/sessions.js';

describe('hostile input', () => {
  afterEach(closeStores);

  /**
   * The session without its cookie, as text: compares keys in their order, `__proto__` among them.
   */
  const textOf = ({ cookie: _, ...data }: any) => JSON.stringify(data);

  it('10,000 values by property: `get` after `set` answers JSON.parse(JSON.stringify(value)), as MemoryStore does', async () => {
    const store = await openStore();
    const memory = new session.MemoryStore();
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      // Any UTF-16, halves of surrogate pairs among them.
      fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 8 }).map((codes) => String.fromCharCode(...codes)),
      fc.constantFrom(
        '',
        '__proto__',
        'constructor',
        'toString',
        'hasOwnProperty',
        '\0',
        '\\u0000',
        '"',
        "'",
        '{}',
        'NULL',
      ),
    );
    const value = fc.object({
      key: text,
      values: [
        text,
        fc.double(),
        fc.integer(),
        fc.boolean(),
        fc.constantFrom(null, undefined, Number.NaN, Number.POSITIVE_INFINITY, -0, 1e308, 5e-324, 2 ** 53),
      ],
      maxDepth: 4,
      maxKeys: 6,
      withDate: true,
      withMap: true,
      withNullPrototype: true,
      withSparseArray: true,
    });
    let values = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(value, { minLength: 500, maxLength: 500, size: 'max' }), async (sessions) => {
        values += sessions.length;
        const given = sessions.map((data: any) => ({ ...data, cookie: { path: '/', originalMaxAge: null } }));
        await Promise.all(given.map((each, n) => store.set(`s${n}`, each)));
        const found = await Promise.all(given.map((_, n) => store.get(`s${n}`)));
        for (const [n, each] of given.entries()) {
          const expected = textOf(JSON.parse(JSON.stringify(each)));
          assert.equal(textOf(found[n]), expected);
          memory.set('sid', each);
          const inMemory = await new Promise((resolve) => memory.get('sid', (_, found) => resolve(found)));
          assert.equal(textOf(inMemory), expected);
        }
      }),
      { numRuns: 20, endOnFailure: true },
    );
    assert(values >= 10_000);
  });

  /** Calls beside the hostile one, in its tick and so in its batch: none may notice. */
  async function beside<T>(store: Awaited<ReturnType<typeof openStore>>, hostile: () => Promise<T>) {
    const sids = ['n1', 'n2', 'n3'];
    const around = (sid: string) => store.set(sid, plain({ sid }));
    const before = sids.map(around);
    const [answer] = await Promise.allSettled([hostile()]);
    await Promise.all(before);
    const found = await Promise.all(sids.map((sid) => store.get(sid)));
    assert.deepEqual(
      found.map((session: any) => session?.sid),
      sids,
    );
    if (answer.status === 'rejected') assert(answer.reason instanceof PgStoreError, String(answer.reason));
    return answer;
  }

  const nested = (depth: number) => {
    let value: any = {};
    for (let n = 0; n < depth; n++) value = { value };
    return value;
  };
  const cycle: any = {};
  cycle.cycle = cycle;

  for (const [name, data] of Object.entries<Record<string, unknown>>({
    'NUL characters': { '\0': '\0', text: 'a\0b' },
    'halves of surrogate pairs': { '\ud800': '\udc00', text: 'a\ud83d' },
    '`__proto__` as a key': JSON.parse('{"__proto__": {"admin": true}, "constructor": {"prototype": {"admin": true}}}'),
    'empty keys': { '': { '': '' } },
    'a string of 5 MB': { text: 'ä'.repeat(5_000_000 / 2) },
    'NaN and infinities': { a: Number.NaN, b: Number.POSITIVE_INFINITY, c: -0 },
    'dates, also invalid ones': { a: new Date(0), b: new Date(Number.NaN), c: new Date(8.64e15) },
    toJSON: { secret: { toJSON: () => 'shown' }, none: { toJSON: () => undefined } },
    'functions and symbols': { f: () => 1, s: Symbol('s'), u: undefined },
    'SQL and array syntax': { a: "'; drop table sessions; --", b: '{"a",NULL}', c: '\\', d: '$1', e: '%s' },
    'the text of an envelope': { a: `"${'A'.repeat(100)}"` },
    '1,000 levels': nested(1000),
  })) {
    it(`value: ${name}`, async () => {
      const store = await openStore();
      const answer = await beside(store, () => store.set('sid', plain(data)));
      assert.equal(answer.status, 'fulfilled', String((answer as any).reason));
      const found: any = await store.get('sid');
      assert.equal(textOf(found), textOf(JSON.parse(JSON.stringify(plain(data)))));
      assert.equal(({} as any).admin, undefined);
      // And again by the other way: loaded, changed, merged.
      const [one, two] = [await load(store, 'sid'), await load(store, 'sid')];
      assert(one && two);
      one.added1 = 1;
      two.added2 = 2;
      await Promise.all([store.set('sid', one), store.set('sid', two)]);
      const { added1, added2, ...rest }: any = await store.get('sid');
      assert.deepEqual([added1, added2], [1, 2]);
      assert.equal(textOf(rest), textOf(found));
    });
  }

  for (const [name, data] of Object.entries<Record<string, unknown>>({
    BigInt: { n: 1n },
    'a cycle': cycle,
    '100,000 levels': nested(100_000),
    'a getter that throws': {
      get a() {
        throw new Error('no');
      },
    },
    'a toJSON that throws': {
      toJSON() {
        throw new Error('no');
      },
    },
    'a toJSON that returns nothing': { toJSON() {} },
  })) {
    it(`value without a JSON form: ${name} is an error to that call, and leaves the session as it was`, async () => {
      const store = await openStore();
      await store.set('sid', plain({ kept: true }));
      const hostile = Object.defineProperties(plain(), Object.getOwnPropertyDescriptors(data));
      const answer = await beside(store, async () => store.set('sid', hostile));
      assert.equal(answer.status, 'rejected');
      assert.match((answer as any).reason.message, /^PgStore\.set: /);
      const byCallback: any = await new Promise((resolve) => store.set('sid', hostile, resolve));
      assert(byCallback instanceof PgStoreError);
      assert.equal(((await store.get('sid')) as any).kept, true);
    });
  }

  for (const [name, sid] of Object.entries({
    empty: '',
    '10,000 equal characters': 'x'.repeat(10_000),
    '10,000 different characters': Array.from({ length: 10_000 }, (_, n) =>
      String.fromCharCode(33 + ((n * n * 7919) % 9000)),
    ).join(''),
    'a NUL character': 'n1\0',
    quotes: `n1'"\`$$`,
    'array syntax': '{n1,"n2",NULL}',
    'a pattern': 'n%',
    'non-ASCII': 'ключ-鍵-🔑',
    'half a surrogate pair': 'n1\ud800',
    'the last code point': '\u{10ffff}'.repeat(500),
    'the separator of a row’s columns': '\x1fn1\x1f\x1f',
    'a path': '../../etc/passwd',
    'the name of a property': '__proto__',
  })) {
    for (const [how, options] of Object.entries({
      '': {},
      ', signed': { secret: 'a secret' },
      ', hashed': { hashIds: true },
    })) {
      it(`session ID: ${name}${how}`, async () => {
        const store = await openStore(options);
        const answer = await beside(store, () => store.set(sid, plain({ mine: true })));
        const found: any = await store.get(sid).catch((error) => error);
        if (answer.status === 'fulfilled') {
          assert.equal(found.mine, true);
          assert.equal(await store.length(), 4);
          assert.equal((await store.all()).filter(({ mine }: any) => mine).length, 1);
        } else {
          assert.equal(found, null);
          assert.doesNotMatch(String((answer.reason as Error).message), /n1|x{20}/);
        }
        await store.touch(sid, plain());
        await beside(store, () => store.destroy(sid));
        assert.equal(await store.get(sid), null);
        assert.equal(await store.length(), 3);
      });
    }
  }

  for (const [name, cookie] of Object.entries<unknown>({
    empty: {},
    'an invalid date': { expires: new Date(Number.NaN) },
    'a date that is none': { expires: 'tomorrow', originalMaxAge: 'x' },
    'the year 275760': { expires: new Date(8.64e15), originalMaxAge: 8.64e15 },
    'the year 1970': { expires: new Date(0), originalMaxAge: -1 },
    'the year -271821': { expires: new Date(-8.64e15) },
    'maxAge of NaN': { maxAge: Number.NaN, expires: null },
    'maxAge without end': { maxAge: Number.POSITIVE_INFINITY, originalMaxAge: Number.POSITIVE_INFINITY },
    'expires of a wrong type': { expires: { toISOString: 1 } },
    'hostile texts': { path: '/\0\ud800', domain: "';--" },
  })) {
    it(`cookie: ${name}`, async () => {
      const store = await openStore();
      const hostile: any = { ...plain({ n: 1 }), cookie };
      await beside(store, () => store.set('sid', hostile));
      const found: any = await store.get('sid');
      assert(found === null || found.n === 1);
      if (found) {
        // As express-session uses it.
        const loaded: any = store.createSession({ sessionID: 'sid', sessionStore: store } as any, found);
        loaded.touch();
        JSON.stringify(loaded);
        await beside(store, () => store.touch('sid', loaded));
        await beside(store, () => store.set('sid', loaded));
      }
      await store.destroy('sid');
    });
  }

  describe('rows changed by hand', () => {
    const json = ['null', 'true', '1', '"text"', '[]', '[1]', '{}', '{"cookie": 5}', '{"id": 1, "req": 2, "save": 3}'];
    const changes = [
      ...json.map((text) => `data = '${text}'`),
      ...json.map((text) => `cookie = '${text}'`),
      `cookie = '{"expires": "garbage", "originalMaxAge": "x"}'`,
      `cookie = '{"expires": true, "originalMaxAge": null}'`,
      `cookie = '{"__proto__": {"admin": true}}'`,
      'cookie = null',
      'version = 0',
      'version = -7',
      'version = 2147483647',
      `expires_at = 'infinity'`,
      `expires_at = '-infinity'`,
      `delete_after = 'infinity'`,
      `delete_after = '-infinity'`,
      `cookie_expires = 'infinity'`,
      `cookie_expires = 'NaN'`,
      'cookie_expires = -1e300',
      `created_at = 'infinity', updated_at = '-infinity'`,
      ...['data', 'version', 'created_at', 'updated_at', 'expires_at', 'delete_after'].map(
        (column) => `${column} = null`,
      ),
    ];
    for (const encryptionKey of [undefined, 'an encryption key for specs']) {
      for (const change of changes) {
        it(`${change}${encryptionKey ? ', with encryption' : ''}`, async () => {
          const table = freshTable();
          // A row without a version is never saved: those calls end by `timeout`.
          const timeout = change === 'version = null' ? 2000 : 10_000;
          const store = await openStore({ table, ...(encryptionKey && { encryptionKey }), timeout });
          const sql = await sqlClient();
          await store.set('victim', plain({ n: 1 }));
          await store.set('sid', plain({ n: 1, passport: { user: 'u' } }));
          for (const column of ['data', 'version', 'created_at', 'updated_at', 'expires_at', 'delete_after']) {
            await sql`alter table ${sql(table)} alter column ${sql(column)} drop not null`;
          }
          const held = await load(store, 'sid');
          await sql.unsafe(`update "${table}" set ${change} where sid = 'sid'`);
          const [found, victim]: any[] = await Promise.all([store.get('sid'), store.get('victim')]);
          assert.equal(victim.n, 1);
          if (found?.cookie !== undefined) {
            const loaded: any = store.createSession({ sessionID: 'sid', sessionStore: store } as any, found);
            loaded.changed = true;
            await beside(store, () => store.set('sid', loaded));
          }
          if (held) {
            held.more = true;
            await beside(store, () => store.touch('sid', held));
            await beside(store, () => store.set('sid', held));
          }
          await Promise.all([store.all(), store.ids(), store.sessionsOf('u'), store.length(), store.autodelete()]);
          // A new session under that ID is always possible, and the row can always go.
          await store.set('sid', plain({ fresh: true }));
          assert.equal(((await store.get('sid')) as any)?.fresh, true);
          await store.destroy('sid');
          assert.equal(await store.get('sid'), null);
          assert.equal(((await store.get('victim')) as any).n, 1);
        });
      }
    }

    for (const encryptionKey of [undefined, 'an encryption key for specs']) {
      it(`what is no session${encryptionKey ? ', encrypted' : ''}: none for every call, event unreadable, no error`, async () => {
        const table = freshTable();
        const options = { table, user: () => 'u', ...(encryptionKey && { encryptionKey }) };
        const store = await openStore(options);
        const codec = new Codec(parseOptions(options));
        const unreadable: string[] = [];
        store.on('unreadable', (_handle, why) => unreadable.push(why));
        const sql = await sqlClient();
        const cookie = JSON.stringify(plain().cookie);
        const data = ['null', 'true', '42', '"text"', '[1]', '[]'].map((text) => [
          text,
          cookie,
          'the data is not an object',
        ]);
        const cookies = ['null', 'true', '42', '"text"', '[]'].map((text) => [
          '{}',
          text,
          'the cookie is not an object',
        ]);
        for (const [text, json, why] of [...data, ...cookies]) {
          await store.set('sid', plain({ n: 1 }));
          await store.set('other', plain({ n: 2 }));
          await sql`update ${sql(table)} set data = ${codec.seal('sid', String(text))}::text::json,
            cookie = ${json ?? null}::text::json where sid = 'sid'`;
          unreadable.length = 0;
          const [found, loaded, all, listed] = await Promise.all([
            store.get('sid'),
            load(store, 'sid'),
            store.all(),
            store.sessionsOf('u'),
          ]);
          assert.deepEqual([found, loaded, all.length, listed.length], [null, undefined, 1, 1]);
          await new Promise(setImmediate);
          assert.deepEqual(unreadable, [why, why, why, why]);
          assert.equal(await store.length(), 2);
        }
        const app = express();
        app.use(session({ store, secret: 's', resave: false, saveUninitialized: false }));
        app.get('/', (request, response) => void response.json((request.session as any).n ?? null));
        const signed = `connect.sid=${encodeURIComponent(`s:${sign('sid', 's')}`)}`;
        await request(app).get('/').set('Cookie', signed).expect(200, 'null');
      });
    }

    it('a data column of another type, with text that is no JSON: no session, and an event says so', async () => {
      const table = freshTable();
      const store = await openStore({ table });
      const sql = await sqlClient();
      await store.set('sid', plain({ n: 1 }));
      await store.set('victim', plain({ n: 1 }));
      await sql`alter table ${sql(table)} alter column data type text`;
      const unreadable: unknown[][] = [];
      store.on('unreadable', (...told) => unreadable.push(told));
      for (const text of ['', '{"n":', 'undefined', '{"secret":"shown"', '\u0001']) {
        await sql`update ${sql(table)} set data = ${text} where sid = 'sid'`;
        const [found, victim]: any[] = await Promise.all([store.get('sid'), store.get('victim')]);
        assert.equal(found, null);
        assert.equal(victim.n, 1);
        assert.equal((await store.all()).length, 1);
      }
      await new Promise(setImmediate);
      assert.equal(unreadable.length, 10);
      assert.doesNotMatch(JSON.stringify(unreadable), /secret|shown|"sid"/);
    });
  });
});
