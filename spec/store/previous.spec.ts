/** Option `previous`: sessions of another store are taken over, once and for good. */

import assert from 'node:assert/strict';
import { setTimeout as sleep, setImmediate as tick } from 'node:timers/promises';
import MongoStore from 'connect-mongo';
import connectPgSimple from 'connect-pg-simple';
import { RedisStore } from 'connect-redis';
import session, { type Store } from 'express-session';
import pg from 'pg';
import { createClient } from 'redis';
import { PgStore, type PgStoreOptions } from '../../lib/index.js';
import { documented } from '../support/docs.js';
import { eventually, patiently } from '../support/eventually.js';
import { closeStores, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { Gate, type Listening, listen, raceApp, Visitor } from '../support/race-app.js';
import { RaceProcess } from '../support/race-process.js';
import { type Redis, startRedis } from '../support/redis-server.js';
import { type AnySession, data, generated, load, loaded, plain } from '../support/sessions.js';

const HOUR = 3_600_000;

/** What a store with callbacks answers. */
const call = (store: any, method: string, ...args: unknown[]): Promise<any> =>
  new Promise((resolve, reject) =>
    store[method](...args, (error: unknown, result: unknown) => (error ? reject(error) : resolve(result))),
  );

/** An error as a client of another database gives it. */
const failure = (code: string, fields: object = {}) =>
  Object.assign(new Error(`failed with ${code}`), { code, ...fields });

/** Counts calls to a store, and holds back or replaces single ones. */
function watched(store: any): Store & { calls: string[]; before: Record<string, (sid: string) => unknown> } {
  const calls: string[] = [];
  const before: Record<string, (sid: string) => unknown> = {};
  const methods = ['get', 'destroy', 'all', 'clear'].map((method) => [
    method,
    (...args: any[]) => {
      calls.push(method);
      Promise.resolve(before[method]?.(args[0])).then(
        () => store[method](...args),
        (error) => args.at(-1)(error),
      );
    },
  ]);
  return Object.assign(Object.fromEntries(methods), { calls, before });
}

describe('option `previous`', () => {
  let table: string;
  let old: session.MemoryStore;

  beforeEach(() => {
    table = freshTable();
    old = new session.MemoryStore();
  });
  afterEach(closeStores);

  const open = (options: PgStoreOptions = {}) => openStore({ table, previous: old, ...options });
  const rows = async () => {
    const sql = await sqlClient();
    return sql.unsafe(`select *, extract(epoch from expires_at - now())::float8 as seconds from ${table} order by sid`);
  };
  const tombstones = async () => (await rows()).filter((row) => row.expires_at.getTime() === 0).length;

  describe('get', () => {
    it('keeps a session of the other store, with its cookie, its user and its lifetime, and destroys it there', async () => {
      await call(old, 'set', 'one', plain({ passport: { user: 'ann' }, cart: { tea: 1 } }, HOUR));
      const store = await open();
      const taken: string[] = [];
      store.on('takenOver', (handle) => taken.push(handle));
      const found = await loaded(store, 'one');
      assert.deepEqual(found.cart, { tea: 1 });
      assert.equal(found.cookie.originalMaxAge, HOUR);
      assert.equal(await call(old, 'get', 'one'), undefined);
      const [row] = await rows();
      assert.equal(row?.user_id, 'ann');
      assert(Math.abs(row?.seconds - 3600) < 60, `${row?.seconds}`);
      const [{ handle }] = (await store.sessionsOf('ann')) as unknown as [{ handle: string }];
      assert.deepEqual(taken, [handle]);
      // From now on it is this store's alone.
      found.cart = { tea: 1, milk: 1 };
      await store.set('one', found);
      assert.deepEqual(await data(await openStore({ table }), 'one'), {
        passport: { user: 'ann' },
        cart: { tea: 1, milk: 1 },
      });
    });

    it('asks the other store only for sessions without a row', async () => {
      const previous = watched(old);
      const store = await open({ previous });
      await store.set('one', plain({ here: true }));
      await call(old, 'set', 'one', plain({ here: false }));
      assert.deepEqual(await data(store, 'one'), { here: true });
      assert.deepEqual(previous.calls, []);
      assert.equal(await store.get('nobody'), null);
      assert.deepEqual(previous.calls, ['get']);
      assert.equal(await store.get('no\0body'), null);
      assert.deepEqual(previous.calls, ['get']);
    });

    it('keeps a session whose cookie’s expiry is past: most stores touch only a field beside the JSON', async () => {
      const stale = plain({ name: 'ann' }, HOUR);
      stale.cookie.expires = new Date(Date.now() - HOUR);
      const asked = {
        get: (_sid: string, callback: any) => callback(null, stale),
        destroy: (_: string, done: any) => done(),
      };
      const store = await open({ previous: asked });
      assert.deepEqual(await data(store, 'one'), { name: 'ann' });
      assert(Math.abs((await rows())[0]?.seconds - 3600) < 60);
    });

    it('gives a session whose cookie lasts as long as the browser the store’s `ttl`, one with an expiry alone that', async () => {
      const store = await open({ ttl: 7200 });
      const expires = new Date(Date.now() + HOUR);
      await call(old, 'set', 'browser', { cookie: { originalMaxAge: null, expires: null } });
      await call(old, 'set', 'expiry', { cookie: { originalMaxAge: null, expires } });
      for (const sid of ['browser', 'expiry']) assert(await store.get(sid));
      const seconds = (await rows()).map((row) => Math.round(row.seconds / 60) * 60);
      assert.deepEqual(seconds, [7200, 3600]);
    });

    it('counts `maxLifetime` from the moment at which the session was taken over', async () => {
      await call(old, 'set', 'one', plain({}, 10 * HOUR));
      const store = await open({ maxLifetime: 1800 });
      assert(await store.get('one'));
      assert(Math.abs((await rows())[0]?.seconds - 1800) < 60);
    });

    it('encrypts, signs and hashes as it does with its own', async () => {
      for (const options of [{ encryptionKey: 'k'.repeat(32) }, { secret: ['new', 'old'] }, { hashIds: true }]) {
        table = freshTable();
        await call(old, 'set', 'one', plain({ name: 'ann' }));
        const store = await open(options);
        assert.deepEqual(await data(store, 'one'), { name: 'ann' });
        assert.equal(await call(old, 'get', 'one'), undefined);
        assert.deepEqual(await data(await openStore({ table, ...options }), 'one'), { name: 'ann' });
        const [row] = await rows();
        assert.equal(row?.sid === 'one', 'encryptionKey' in options);
        assert.equal(typeof row?.data, 'encryptionKey' in options ? 'string' : 'object');
      }
    });

    it('loads a session that another process takes over at that moment', async () => {
      await call(old, 'set', 'one', plain({ name: 'ann' }));
      const previous = watched(old);
      const [store, other] = [await open({ previous }), await open()];
      // It finds no row; until it asks, the other process has kept the session and destroyed it
      // there.
      previous.before.get = async () => assert(await other.get('one'));
      assert.deepEqual(await data(store, 'one'), { name: 'ann' });
    });

    it('reads the row of a session that another process took over and changed meanwhile', async () => {
      await call(old, 'set', 'one', plain({ name: 'ann' }));
      const previous = watched(old);
      const [store, other] = [await open({ previous }), await open()];
      previous.before.destroy = async () => {
        const theirs = await loaded(other, 'one');
        theirs.city = 'Bonn';
        await other.set('one', theirs);
      };
      const ours = await loaded(store, 'one');
      assert.equal(ours.city, 'Bonn');
      ours.name = 'eve';
      await store.set('one', ours);
      assert.deepEqual(await data(other, 'one'), { name: 'eve', city: 'Bonn' });
    });

    it('takes a session over once, however many requests ask for it at once, here and in another process', async () => {
      await call(old, 'set', 'one', plain({ keys: {} }));
      const previous = watched(old);
      const stores = [await open({ previous }), await open({ previous })];
      let taken = 0;
      for (const store of stores) store.on('takenOver', () => taken++);
      const held = await Promise.all(Array.from({ length: 40 }, (_, n) => load(stores[n % 2] as PgStore, 'one')));
      await Promise.all(
        held.map(async (own, n) => {
          assert(own);
          own.keys[n] = n;
          await stores[n % 2]?.set('one', own);
        }),
      );
      assert.equal(Object.keys((await data(stores[0] as PgStore, 'one'))?.keys as object).length, 40);
      await tick();
      assert.equal(taken, 1);
      // One look for each process, and the second one of the process that kept it.
      assert(previous.calls.filter((name) => name === 'get').length <= 3);
      assert.equal(previous.calls.filter((name) => name === 'destroy').length, 1);
    });
  });

  describe('destroy', () => {
    it('destroys the session in the other store first, then here', async () => {
      const previous = watched(old);
      const store = await open({ previous });
      await call(old, 'set', 'one', plain());
      assert(await store.get('one'));
      previous.before.destroy = () => Promise.reject(failure('EPERM'));
      await assert.rejects(store.destroy('one'), { name: 'PgStoreError', code: 'EPERM', message: /previous\.destroy/ });
      // Neither here: the visitor is told that it failed, and may try again.
      assert(await store.get('one'));
      delete previous.before.destroy;
      await store.destroy('one');
      assert.equal(await store.get('one'), null);
    });

    it('destroys a session that was not taken over yet', async () => {
      await call(old, 'set', 'one', plain());
      const store = await open();
      await store.destroy('one');
      assert.equal(await call(old, 'get', 'one'), undefined);
      assert.equal(await store.get('one'), null);
    });

    it('is final, though a process of the old app saves the session there once more', async () => {
      for (const options of [
        {},
        { encryptionKey: 'k'.repeat(32) },
        { secret: ['new', 'old'] },
        { hashIds: true },
        { maxLifetime: 1 },
      ]) {
        table = freshTable();
        await call(old, 'set', 'one', plain({ name: 'ann' }));
        const held = await call(old, 'get', 'one');
        const store = await open(options);
        assert(await store.get('one'));
        await store.destroy('one');
        await call(old, 'set', 'one', held);
        assert.equal(await store.get('one'), null);
        // Nor does the copy stay there.
        assert.equal(await call(old, 'get', 'one'), undefined);
        await call(old, 'set', 'one', held);
        await store.autodelete();
        assert.equal(await store.takeOver(), 0);
        assert.equal(await store.get('one'), null);
        assert.equal(await store.length(), 0);
      }
    });

    it('is final, though another process is taking the session over', async () => {
      for (const moment of ['get', 'destroy']) {
        table = freshTable();
        await call(old, 'set', 'one', plain({ name: 'ann' }));
        const found = await call(old, 'get', 'one');
        const [other, previous] = [await open(), watched(old)];
        const store = await open({ previous });
        if (moment === 'get') {
          // Its answer has left the other store when the session is destroyed.
          previous.get = (_sid: string, callback: any) => {
            previous.calls.push('get');
            other.destroy('one').then(() => callback(null, found));
          };
        } else previous.before.destroy = () => other.destroy('one');
        assert.equal(await store.get('one'), null, moment);
        assert.equal(await store.length(), 0);
        assert.equal(await other.get('one'), null);
      }
    });

    it('drops what requests save that still hold the session', async () => {
      await call(old, 'set', 'one', plain({ name: 'ann' }));
      const [store, other] = [await open(), await open()];
      const [saving, touching] = [await loaded(store, 'one'), await loaded(store, 'one')];
      await other.destroy('one');
      const dropped: string[] = [];
      store.on('dropped', (_handle, name) => dropped.push(name));
      saving.name = 'eve';
      await store.set('one', saving);
      touching.cookie.maxAge = 2 * HOUR;
      await store.touch('one', touching);
      await tick();
      assert.deepEqual(dropped, ['set', 'touch']);
      assert.equal(await store.get('one'), null);
    });

    it('leaves a tombstone for 400 days that is no session: not listed, counted, touched', async () => {
      await call(old, 'set', 'one', plain({ passport: { user: 'ann' } }));
      const store = await open({ maxLifetime: 60 });
      assert(await store.get('one'));
      await store.destroy('one');
      await store.touch('one', plain({}, HOUR));
      const [row] = await rows();
      assert.deepEqual([row?.data, row?.cookie, row?.user_id], [null, null, null]);
      assert.equal(row?.expires_at.getTime(), 0);
      assert(Math.abs(row?.delete_after.getTime() - Date.now() - 400 * 24 * HOUR) < 60_000);
      assert.deepEqual([await store.length(), await store.all(), await store.ids()], [0, [], []]);
      assert.deepEqual(await store.sessionsOf('ann'), []);
      assert.equal(await tombstones(), 1);
      // A session created anew under the ID is one.
      await store.set('one', generated(store, 'one', { name: 'eve' }));
      assert.deepEqual(await data(store, 'one'), { name: 'eve' });
      assert.equal(await store.length(), 1);
      assert((await rows())[0]?.seconds <= 60);
    });

    it('leaves none without the option', async () => {
      const store = await openStore({ table });
      await store.set('one', plain());
      await store.destroy('one');
      assert.deepEqual(Array.from(await rows()), []);
    });

    it('destroys a session under an older secret’s key too', async () => {
      const before = await openStore({ table, secret: 'old' });
      await before.set('one', plain({ name: 'ann' }));
      await call(old, 'set', 'one', plain({ name: 'ann' }));
      const store = await open({ secret: ['new', 'old'] });
      await store.destroy('one');
      await call(old, 'set', 'one', plain({ name: 'ann' }));
      assert.equal(await store.get('one'), null);
      assert.equal(await tombstones(), 1);
    });
  });

  describe('many sessions', () => {
    it('clear destroys all in both stores', async () => {
      await call(old, 'set', 'one', plain());
      await call(old, 'set', 'two', plain());
      const store = await open();
      assert(await store.get('one'));
      await store.clear();
      assert.deepEqual(await Promise.all(['one', 'two'].map((sid) => store.get(sid))), [null, null]);
      assert.deepEqual(Object.keys(await call(old, 'all')), []);
    });

    it('clear during takeOver destroys what is just being taken over', async () => {
      await call(old, 'set', 'one', plain());
      const gate = new Gate();
      const previous = watched(old);
      const { get } = previous;
      // The first look: its answer has left the other store when that is cleared.
      previous.get = (sid, done) => {
        previous.get = get;
        old.get(sid, (error, found) => void gate.pass().then(() => done(error, found)));
      };
      const store = await open({ previous: previous as any });
      const arrived = gate.arrived(1);
      const taking = store.takeOver();
      await arrived;
      const clearing = store.clear();
      await eventually(() => previous.calls.includes('clear'));
      gate.open();
      await Promise.all([taking, clearing]);
      assert.equal(await store.length(), 0);
    });

    it('clear ends none where the other store has no `clear`, or fails', async () => {
      for (const clear of [undefined, (done: any) => done(failure('EPERM'))]) {
        const store = await open({ previous: Object.assign(watched(old), { clear }) as any });
        await store.set('one', plain());
        const code = clear ? 'EPERM' : 'UNSUPPORTED';
        await assert.rejects(store.clear(), { name: 'PgStoreError', code, message: /`?clear/ });
        assert.equal(await store.length(), 1);
      }
    });

    for (const options of [{}, { hashIds: true }, { secret: ['new', 'old'] }]) {
      it(`destroySessionsOf and destroyByHandle end what was taken over, for good (${JSON.stringify(options)})`, async () => {
        const store = await open(options);
        const user = { passport: { user: 'ann' } };
        const sids = ['one', 'two', 'three', 'four'];
        const held = new Map<string, unknown>();
        for (const sid of sids) {
          await call(old, 'set', sid, plain(user));
          held.set(sid, await call(old, 'get', sid));
          assert(await store.get(sid));
        }
        const saveThereOnceMore = () => Promise.all(sids.map((sid) => call(old, 'set', sid, held.get(sid))));
        await saveThereOnceMore();
        const [{ handle }] = (await store.sessionsOf('ann')) as unknown as [{ handle: string }];
        assert.equal(await store.destroyByHandle(handle, { user: 'bob' }), false);
        assert.equal(await store.destroyByHandle(handle, { user: 'ann' }), true);
        const except = (
          await Promise.all(sids.map(async (sid) => ((await store.get(sid)) ? [sid] : [])))
        ).flat()[0] as string;
        assert.equal(await store.destroySessionsOf('ann', { except }), 2);
        await saveThereOnceMore();
        const alive = await Promise.all(sids.map(async (sid) => ((await store.get(sid)) ? [sid] : [])));
        assert.deepEqual(alive.flat(), [except]);
        assert.equal(await store.length(), 1);
      });
    }
  });

  it('destroySessionsOf ends for good what an older secret hashed: nobody knows its session ID', async () => {
    const user = { passport: { user: 'ann' } };
    const before = await openStore({ table, secret: 'old', hashIds: true });
    await before.set('one', plain(user));
    const store = await open({ secret: ['new', 'old'], hashIds: true });
    assert.equal(await store.destroySessionsOf('ann'), 1);
    await call(old, 'set', 'one', plain(user));
    assert.equal(await store.get('one'), null);
    assert.equal(await store.length(), 0);
  });

  for (const maxLifetime of [undefined, 7200]) {
    it(`destroySessionsOf ends for good what is from before the server’s clock was set back (${maxLifetime})`, async () => {
      const user = { passport: { user: 'ann' } };
      const store = await open(maxLifetime ? { maxLifetime } : {});
      for (const sid of ['one', 'kept']) {
        await call(old, 'set', sid, plain(user));
        assert(await store.get(sid));
        await call(old, 'set', sid, plain(user));
      }
      const sql = await sqlClient();
      await sql.unsafe(`update ${table} set created_at = now() + interval '1 hour'`);
      assert.equal(await store.destroySessionsOf('ann', { except: 'kept' }), 1);
      assert.equal(await call(old, 'get', 'one'), undefined);
      await call(old, 'set', 'one', plain(user));
      assert.equal(await store.get('one'), null);
      assert(await store.get('kept'));
      assert.equal(await tombstones(), 1);
    });
  }

  describe('takeOver()', () => {
    it('takes all over, reports its progress, and may be repeated', async () => {
      const sids = Array.from({ length: 600 }, (_, n) => `sid${n}`);
      for (const sid of sids) await call(old, 'set', sid, plain({ sid }));
      const store = await open();
      await store.get('sid7');
      const progress: [number, number | undefined][] = [];
      assert.equal(await store.takeOver({ onProgress: (done, total) => progress.push([done, total]) }), 599);
      assert.deepEqual(progress, [
        [256, 599],
        [512, 599],
        [599, 599],
      ]);
      assert.deepEqual(Object.keys(await call(old, 'all')), []);
      assert.deepEqual(await data(store, 'sid599'), { sid: 'sid599' });
      assert.equal(await store.length(), 600);
      assert.equal(await store.takeOver(), 0);
      await assert.rejects(store.takeOver({ onProgress: 5 as any }), {
        name: 'TypeError',
        message: /`onProgress`: expected a function/,
      });
    });

    it('keeps what was saved here, and goes on after a failure', async () => {
      await call(old, 'set', 'one', plain({ at: 'old' }));
      await call(old, 'set', 'two', plain({ at: 'old' }));
      const previous = watched(old);
      const store = await open({ previous, timeout: 1000 });
      await patiently(() => store.set('one', plain({ at: 'new' })));
      previous.before.destroy = () => Promise.reject(failure('EPERM'));
      await assert.rejects(store.takeOver(), { code: 'EPERM' });
      delete previous.before.destroy;
      await store.takeOver();
      assert.deepEqual([await data(store, 'one'), await data(store, 'two')], [{ at: 'new' }, { at: 'old' }]);
      assert.deepEqual(Object.keys(await call(old, 'all')), []);
    });

    it('does not bring back a session that was destroyed in the old app after it was listed', async () => {
      await call(old, 'set', 'one', plain());
      const previous = watched(old);
      previous.before.get = (sid) => call(old, 'destroy', sid);
      const store = await open({ previous });
      assert.equal(await store.takeOver(), 0);
      assert.equal(await store.length(), 0);
    });

    it('says so where the other store cannot list, names no session IDs, or is not there', async () => {
      const cases: [PgStoreOptions, RegExp][] = [
        [{ previous: Object.assign(watched(old), { all: undefined }) as any }, /has no `all`/],
        [
          { previous: Object.assign(watched(old), { all: (done: any) => done(null, [plain()]) }) as any },
          /session IDs/,
        ],
        [{ previous: undefined }, /option `previous`/],
      ];
      for (const [options, message] of cases) {
        const store = await open(options);
        await assert.rejects(store.takeOver(), { name: 'PgStoreError', code: 'UNSUPPORTED', message });
      }
    });

    it('destroys there what was kept here before, but not before every call has ended that may be taking it over', async () => {
      await call(old, 'set', 'one', plain({ name: 'ann' }));
      const previous = watched(old);
      const [first, store] = [await open({ previous, timeout: 60_000 }), await open({ timeout: 1000 })];
      await patiently(() => store.ready());
      let listed: Promise<number> | undefined;
      // The first process has kept the session, and is about to look there once more.
      previous.before.get = async () => {
        if (previous.calls.filter((name) => name === 'get').length < 2) return;
        listed = store.takeOver();
        await eventually(async () => (await patiently(() => store.get('one'))) !== null);
        await tick();
      };
      assert.deepEqual(await data(first, 'one'), { name: 'ann' });
      assert.equal(await listed, 0);
      assert.deepEqual(await data(first, 'one'), { name: 'ann' });
      assert.deepEqual(Object.keys(await call(old, 'all')), []);
    });

    describe('with `sids`', () => {
      /** The same store as one that cannot list its sessions. */
      const unlisted = () => Object.assign(watched(old), { all: undefined }) as any;

      async function* several(sids: readonly unknown[]): AsyncGenerator<any> {
        yield* sids;
      }

      it('takes over those of an array or an async iterable, and may be repeated', async () => {
        const sids = Array.from({ length: 300 }, (_, n) => `sid${n}`);
        for (const given of [sids, () => several(sids)]) {
          table = freshTable();
          for (const sid of [...sids, 'another']) await call(old, 'set', sid, plain({ sid }));
          const store = await open({ previous: unlisted() });
          const progress: unknown[] = [];
          const once = () => (typeof given === 'function' ? given() : given);
          const onProgress = (...args: unknown[]) => progress.push(args);
          assert.equal(await store.takeOver({ sids: once(), onProgress }), 300);
          const total = Array.isArray(given) ? 300 : undefined;
          assert.deepEqual(progress, [
            [256, total],
            [300, total],
          ]);
          assert.deepEqual(await data(store, 'sid299'), { sid: 'sid299' });
          assert.deepEqual(Object.keys(await call(old, 'all')), ['another']);
          assert.equal(await store.takeOver({ sids: once() }), 0);
          assert.equal(await store.takeOver({ sids: [] }), 0);
          assert.equal(await store.length(), 300);
          old = new session.MemoryStore();
        }
      });

      it('takes over none that was signed out before, there or here', async () => {
        for (const sid of ['one', 'two', 'three']) await call(old, 'set', sid, plain({ sid }));
        const held = await call(old, 'get', 'two');
        const store = await open({ previous: unlisted() });
        await call(old, 'destroy', 'one');
        await store.destroy('two');
        // An old process still has it.
        await call(old, 'set', 'two', held);
        assert.equal(await store.takeOver({ sids: ['one', 'two', 'three'] }), 1);
        assert.deepEqual(await store.ids(), ['three']);
        assert.equal(await store.takeOver({ sids: ['one', 'two', 'three'] }), 0);
        assert.deepEqual(await store.ids(), ['three']);
      });

      it('takes over none that is signed out there between the first look and the second', async () => {
        await call(old, 'set', 'one', plain());
        const previous = unlisted();
        const store = await open({ previous });
        // It has a row here by then.
        previous.before.get = async () => {
          if (await store.length()) await call(old, 'destroy', 'one');
        };
        assert.equal(await store.takeOver({ sids: ['one'] }), 0);
        assert.equal(await tombstones(), 1);
        assert.equal(await store.get('one'), null);
      });

      it('refuses what is not an array or an async iterable of session IDs, and takes nothing over', async () => {
        await call(old, 'set', 'one', plain());
        const previous = unlisted();
        const store = await open({ previous });
        const expected = 'expected an array or an async iterable of session IDs';
        for (const [sids, message] of [
          ['one', expected],
          [null, expected],
          [new Set(['one']), expected],
          [{ length: 1, 0: 'one' }, expected],
          [5, expected],
          [['one', 5], 'element 1: expected a string as session ID, got number'],
          [['one', 'a\0'], 'element 1: expected a string as session ID, got one with a NUL character'],
        ] as const) {
          await assert.rejects(async () => store.takeOver({ sids: sids as any }), {
            name: 'TypeError',
            message: `PgStore.takeOver: \`sids\`: ${message}`,
          });
        }
        await assert.rejects(async () => store.takeOver({ sid: ['one'] } as any), TypeError);
        assert.deepEqual(previous.calls, []);
        assert(await call(old, 'get', 'one'));
      });

      it('ends at the bad element of an iterable, and says how many were taken over', async () => {
        const sids = Array.from({ length: 300 }, (_, n) => `sid${n}`);
        for (const sid of sids) await call(old, 'set', sid, plain());
        const store = await open({ previous: unlisted() });
        await assert.rejects(store.takeOver({ sids: several([...sids, 5, 'late']) }), {
          name: 'TypeError',
          message:
            'PgStore.takeOver: `sids`: element 300: expected a string as session ID, got number; 300 sessions were taken over',
        });
        assert.equal(await store.length(), 300);
        const broken = async function* () {
          yield 'sid0';
          throw failure('EPERM');
        };
        await assert.rejects(store.takeOver({ sids: broken() }), { code: 'EPERM' });
      });

      it('keeps memory flat: it asks for a page of IDs at a time', async () => {
        let asked = 0;
        let done = 0;
        let mostAhead = 0;
        async function* many() {
          for (; asked < 5000; asked++) {
            mostAhead = Math.max(mostAhead, asked - done);
            yield `sid${asked}`;
          }
        }
        const store = await open({ previous: unlisted() });
        const onProgress = (count: number) => {
          done = count;
        };
        assert.equal(await store.takeOver({ sids: many(), onProgress }), 0);
        assert.equal(done, 5000);
        assert(mostAhead <= 256, `${mostAhead} at a time`);
      });
    });

    it('takes over another PgStore’s', async () => {
      const before = await openStore();
      await before.set('one', plain({ name: 'ann' }));
      const store = await open({ previous: before });
      assert.equal(await store.takeOver(), 1);
      assert.deepEqual(await data(store, 'one'), { name: 'ann' });
      assert.equal(await before.length(), 0);
    });
  });

  describe('with the other store failing', () => {
    const fails: Record<string, (done: any) => unknown> = {
      'calls back with an error': (done) => done(failure('EPERM')),
      throws: () => {
        throw failure('EPERM');
      },
      'rejects its promise': () => Promise.reject(failure('EPERM')),
    };
    for (const [how, fail] of Object.entries(fails)) {
      it(`fails the call where it ${how}, and loses nothing`, async () => {
        await call(old, 'set', 'one', plain({ name: 'ann' }));
        const broken = { get: (_: string, done: any) => fail(done), destroy: (_: string, done: any) => fail(done) };
        const store = await open({ previous: broken });
        await store.set('own', plain());
        await assert.rejects(store.get('one'), {
          name: 'PgStoreError',
          code: 'EPERM',
          message: /^PgStore.get: .*previous/,
        });
        assert(await store.get('own'));
        assert.deepEqual(await data(await open(), 'one'), { name: 'ann' });
      });
    }

    it('fails after `timeout` where it never answers', async () => {
      const silent = { get: () => {}, destroy: () => {}, all: () => {}, clear: () => {} };
      const store = await open({ previous: silent, timeout: 300 });
      await patiently(() => store.set('own', plain()));
      const calls = [store.get('one'), store.destroy('own'), store.takeOver(), store.clear()];
      for (const answer of await Promise.allSettled(calls)) {
        assert.equal(answer.status, 'rejected');
        assert.equal((answer as PromiseRejectedResult).reason.code, 'TIMEOUT');
      }
      assert(await patiently(() => store.get('own')));
    });

    it('tries again after transient errors, with a `retry` event each', async () => {
      await call(old, 'set', 'one', plain({ name: 'ann' }));
      const previous = watched(old);
      const failing = ['get', 'get', 'destroy'];
      for (const name of ['get', 'destroy']) {
        previous.before[name] = () => {
          if (failing[0] !== name) return undefined;
          failing.shift();
          return Promise.reject(failure('ECONNRESET'));
        };
      }
      const store = await open({ previous, retry: { delay: 1 } });
      const retried: unknown[] = [];
      store.on('retry', (what, attempt) => retried.push([what, attempt]));
      assert.deepEqual(await data(store, 'one'), { name: 'ann' });
      await tick();
      assert.deepEqual(retried, [
        ['previous.get', 1],
        ['previous.get', 2],
        ['previous.destroy', 1],
      ]);
    });

    it('fails after the attempts of option `retry`, and a session that was kept stays', async () => {
      await call(old, 'set', 'one', plain({ name: 'ann' }));
      const previous = watched(old);
      previous.before.destroy = () => Promise.reject(failure('ECONNREFUSED'));
      const store = await open({ previous, retry: { attempts: 3, delay: 1 } });
      await assert.rejects(store.get('one'), { code: 'ECONNREFUSED' });
      assert.deepEqual(previous.calls, ['get', 'get', 'destroy', 'destroy', 'destroy']);
      assert.deepEqual(await data(store, 'one'), { name: 'ann' });
    });

    it('is asked for nothing by a call that failed while it waited for its turn', async () => {
      await call(old, 'set', 'one', plain({ name: 'ann' }));
      const previous = watched(old);
      const store = await open({ previous, timeout: 300 });
      await patiently(() => store.length());
      let isHeld = true;
      previous.before.get = () => isHeld && new Promise(() => {});
      // Each move of `takeOver` has a time limit of its own, which begins when its turn comes. So these five hold up
      // what follows for much longer than its time limit.
      const moves = Array.from({ length: 5 }, () => store.takeOver({ sids: ['one'] }));
      await eventually(() => previous.calls.includes('get'));
      const calls = [...moves, store.get('one'), store.destroy('one')];
      await Promise.all(calls.map((failing) => assert.rejects(failing as Promise<unknown>, { code: 'TIMEOUT' })));
      isHeld = false;
      assert.deepEqual(await patiently(() => data(store, 'one')), { name: 'ann' });
    });

    it('takes `ENOENT` for a missing session, as express-session does, but not where a socket is missing', async () => {
      const missing = (fields: object) => ({
        get: (_: string, done: any) => done(failure('ENOENT', fields)),
        destroy: (_: string, done: any) => done(failure('ENOENT', fields)),
      });
      const files = await open({ previous: missing({ syscall: 'open' }) });
      assert.equal(await files.get('one'), null);
      await files.destroy('one');
      const socket = await open({ previous: missing({ syscall: 'connect' }), retry: { attempts: 1 } });
      await assert.rejects(socket.get('one'), { code: 'ECONNREFUSED' });
    });

    it('fails where PostgreSQL does, and the other store keeps the session', async () => {
      await call(old, 'set', 'one', plain({ name: 'ann' }));
      const store = await open({ createTable: false });
      await assert.rejects(store.get('one'), { code: '42P01' });
      const ready = await open();
      await ready.ready();
      const sql = await sqlClient();
      await sql.unsafe(`create function ${table}_f() returns trigger language plpgsql as $$ begin raise 'no'; end $$`);
      await sql.unsafe(`create trigger t before insert on ${table} for each row execute function ${table}_f()`);
      await assert.rejects(ready.get('one'));
      assert(await call(old, 'get', 'one'));
      await sql.unsafe(`drop function ${table}_f cascade`);
      assert.deepEqual(await data(ready, 'one'), { name: 'ann' });
    });
  });

  it('loses no session and revives none, however calls, late saves and two processes interleave', async () => {
    // Pauses of random lengths, so that the calls interleave in many ways. Nothing depends on their
    // lengths.
    const pause = (most: number) => sleep(Math.random() * most);
    const slow = watched(old);
    for (const method of ['get', 'destroy']) slow.before[method] = () => pause(4);
    const stores = [await open({ previous: slow }), await open({ previous: slow })];
    const any = () => stores[Math.random() < 0.5 ? 0 : 1] as PgStore;
    const wrong: string[] = [];

    async function live(sid: string, isDestroyed: boolean): Promise<void> {
      await call(old, 'set', sid, plain({ sid }));
      const held = await call(old, 'get', sid);
      let destroying = false;
      let gone = false;
      const visits = Array.from({ length: 6 }, async () => {
        await pause(20);
        const wasGone = gone;
        const found = await any().get(sid);
        if (wasGone && found) wrong.push(`revived ${sid}`);
        if (!found && !destroying) wrong.push(`lost ${sid}`);
      });
      const lateSaves = Array.from({ length: 3 }, async () => {
        await pause(20);
        await call(old, 'set', sid, held);
      });
      const signOut = async () => {
        await pause(15);
        destroying = true;
        await any().destroy(sid);
        gone = true;
      };
      await Promise.all([...visits, ...lateSaves, isDestroyed && signOut()]);
      await call(old, 'set', sid, held);
      if (Boolean(await any().get(sid)) === isDestroyed) wrong.push(`${isDestroyed ? 'revived' : 'lost'} ${sid}`);
    }

    for (let round = 0; round < 5; round++) {
      await Promise.all(Array.from({ length: 200 }, (_, n) => live(`${round}-${n}`, n % 2 === 0)));
    }
    assert.deepEqual(wrong, []);
    assert.equal(await stores[0]?.length(), 500);
    assert.equal(await tombstones(), 500);
  });

  it('is refused where it is no store', () => {
    for (const wrong of [null, 'redis://localhost', {}, { get: () => {} }, () => {}]) {
      assert.throws(() => new PgStore({ previous: wrong as any }), {
        name: 'TypeError',
        message: /option `previous`: expected an express-session store, with `get` and `destroy`/,
      });
    }
  });

  describe('over HTTP', () => {
    const listening: Listening[] = [];
    const closing: (() => unknown)[] = [];
    let redis: Redis | undefined;

    before(async () => {
      redis = await startRedis();
    });
    after(() => redis?.close());
    afterEach(async () => {
      for (const server of listening.splice(0)) await server.close();
      for (const close of closing.splice(0)) await close();
    });

    async function serve(store: Store, options: Partial<Parameters<typeof raceApp>[0]> = {}) {
      const gate = new Gate();
      const server = await listen(raceApp({ store, gate, ...options }));
      listening.push(server);
      return { url: server.url, gate };
    }

    /** The other store, as an app of its own has it: a client of its own each. */
    const others: Record<string, () => Promise<Store | undefined>> = {
      MemoryStore: async () => old,
      'connect-redis on Redis': async () => {
        if (!redis) return undefined;
        const client = createClient({ url: redis.url });
        client.on('error', () => {});
        await client.connect();
        closing.push(() => client.close());
        return new RedisStore({ client, prefix: `${table}:` });
      },
      'connect-pg-simple on PostgreSQL': async () => {
        const pool = new pg.Pool({ connectionString: await postgresUri(), max: 3 });
        closing.push(() => pool.end());
        const sql = await sqlClient();
        // Its own DDL names the primary key alike for each table of a schema.
        await sql.unsafe(`create table if not exists ${table}_old
          (sid varchar primary key, sess json not null, expire timestamp(6) not null)`);
        const Simple = connectPgSimple(session);
        return new Simple({ pool, tableName: `${table}_old`, pruneSessionInterval: false });
      },
      PgStore: () => openStore({ table: `${table}_old` }),
    };

    for (const [name, openOther] of Object.entries(others)) {
      describe(name, () => {
        async function apps(mocha: Mocha.Context) {
          const [theirs, ours] = [await openOther(), await openOther()];
          if (!theirs || !ours) return withoutRedis(mocha);
          const store = await open({ previous: ours });
          return { store, before: await serve(theirs), now: await serve(store) };
        }

        it('keeps everybody signed in, and each change of parallel first requests', async function () {
          const { store, before, now } = await apps(this);
          const visitor = new Visitor();
          await visitor.post(`${before.url}/login/ann`);
          const cookie = visitor.cookie;
          const requests = Array.from({ length: 20 }, (_, n) => visitor.twin().post(`${now.url}/everywhere/k${n}`));
          await now.gate.arrived(20);
          now.gate.open();
          await Promise.all(requests);
          const { data: found } = await visitor.session(now.url);
          assert.equal(found.user, 'ann');
          assert.deepEqual([Object.keys(found.files).length, Object.keys(found.deep.in.side).length], [20, 20]);
          assert.equal(visitor.cookie, cookie);
          assert.equal(await store.length(), 1);
        });

        it('revives nobody whose old app saves the session after a logout in the new one', async function () {
          const { store, before, now } = await apps(this);
          const visitor = new Visitor();
          await visitor.post(`${before.url}/login/ann`);
          const slow = visitor.twin().post(`${before.url}/everywhere/late`);
          await before.gate.arrived(1);
          // Loads it, so takes it over, and destroys it.
          await visitor.twin().post(`${now.url}/logout`);
          before.gate.open();
          await slow;
          assert.deepEqual((await visitor.twin().session(now.url)).data, {});
          // Nor does the old app have it any longer.
          assert.deepEqual((await visitor.twin().session(before.url)).data, {});
          assert.equal(await store.length(), 0);
        });

        it('lets the new app’s session win over what the old app saves after it was taken over', async function () {
          const { before, now } = await apps(this);
          const visitor = new Visitor();
          await visitor.post(`${before.url}/login/ann`);
          const slow = visitor.twin().post(`${before.url}/key/late`);
          await before.gate.arrived(1);
          await visitor.twin().post(`${now.url}/same-site/strict`);
          const early = visitor.twin().post(`${now.url}/key/early`);
          await now.gate.arrived(1);
          before.gate.open();
          now.gate.open();
          await Promise.all([slow, early]);
          const { data: found, sameSite } = await visitor.twin().session(now.url);
          assert.deepEqual([found.user, found.early, found.late, sameSite], ['ann', 'early', undefined, 'strict']);
        });

        it('revives nobody whose request runs in the new app while the visitor regenerates the session', async function () {
          const { store, before, now } = await apps(this);
          const visitor = new Visitor();
          await visitor.post(`${before.url}/login/ann`);
          const stolen = visitor.twin();
          const slow = visitor.twin().post(`${now.url}/everywhere/late`);
          await now.gate.arrived(1);
          await visitor.post(`${now.url}/regenerate/ann`);
          now.gate.open();
          await slow;
          assert.deepEqual((await stolen.session(now.url)).data, {});
          assert.deepEqual((await stolen.session(before.url)).data, {});
          assert.equal((await visitor.session(now.url)).data.user, 'ann');
          assert.equal(await store.length(), 1);
        });

        it('takes all over with takeOver(), where the store can list', async function () {
          const { store, before, now } = await apps(this);
          const visitors = Array.from({ length: 3 }, () => new Visitor());
          for (const visitor of visitors) await visitor.post(`${before.url}/login/ann`);
          if (name.startsWith('connect-pg')) {
            await assert.rejects(store.takeOver(), { code: 'UNSUPPORTED' });
          } else assert.equal(await store.takeOver(), 3);
          for (const visitor of visitors) {
            assert.equal((await visitor.twin().session(now.url)).data.user, 'ann');
            assert.deepEqual((await visitor.twin().session(before.url)).data, {});
          }
          assert.equal(await store.length(), 3);
        });
      });
    }

    it('keeps its promises between processes of the old app and of the new one', async function () {
      if (!redis) return withoutRedis(this);
      await (await open()).ready();
      const uri = await postgresUri();
      const [old1, new1, new2] = await Promise.all([
        RaceProcess.start(uri, '', redis.url),
        RaceProcess.start(uri, table, redis.url),
        RaceProcess.start(uri, table, redis.url),
      ]);
      for (const process of [old1, new1, new2]) closing.push(() => process.close());
      const visitor = new Visitor();
      await visitor.post(`${old1.urls[5]}/login/ann`);
      // First requests in both new processes, at once.
      const requests = [new1, new2].flatMap(({ urls }, p) =>
        Array.from({ length: 10 }, (_, n) => visitor.twin().post(`${urls[n % 2 ? 4 : 5]}/everywhere/p${p}n${n}`)),
      );
      await Promise.all([new1.arrived(10), new2.arrived(10)]);
      for (const process of [new1, new2]) process.open();
      await Promise.all(requests);
      const { data: found } = await visitor.session(new1.urls[5]);
      assert.deepEqual([found.user, Object.keys(found.files).length], ['ann', 20]);

      // Signed out in a new process, while an old one has the session and saves it late.
      const other = new Visitor();
      await other.post(`${old1.urls[5]}/login/bob`);
      const slow = other.twin().post(`${old1.urls[5]}/everywhere/late`);
      await old1.arrived(1);
      await other.twin().post(`${new1.urls[5]}/logout`);
      old1.open();
      await slow;
      for (const { urls } of [new2, new1, old1]) {
        assert.deepEqual((await other.twin().session(urls[5])).data, {});
      }
    });

    it('answers with an error while the other store is down, and keeps the visitor signed in', async () => {
      const previous = watched(old);
      const errors: any[] = [];
      const before = await serve(old);
      const now = await serve(await open({ previous }), { onError: (error) => errors.push(error) });
      const visitor = new Visitor();
      await visitor.post(`${before.url}/login/ann`);
      previous.before.get = () => Promise.reject(failure('EACCES'));
      await assert.rejects(visitor.session(now.url), /500/);
      assert.equal(errors[0].code, 'EACCES');
      delete previous.before.get;
      assert.equal((await visitor.session(now.url)).data.user, 'ann');
    });

    it('with Redis down does not fail what has been taken over, and fails the rest in time', async function () {
      const server = await startRedis();
      if (!server || process.env.REDIS_URL) return withoutRedis(this, 'a Redis that the spec may stop');
      const client = createClient({ url: server.url });
      client.on('error', () => {});
      await client.connect();
      closing.push(() => client.destroy());
      const other = new RedisStore({ client });
      const store = await open({ previous: other, timeout: 1000 });
      await other.set('one', plain() as any);
      await other.set('two', plain() as any);
      assert(await patiently(() => store.get('one')));
      await server.close();
      await assert.rejects(store.get('two'), { name: 'PgStoreError' });
      const kept = (await patiently(() => load(store, 'one'))) as AnySession;
      kept.name = 'ann';
      await patiently(() => store.set('one', kept));
      await assert.rejects(store.destroy('one'), { name: 'PgStoreError' });
      assert.deepEqual(await patiently(() => data(store, 'one')), { name: 'ann' });
    });
  });

  describe('docs/migrating.md', () => {
    const page = 'docs/migrating.md';
    let redis: Redis | undefined;
    let options: PgStoreOptions;

    beforeEach(async () => {
      options = { uri: await postgresUri(), table, autodelete: false };
    });
    after(() => redis?.close());

    /** Signed in with the old store, still signed in with the new one, then signed out for good. */
    async function moves(before: Store, store: PgStore): Promise<void> {
      await call(before, 'set', 'one', plain({ name: 'ann' }, HOUR));
      const held = await call(before, 'get', 'one');
      assert.deepEqual(await data(store, 'one'), { name: 'ann' });
      assert(!(await call(before, 'get', 'one')));
      await store.destroy('one');
      await call(before, 'set', 'one', held);
      assert.equal(await store.get('one'), null);
      await store.clear().catch((error) => assert.equal(error.code, 'UNSUPPORTED'));
    }

    it('MemoryStore', async () => {
      const store = new PgStore({ ...options, previous: old });
      await moves(old, store);
      await store.close();
    });

    it('connect-redis', async function () {
      redis = await startRedis();
      if (!redis) return withoutRedis(this);
      const client = createClient({ url: redis.url, disableOfflineQueue: true });
      await client.connect();
      const previous = new RedisStore({ client, prefix: 'sess:' });
      const store = new PgStore({ ...options, previous });
      await moves(previous, store);
      await store.close();
      await client.close();
    });

    it('connect-pg-simple', async () => {
      const pool = new pg.Pool({ connectionString: options.uri, max: 2 });
      const sql = await sqlClient();
      await sql.unsafe(
        `create table ${table}_old (sid varchar primary key, sess json not null, expire timestamp(6) not null)`,
      );
      const Simple = connectPgSimple(session);
      const store = new PgStore({ ...options, previous: new Simple({ pool, tableName: `${table}_old` }) });
      await moves(new Simple({ pool, tableName: `${table}_old`, pruneSessionInterval: false }), store);
      await store.close();
      await pool.end();
    });

    it('connect-mongo, on a collection in memory: npm has no MongoDB', async () => {
      const client = memoryMongo();
      const store = new PgStore({ ...options, previous: MongoStore.create({ client }) });
      const before = MongoStore.create({ client });
      await moves(before, store);
      await call(before, 'set', 'two', plain());
      await assert.rejects(store.takeOver(), { code: 'UNSUPPORTED', message: /session IDs/ });
      await store.close();
    });

    it('the tombstones can be deleted', async () => {
      const store = await open();
      await store.set('one', plain());
      await store.set('two', plain());
      await store.destroy('one');
      const sql = await sqlClient();
      const deletion = documented(page, 'sql', 'delete from').replace('public.sessions', table);
      assert.equal((await sql.unsafe(deletion)).count, 1);
      assert.equal(await store.length(), 1);
    });
  });
});

/** Leaves a spec pending, and says why. */
function withoutRedis(mocha: Mocha.Context, what = '`redis-server` or REDIS_URL'): never {
  if (mocha.test) mocha.test.title += ` (needs ${what})`;
  return mocha.skip();
}

/** What connect-mongo calls of a MongoDB client. */
function memoryMongo(): any {
  const documents = new Map<string, any>();
  const isAlive = ({ expires }: any) => expires > new Date();
  const collection = {
    createIndex: async () => {},
    findOne: async ({ _id }: any) => [documents.get(_id)].find((found) => found && isAlive(found)) ?? null,
    find: () => [...documents.values()].filter(isAlive),
    updateOne: async ({ _id }: any, { $set }: any) => {
      documents.set(_id, { ...documents.get(_id), ...$set });
      return { upsertedCount: 1, matchedCount: 1 };
    },
    deleteOne: async ({ _id }: any) => documents.delete(_id),
    deleteMany: async () => documents.clear(),
  };
  return { db: () => ({ collection: () => collection }) };
}
