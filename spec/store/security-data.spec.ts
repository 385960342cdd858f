/** Only the encryption key reads and changes a session's data, and stored data can do no harm. */

import assert from 'node:assert/strict';
import { execSync } from 'node:child_process';
import { setImmediate as immediate } from 'node:timers/promises';
import type { Sql } from 'postgres';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { documented } from '../support/docs.js';
import { closeStores, freshTable, openStore, shardColumn, shardValue, sqlClient } from '../support/postgres.js';
import { data, loaded, plain } from '../support/sessions.js';

const [KEY, NEWER] = ['an encryption key of some length', 'the one that comes after it'];

/** The store's `unreadable` events: emitted in the tick after the call that met them. */
function unreadable(store: PgStore): [handle: string, why: string][] {
  const told: [string, string][] = [];
  store.on('unreadable', (...args) => void told.push(args));
  return told;
}

describe('data at rest', () => {
  let sql: Sql;
  let table: string;
  const open = (options: PgStoreOptions = {}) => openStore({ table, touchAfter: 0, ...options });
  const column = async (sid: string) =>
    (await sql`select data::text from ${sql(table)} where sid = ${sid}`)[0]?.data as string;
  const put = (sid: string, text: string) =>
    sql`update ${sql(table)} set data = ${text}::text::json where sid = ${sid}`;

  beforeEach(async () => {
    sql = await sqlClient();
    table = freshTable();
  });
  afterEach(closeStores);

  describe('encrypted', () => {
    it('shows nothing of the data in the table, and user_id still', async () => {
      const store = await open({ encryptionKey: KEY });
      await store.set('a', plain({ passport: { user: 7 }, card: '4111-1111' }));
      const mine = await loaded(store, 'a');
      mine.card = '4222-2222';
      await store.set('a', mine);
      const [row] = await sql`select *, data::text as text from ${sql(table)}`;
      assert.match(row?.text, /^"[\w-]+"$/);
      assert.doesNotMatch(JSON.stringify(row), /card|4222|passport/);
      assert.equal(row?.user_id, '7');
      const [listed] = await store.sessionsOf(7);
      assert.equal((listed as any).session.card, '4222-2222');
      assert.equal((await store.all()).length, 1);
    });

    it('reads a row that an earlier version wrote', async () => {
      const store = await open({ encryptionKey: 'correct horse battery staple' });
      await store.ready();
      // The first vector of encryption.spec.ts.
      await sql`insert into ${sql(table)} (${sql.unsafe(shardColumn)}sid, data, cookie, expires_at, delete_after)
        values (${sql.unsafe(shardValue('abc'))}'abc',
        '"AShhiKAAAQIDBAUGBwgJCgu6lz3asEB07LXXkKoZEs9zSYlzoXuPTv5ynfKmIlU"', '{"path":"/"}', now() + interval '1 hour', now() + interval '1 hour')`;
      assert.deepEqual(await data(store, 'abc'), { user: 'ann' });
    });

    it('a changed, cut, replaced or plain column is no session, and an event says so', async () => {
      const store = await open({ encryptionKey: KEY });
      const stranger = await open({ encryptionKey: NEWER });
      await stranger.set('a', plain());
      const strange = await column('a');
      await store.set('a', plain({ n: 1 }));
      const good = await column('a');
      const swap = (at: number) => `${good.slice(0, at)}${good[at] === 'A' ? 'B' : 'A'}${good.slice(at + 1)}`;
      const bad = Array.from({ length: good.length - 2 }, (_, n) => swap(n + 1));
      bad.push('""', '{"n":1}', '1', 'null', '[]', ` ${good}`, `${good} `, strange);
      bad.push(`${good.slice(0, -1)}="`, `"\\u0041${good.slice(2)}`);
      for (const cut of [1, 2, 3, 10, good.length - 20]) bad.push(`${good.slice(0, -1 - cut)}"`);
      const told = unreadable(store);
      for (const text of bad) {
        await put('a', text);
        assert.equal(await store.get('a'), null, text);
        assert.deepEqual(await store.all(), [], text);
      }
      await immediate();
      assert.equal(told.length, bad.length * 2);
      for (const [handle, why] of told) {
        assert.equal(handle, handleOf('a'));
        assert.doesNotMatch(why, /["{]|AQ/);
      }
      await put('a', good);
      assert.deepEqual(await data(store, 'a'), { n: 1 });
    });

    it('data moved to another row, or a row moved to another key, is no session', async () => {
      const store = await open({ encryptionKey: KEY, user: (session) => (session as any).user });
      await store.set('admin', plain({ user: 'admin' }));
      await store.set('eve', plain({ user: 'eve' }));
      const told = unreadable(store);
      await sql`update ${sql(table)} e set data = a.data, user_id = 'admin' from ${sql(table)} a
        where e.sid = 'eve' and a.sid = 'admin'`;
      assert.equal(await store.get('eve'), null);
      assert.deepEqual(
        (await store.sessionsOf('admin')).map(({ session }) => (session as any).user),
        ['admin'],
      );
      await sql`update ${sql(table)} set sid = 'other:admin' where sid = 'admin'`;
      assert.equal(await (await open({ encryptionKey: KEY, prefix: 'other:' })).get('admin'), null);
      await immediate();
      assert.equal(told.length, 2);
    });

    it('a request whose row became unreadable fails to save, and changes nothing', async () => {
      const store = await open({ encryptionKey: KEY });
      await store.set('a', plain({ n: 1 }));
      const mine = await loaded(store, 'a');
      await sql`update ${sql(table)} set data = '{"n":666}', version = version + 1`;
      mine.n = 2;
      await assert.rejects(store.set('a', mine), {
        code: 'UNREADABLE',
        message: /^PgStore\.set: the row cannot be read/,
      });
      assert.equal(await column('a'), '{"n":666}');
      assert.equal(await store.get('a'), null);
    });

    it('keeps what parallel requests in two processes change', async () => {
      const stores = [await open({ encryptionKey: KEY }), await open({ encryptionKey: KEY })];
      for (let round = 0; round < 5; round++) {
        const sid = `s${round}`;
        await stores[0]?.set(sid, plain({ basket: { base: 1 } }));
        const requests = Array.from({ length: 20 }, async (_, n) => {
          const store = stores[n % 2] as PgStore;
          const mine = await loaded(store, sid);
          mine[`top${n}`] = n;
          mine.basket[`nested${n}`] = n;
          await store.set(sid, mine);
        });
        await Promise.all(requests);
        const all = (await data(stores[1] as PgStore, sid)) as Record<string, any>;
        assert.equal(Object.keys(all).length, 21);
        assert.equal(Object.keys(all.basket).length, 21);
      }
    });
  });

  describe('turned on', () => {
    it('finds plain rows unreadable, unless allowPlaintext says otherwise', async () => {
      const before = await open();
      await before.set('a', plain({ n: 1 }));
      const strict = await open({ encryptionKey: KEY });
      const told = unreadable(strict);
      assert.equal(await strict.get('a'), null);
      assert.deepEqual(await strict.all(), []);
      await immediate();
      assert.deepEqual(told.slice(0, 1), [[handleOf('a'), 'the data is not encrypted']]);
      assert.deepEqual(await data(await open({ encryptionKey: KEY, allowPlaintext: true }), 'a'), { n: 1 });
    });

    it('encrypts plain rows at their next save, changed or not', async () => {
      const before = await open();
      await before.set('changed', plain({ n: 1 }));
      await before.set('unchanged', plain({ n: 1 }));
      await before.set('replaced', plain({ n: 1 }));
      const change = await open({ encryptionKey: KEY, allowPlaintext: true });
      const mine = await loaded(change, 'changed');
      mine.n = 2;
      await change.set('changed', mine);
      await change.set('unchanged', await loaded(change, 'unchanged'));
      await change.set('replaced', plain({ n: 3 }));
      const strict = await open({ encryptionKey: KEY });
      assert.deepEqual(await data(strict, 'changed'), { n: 2 });
      assert.deepEqual(await data(strict, 'unchanged'), { n: 1 });
      assert.deepEqual(await data(strict, 'replaced'), { n: 3 });
      const [count] = await sql`select count(*)::integer as plain from ${sql(table)} where data::text not like '"%'`;
      assert.equal(count?.plain, 0);
    });

    it('with `write`, reads both kinds of rows and writes plain ones', async () => {
      await (await open()).set('plain', plain({ n: 1 }));
      await (await open({ encryptionKey: KEY })).set('encrypted', plain({ n: 1 }));
      const store = await open({ encryptionKey: KEY, allowPlaintext: 'write' });
      for (const sid of ['plain', 'encrypted']) {
        const mine = await loaded(store, sid);
        await store.set(sid, mine);
        assert.equal(await column(sid), '{"n":1}');
        mine.n = 2;
        await store.set(sid, mine);
        assert.equal(await column(sid), '{"n":2}');
      }
    });

    for (const [what, before, after] of [
      ['a first `encryptionKey`', {}, { encryptionKey: KEY }],
      ['a new one', { encryptionKey: KEY }, { encryptionKey: NEWER }],
    ] as const) {
      it(`${what} in one step is an error to a request of the old process whose session a new process saved`, async () => {
        const [old, next] = [await open(before), await open({ ...after, allowPlaintext: 'encryptionKey' in after })];
        await old.set('a', plain({ n: 1 }));
        const mine = await loaded(old, 'a');
        await next.set('a', plain({ n: 2 }));
        mine.late = 1;
        const told = unreadable(old);
        await assert.rejects(old.set('a', mine), { code: 'UNREADABLE' });
        await immediate();
        assert.equal(told.length, 1);
        assert.deepEqual(await data(next, 'a'), { n: 2 });
      });
    }

    it('and off again, encrypted rows are no sessions', async () => {
      await (await open({ encryptionKey: KEY })).set('a', plain());
      assert.equal(await (await open()).get('a'), null);
    });
  });

  describe('a new key', () => {
    it('reads rows of the old one; the next save encrypts them anew, changed or not', async () => {
      const before = await open({ encryptionKey: KEY });
      for (const sid of ['read', 'changed', 'unchanged']) await before.set(sid, plain({ n: 1 }));
      const rotated = await open({ encryptionKey: [NEWER, KEY] });
      assert.deepEqual(await data(rotated, 'read'), { n: 1 });
      const mine = await loaded(rotated, 'changed');
      mine.n = 2;
      await rotated.set('changed', mine);
      await rotated.set('unchanged', await loaded(rotated, 'unchanged'));
      const after = await open({ encryptionKey: NEWER });
      const told = unreadable(after);
      assert.deepEqual(await data(after, 'changed'), { n: 2 });
      assert.deepEqual(await data(after, 'unchanged'), { n: 1 });
      assert.equal(await after.get('read'), null);
      await immediate();
      assert.deepEqual(told, [[handleOf('read'), 'encrypted with a key that is not in `encryptionKey`']]);
    });

    it('writes nothing more once the row has it', async () => {
      const store = await open({ encryptionKey: [NEWER, KEY] });
      await store.set('a', plain({ n: 1 }));
      const before = await column('a');
      await store.set('a', await loaded(store, 'a'));
      assert.equal(await column('a'), before);
    });

    it('loses no write while both orders of keys and secrets are in use', async () => {
      const one = await open({ encryptionKey: [NEWER, KEY], secret: ['new', 'old'] });
      const two = await open({ encryptionKey: [KEY, NEWER], secret: ['old', 'new'] });
      const sids = Array.from({ length: 30 }, (_, n) => `s${n}`);
      await Promise.all(sids.map((sid) => two.set(sid, plain({ base: 1 }))));
      await Promise.all(
        sids.flatMap((sid) =>
          Array.from({ length: 6 }, async (_, n) => {
            const store = n % 2 ? one : two;
            const mine = await loaded(store, sid);
            mine[`key${n}`] = n;
            await store.set(sid, mine);
          }),
        ),
      );
      for (const sid of sids) assert.equal(Object.keys((await data(one, sid)) ?? {}).length, 7, sid);
      assert.equal(await one.length(), sids.length);
    });

    it('goes with a new secret: the row key changes, and the data with it', async () => {
      await (await open({ encryptionKey: KEY, secret: 'old', hashIds: true })).set('a', plain({ n: 1 }));
      const store = await open({ encryptionKey: [NEWER, KEY], secret: ['new', 'old'], hashIds: true });
      await store.set('a', await loaded(store, 'a'));
      const after = await open({ encryptionKey: NEWER, secret: 'new', hashIds: true });
      assert.deepEqual(await data(after, 'a'), { n: 1 });
    });
  });

  it('what encryption leaves open is what SECURITY.md says: an old state of a row, its cookie, user and times', async () => {
    const store = await open({ encryptionKey: KEY, secret: 's', user: (session) => (session as any).user });
    await store.set('a', plain({ n: 1, user: 'ann' }));
    await sql`create table ${sql(`${table}_backup`)} as select * from ${sql(table)}`;
    await store.destroy('a');
    await sql`insert into ${sql(table)} select * from ${sql(`${table}_backup`)}`;
    await sql`drop table ${sql(`${table}_backup`)}`;
    await sql`update ${sql(table)} set user_id = 'eve', cookie = '{"path":"/","httpOnly":false}',
      expires_at = now() + interval '9 years'`;
    const found = await store.get('a');
    assert.equal((found as any).n, 1);
    assert.equal(found?.cookie.httpOnly, false);
    assert.deepEqual(await store.sessionsOf('ann'), []);
  });

  it('a ciphertext is bound to its row key and not to its table: so another app has a key of its own', async () => {
    const options = { secret: 's', prefix: 'p:', encryptionKey: KEY };
    await (await open(options)).set('a', plain({ n: 1 }));
    const copies = [freshTable(), freshTable()] as const;
    for (const copy of copies) await (await openStore({ ...options, table: copy })).ready();
    for (const copy of copies) await sql`insert into ${sql(copy)} select * from ${sql(table)}`;
    assert.deepEqual(await data(await openStore({ ...options, table: copies[0] }), 'a'), { n: 1 });
    for (const other of [{ encryptionKey: NEWER }, { secret: 'other' }, { prefix: 'q:' }]) {
      assert.equal(await (await openStore({ ...options, ...other, table: copies[1] })).get('a'), null);
    }
  });

  it('who can write `user_id` reads and changes no other user’s sessions through it, but ends them', async () => {
    const store = await open({ encryptionKey: KEY, user: (session) => (session as any).user });
    for (const user of ['ann', 'eve']) await store.set(user, plain({ user }));
    await sql`update ${sql(table)} set user_id = 'eve' where sid = 'ann'`;
    assert.deepEqual(
      (await store.sessionsOf('eve')).map(({ session }) => (session as any).user),
      ['eve'],
    );
    let changed = 0;
    await store.updateSessionsOf('eve', (session) => {
      assert.equal((session as any).user, 'eve');
      changed++;
    });
    assert.equal(changed, 1);
    assert.equal(await store.destroySessionsOf('ann'), 0);
    assert(await store.get('ann'));
    assert.equal(await store.destroySessionsOf('eve'), 2);
    assert.equal(await store.get('ann'), null);
  });

  describe('as docs/security.md shows it', () => {
    /** Runs a code block of the page, with these names. */
    const run = (text: string, names: Record<string, unknown>) => {
      const AsyncFunction = (async () => {}).constructor as FunctionConstructor;
      const code = documented('docs/security.md', 'js', text);
      return new AsyncFunction(...Object.keys(names), code)(...Object.values(names)) as Promise<void>;
    };
    const names = { oldSecret: 'old', newSecret: 'new', oldKey: KEY, newKey: NEWER, key: KEY };
    /** `new PgStore` in a code block opens a store here. */
    const opening = () => {
      const opened: Promise<PgStore>[] = [];
      class Opening {
        constructor(options: PgStoreOptions) {
          opened.push(open(options));
        }
      }
      return { opened, PgStore: Opening };
    };

    it('a key is generated, and all protections work together', async () => {
      const key = execSync(documented('docs/security.md', 'sh', 'randomBytes'), { encoding: 'utf8' }).trim();
      assert.equal(Buffer.from(key, 'base64').length, 32);
      const { opened, PgStore } = opening();
      await run('secret: process.env', { PgStore, process: { env: { STORE_SECRET: key, STORE_KEY: key } } });
      const [store] = await Promise.all(opened);
      assert(store);
      await store.set('a', plain({ n: 1 }));
      assert.deepEqual(await data(store, 'a'), { n: 1 });
    });

    for (const [what, block, options] of [
      ['a first key', "allowPlaintext: 'write'", {}],
      ['a new secret and key', 'secret: [oldSecret', { secret: 'old', encryptionKey: KEY }],
    ] as const) {
      it(`${what} in three steps, each beside the one before: no save fails, none is lost, no session ends`, async () => {
        const { opened, PgStore } = opening();
        const first = await open(options);
        await run(block, { PgStore, ...names });
        const steps = [first, ...(await Promise.all(opened))];
        const expected: Record<string, Record<string, number>> = { a: {}, b: {}, c: {} };
        await Promise.all(Object.keys(expected).map((sid) => first.set(sid, plain())));
        for (const [n, store] of steps.slice(1).entries()) {
          const sides = [steps[n] as PgStore, store];
          for (const [sid, saved] of Object.entries(expected)) {
            const requests = await Promise.all(sides.map((side) => loaded(side, sid)));
            for (const [side, request] of requests.entries())
              request[`step ${n}, ${side}`] = saved[`step ${n}, ${side}`] = n;
            await Promise.all(requests.map((request, side) => sides[side]?.set(sid, request)));
            for (const side of sides) assert.deepEqual(await data(side, sid), saved);
          }
          await run('of await store.ids()', { store });
        }
      });
    }

    it('a secret and a key change in three steps, without an end to any session', async () => {
      const before = await open({ secret: 'old', encryptionKey: KEY });
      for (const sid of ['a', 'b', 'c']) await before.set(sid, plain({ sid }));
      const { opened, PgStore } = opening();
      await run('new PgStore({ secret: [oldSecret', { PgStore, ...names });
      const [first, second, third] = (await Promise.all(opened)) as [PgStore, PgStore, PgStore];
      await first.set('d', plain({ sid: 'd' }));
      for (const store of [before, first, second]) {
        for (const sid of ['a', 'b', 'c', 'd']) assert.deepEqual(await data(store, sid), { sid });
      }
      assert.equal(await third.get('a'), null);
      await second.set('e', plain({ sid: 'e' }));
      assert.deepEqual(await data(first, 'e'), { sid: 'e' });
      const byKey = () =>
        sql.unsafe(documented('docs/security.md', 'sql', 'group by').replace('public.sessions', table));
      assert.deepEqual((await byKey()).map(({ count }) => Number(count)).sort(), [1, 4]);
      const parallel = await loaded(second, 'a');
      parallel.more = 1;
      await Promise.all([run('of await store.ids()', { store: second }), second.set('a', parallel)]);
      assert.deepEqual(
        (await byKey()).map(({ count }) => Number(count)),
        [5],
      );
      assert.deepEqual(await data(third, 'a'), { sid: 'a', more: 1 });
      for (const sid of ['b', 'c', 'd', 'e']) assert.deepEqual(await data(third, sid), { sid });
    });
  });

  describe('stored by an attacker', () => {
    const evil =
      '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"deep":{"__proto__":{"polluted":1}}}';

    it('changes no prototype, whatever reads, merges or lists it', async () => {
      const store = await open({ user: () => 'eve' });
      await store.set('a', plain({ x: 1 }));
      await sql`update ${sql(table)} set data = ${evil}::text::json,
        cookie = '{"path":"/","expires":true,"constructor":{"prototype":{"polluted":1}}}'`;
      const [one, two] = [await loaded(store, 'a'), await loaded(store, 'a')];
      one.one = { __proto: 1 };
      two.two = 2;
      two.deep.more = JSON.parse('{"__proto__":{"polluted":2}}');
      await Promise.all([store.set('a', one), store.set('a', two)]);
      await store.all();
      await store.sessionsOf('eve');
      for await (const _ of store.sessions());
      assert.equal(({} as any).polluted, undefined);
      assert.equal((one as any).polluted, undefined);
      const stored = JSON.parse(await column('a'));
      assert.deepEqual(Object.keys(stored).sort(), ['__proto__', 'constructor', 'deep', 'one', 'two']);
      assert.deepEqual(Object.keys(stored.deep).sort(), ['__proto__', 'more']);
    });
  });
});
