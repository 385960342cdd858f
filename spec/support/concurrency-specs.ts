/** Specs of concurrent requests: a session keeps the changes of each request, and stays destroyed once destroyed. */

import assert from 'node:assert/strict';
import { setImmediate as tick } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { eventually } from './eventually.js';
import { type AnySession, generated, load, maxAgeOf, plain } from './sessions.js';
import type { World, WorldTable } from './worlds.js';

const HOUR = 3_600_000;

/** Creates a table with two stores on it, which stand for two processes. */
export async function openPair(world: World, options: PgStoreOptions = {}) {
  const table = await world.createTable();
  const stores = [(await table.open(options)).store, (await table.open(options)).store] as const;
  return { table, stores, store: stores[0] };
}

async function loaded(store: PgStore, sid = 'sid'): Promise<AnySession> {
  const found = await load(store, sid);
  assert(found, 'no such session');
  return found;
}

async function dataOf(store: PgStore, sid = 'sid'): Promise<any> {
  const found = await store.get(sid);
  if (!found) return found;
  const { cookie: _, ...data } = found;
  return data;
}

/** The events that the store emits. They are complete one tick after the calls have been answered. */
function told(...stores: PgStore[]): unknown[][] {
  const events: unknown[][] = [];
  for (const store of stores) {
    store.on('conflict', (handle, tries) => events.push(['conflict', handle, tries]));
    store.on('dropped', (handle, call, why) => events.push(['dropped', handle, call, why]));
  }
  return events;
}

/** The rows without the times until they expire, which change all the time. */
async function contents(table: WorldTable): Promise<unknown[]> {
  return (await table.rows()).map(({ expiresInMs: _, ...others }) => others);
}

async function expiresIn(table: WorldTable): Promise<number> {
  const [row] = await table.rows();
  return Number(row?.expiresInMs);
}

/** @param world where the specs run */
export function describeConcurrency(world: World): void {
  describe(`concurrency ${world.name}`, () => {
    afterEach(world.closeStores);

    async function openCounted(options: PgStoreOptions = {}) {
      const table = await world.createTable();
      return { table, ...(await table.open(options)) };
    }

    describe('no write is lost', () => {
      it('keeps the keys of all of 200 requests, in one process and two', async () => {
        const { stores, store } = await openPair(world);
        await store.set('sid', plain({ user: 'ann' }));
        const requests = await Promise.all(Array.from({ length: 200 }, (_, n) => loaded(stores[n % 2] as PgStore)));
        const expected: Record<string, unknown> = { user: 'ann' };
        for (const [n, request] of requests.entries()) {
          request[`key${n}`] = n;
          expected[`key${n}`] = n;
        }
        await Promise.all(requests.map((request, n) => (stores[n % 2] as PgStore).set('sid', request)));
        assert.deepEqual(await dataOf(store), expected);
      });

      it('keeps what each put into a shared object, at any depth', async () => {
        const { stores, store } = await openPair(world);
        await store.set('sid', plain({ files: {}, a: { b: { c: { d: { e: {} } } } } }));
        const requests = await Promise.all(Array.from({ length: 20 }, (_, n) => loaded(stores[n % 2] as PgStore)));
        const expected: any = { files: {}, a: { b: { c: { d: { e: {} } } } } };
        for (const [n, request] of requests.entries()) {
          for (const data of [request, expected]) {
            data.files[n] = { name: `file ${n}` };
            data.a.b.c.d.e[n] = n;
          }
        }
        await Promise.all(requests.map((request, n) => (stores[n % 2] as PgStore).set('sid', request)));
        assert.deepEqual(await dataOf(store), expected);
      });

      it('keeps a shared object that each request created for itself', async () => {
        const { stores, store } = await openPair(world);
        await store.set('sid', plain());
        const [one, two] = [await loaded(stores[0]), await loaded(stores[1])];
        one.cart = { tea: 1 };
        two.cart = { milk: 2 };
        await Promise.all([stores[0].set('sid', one), stores[1].set('sid', two)]);
        assert.deepEqual(await dataOf(store), { cart: { tea: 1, milk: 2 } });
      });

      it('keeps removals, unless another request changed the key', async () => {
        const { stores, store } = await openPair(world);
        await store.set('sid', plain({ gone: 1, changed: 1, in: { gone: 1, stays: 1 } }));
        const [one, two] = [await loaded(stores[0]), await loaded(stores[1])];
        delete one.gone;
        delete one.changed;
        delete one.in.gone;
        two.changed = 2;
        two.other = 1;
        await stores[0].set('sid', one);
        await stores[1].set('sid', two);
        assert.deepEqual(await dataOf(store), { changed: 2, in: { stays: 1 }, other: 1 });

        const [three, four] = [await loaded(stores[0]), await loaded(stores[1])];
        three.changed = 3;
        delete four.changed;
        delete four.other;
        await stores[0].set('sid', three);
        await stores[1].set('sid', four);
        assert.deepEqual(await dataOf(store), { changed: 3, in: { stays: 1 } });
      });

      it('takes arrays and scalars whole, from the later save', async () => {
        const { stores, store } = await openPair(world);
        await store.set('sid', plain({ list: [1], n: 1, only: [1] }));
        const [one, two] = [await loaded(stores[0]), await loaded(stores[1])];
        one.list.push(2);
        one.n = 2;
        one.only.push(2);
        two.list.push(3);
        two.n = 3;
        await stores[0].set('sid', one);
        await stores[1].set('sid', two);
        assert.deepEqual(await dataOf(store), { list: [1, 3], n: 3, only: [1, 2] });
      });

      it('merges with what plain SQL changed, if that raised `version`', async () => {
        const { store, table } = await openPair(world);
        await store.set('sid', plain({ basket: { tea: 1 } }));
        const request = await loaded(store);
        request.basket.milk = 1;
        const [row] = await table.rows();
        await table.change({ data: '{"basket":{"tea":5}}', version: Number(row?.version) + 1 });
        await store.set('sid', request);
        assert.deepEqual(await dataOf(store), { basket: { tea: 5, milk: 1 } });
      });

      it('tells of a merge, and how many tries it took', async () => {
        const { stores, store } = await openPair(world);
        await store.set('sid', plain());
        const events = told(...stores);
        const [one, two, three] = [await loaded(stores[0]), await loaded(stores[1]), await loaded(stores[1])];
        one.a = 1;
        await stores[0].set('sid', one);
        await tick();
        assert.deepEqual(events, []);
        two.b = 2;
        await stores[1].set('sid', two);
        await tick();
        assert.deepEqual(events, [['conflict', handleOf('sid'), 2]]);
        three.b = 2;
        await stores[1].set('sid', three);
        await tick();
        assert.equal(events.length, 1, 'what is there already is no conflict');
      });

      it('calls it no conflict to have waited for a locked row', async () => {
        const table = await world.createTable();
        const { store, sent } = await table.open();
        await store.set('sid', plain());
        const events = told(store);
        const request = await loaded(store);
        request.a = 1;
        let saving: Promise<void> | undefined;
        await sent(async (soFar) => {
          await table.whileLocked('sid', async () => {
            saving = store.set('sid', request);
            await eventually(() => soFar().filter((kind) => kind === 'update').length >= 2);
          });
          await saving;
        });
        await tick();
        assert.deepEqual(await dataOf(store), { a: 1 });
        assert.deepEqual(events, []);
      });

      it('keeps keys that a session cannot adopt: all that express-session’s `Session` has itself', async () => {
        const { store, table } = await openPair(world);
        await store.set('sid', plain({ a: 1 }));
        const session = await loaded(store);
        const its = [session, Object.getPrototypeOf(session), Object.prototype].flatMap(Object.getOwnPropertyNames);
        const keys = [...new Set(its)].filter((key) => key !== 'a' && key !== 'cookie');
        for (const key of ['id', 'req', 'save', 'reload', 'toString', '__proto__']) assert(keys.includes(key), key);
        const text = (a: number) => `{${keys.map((key) => `${JSON.stringify(key)}:"kept"`).join()},"a":${a}}`;
        await table.change({ data: text(1) });
        for (const a of [2, 3]) {
          const request = await loaded(store);
          assert.equal(typeof request.save, 'function');
          request.a = a;
          await store.set('sid', request);
          const [row] = await table.rows();
          assert.deepEqual(JSON.parse(String(row?.data)), JSON.parse(text(a)));
        }
      });
    });

    describe('several saves of one request', () => {
      it('keeps, at the second save, what a merge brought in at the first', async () => {
        const { stores, store } = await openPair(world);
        await store.set('sid', plain({ old: 1, list: { x: 1 } }));
        const [one, two] = [await loaded(stores[0]), await loaded(stores[1])];
        one.theirs = 1;
        one.list.theirs = 1;
        delete one.old;
        await stores[0].set('sid', one);
        two.ours = 1;
        await stores[1].set('sid', two);
        const merged = { theirs: 1, list: { x: 1, theirs: 1 }, ours: 1 };
        assert.deepEqual(await dataOf(store), merged);

        await stores[1].set('sid', two);
        assert.deepEqual(await dataOf(store), merged, 'a second save of the same');
        two.more = 1;
        await stores[1].set('sid', two);
        assert.deepEqual(await dataOf(store), { ...merged, more: 1 }, 'a second save with a change');
        delete two.ours;
        one.last = 1;
        await stores[0].set('sid', one);
        await stores[1].set('sid', two);
        assert.deepEqual(
          await dataOf(store),
          { theirs: 1, list: { x: 1, theirs: 1 }, more: 1, last: 1 },
          'a third one against another conflict',
        );
      });

      it('takes back in the second save what only this request had set', async () => {
        const { store } = await openPair(world);
        await store.set('sid', plain());
        const request = await loaded(store);
        request.progress = 1;
        await store.set('sid', request);
        delete request.progress;
        await store.set('sid', request);
        assert.deepEqual(await dataOf(store), {});
      });

      it('saves a new session again without losing what others added to it', async () => {
        const { stores, store } = await openPair(world);
        const made = generated(store, 'sid', { user: 'ann' });
        await store.set('sid', made);
        const other = await loaded(stores[1]);
        other.other = 1;
        await stores[1].set('sid', other);
        made.mine = 1;
        await store.set('sid', made);
        assert.deepEqual(await dataOf(store), { user: 'ann', other: 1, mine: 1 });
      });

      it('starts afresh after a reload', async () => {
        const { stores, store } = await openPair(world);
        await store.set('sid', plain({ a: 1 }));
        const request: AnySession = await loaded(store);
        const req: any = request.req;
        const other = await loaded(stores[1]);
        other.b = 1;
        delete other.a;
        await stores[1].set('sid', other);
        request.forgotten = 1;
        await promisify(request.reload).call(request);
        assert.deepEqual(Object.keys(req.session).sort(), ['b', 'cookie']);
        req.session.c = 1;
        await store.set('sid', req.session);
        assert.deepEqual(await dataOf(store), { b: 1, c: 1 });
      });

      it('saves what the session was at the call, for each of two saves not awaited', async () => {
        const { store } = await openPair(world);
        await store.set('sid', plain());
        const request = await loaded(store);
        request.a = 1;
        request.b = { c: 1 };
        const first = store.set('sid', request);
        delete request.a;
        request.b.c = 2;
        request.d = 1;
        const read = dataOf(store);
        const second = store.set('sid', request);
        request.late = 1;
        await Promise.all([first, second]);
        assert.deepEqual(await dataOf(store), { b: { c: 2 }, d: 1 });
        assert.deepEqual(await read, { a: 1, b: { c: 1 } }, 'a get between the two sees the first');
      });
    });

    describe('calls on one session take effect in call order', () => {
      type Call = 'save' | 'touch' | 'destroy' | 'replace';
      const calls: Call[] = ['save', 'touch', 'destroy', 'replace'];
      const pairs = calls.flatMap((first) => calls.map((second): [Call, Call] => [first, second]));

      it('whichever two kinds they are', async () => {
        for (const [first, second] of pairs) {
          const { store } = await openPair(world, { touchAfter: 0 });
          await store.set('sid', plain({ user: 'ann' }));
          const request = await loaded(store);
          request.changed = true;
          const start: Record<Call, () => Promise<unknown>> = {
            save: () => store.set('sid', request),
            touch: () => store.touch('sid', request),
            destroy: () => store.destroy('sid'),
            replace: () => store.set('sid', plain({ fresh: true })),
          };
          await Promise.all([start[first](), start[second]()]);
          let expected: any = { user: 'ann' };
          for (const call of [first, second]) {
            if (call === 'destroy') expected = null;
            else if (call === 'replace') expected = { fresh: true };
            else if (call === 'save' && expected) {
              expected = expected.fresh ? { fresh: true, changed: true } : { ...expected, changed: true };
            }
          }
          assert.deepEqual(await dataOf(store), expected, `${first}, then ${second}`);
          await store.close();
        }
      });

      it('however many there are: the last one wins', async () => {
        const { store } = await openPair(world);
        const answers: Promise<unknown>[] = [];
        for (let n = 0; n < 50; n++) {
          answers.push(store.set('sid', plain({ n })));
          answers.push(store.destroy('sid'));
          answers.push(store.set('sid', plain({ n, again: true })));
          answers.push(store.get('sid').then((found: any) => assert.equal(found.n, n)));
        }
        await Promise.all(answers);
        assert.deepEqual(await dataOf(store), { n: 49, again: true });
      });

      it('and a session does not wait for another one', async () => {
        const { table, store } = await openPair(world);
        await Promise.all([store.set('locked', plain()), store.set('free', plain())]);
        const [locked, free] = [await loaded(store, 'locked'), await loaded(store, 'free')];
        locked.a = free.a = 1;
        let saving: Promise<void> | undefined;
        await table.whileLocked('locked', async () => {
          saving = store.set('locked', locked);
          await store.set('free', free);
          assert.deepEqual(await dataOf(store, 'free'), { a: 1 });
        });
        await saving;
        assert.deepEqual(await dataOf(store, 'locked'), { a: 1 });
      });
    });

    describe('no session is revived', () => {
      const endings: Record<string, (store: PgStore, table: WorldTable) => Promise<unknown>> = {
        'destroy in this process': (store) => store.destroy('sid'),
        clear: (store) => store.clear(),
        'an expiry and autodelete': async (store, table) => {
          await table.change({ expiresInMs: -1000 });
          assert.equal(await store.autodelete(), 1);
        },
        'plain SQL': (_, table) => table.deleteAll(),
        truncate: (_, table) => table.deleteAll('truncate'),
        destroySessionsOf: async (store) => assert.equal(await store.destroySessionsOf('ann'), 1),
        regenerate: (store) => {
          const req: any = { sessionID: 'sid', sessionStore: store };
          (store as any).generate = (request: any) => {
            request.session = generated(store, 'fresh');
          };
          return promisify(store.regenerate.bind(store))(req);
        },
      };

      for (const [ending, end] of Object.entries(endings)) {
        for (const where of ['this process', 'another process']) {
          it(`after ${ending}, in ${where}: by no save and no touch`, async () => {
            const { table, stores, store } = await openPair(world, {
              touchAfter: 0,
              user: (data: any) => data.user,
            });
            const other = where === 'this process' ? store : stores[1];
            await store.set('sid', plain({ user: 'ann' }));
            const [changed, unchanged, touched, cookie] = [
              await loaded(store),
              await loaded(store),
              await loaded(store),
              await loaded(store),
            ];
            changed.a = 1;
            cookie.cookie.maxAge = HOUR;
            await end(other, table);
            const events = told(store);
            await store.set('sid', changed);
            await store.set('sid', unchanged);
            await store.touch('sid', touched);
            await store.touch('sid', cookie);
            await store.set('sid', changed);
            await tick();
            assert.equal(await store.get('sid'), null);
            assert.deepEqual(await table.rows(), []);
            const handle = handleOf('sid');
            assert.deepEqual(events, [
              ['dropped', handle, 'set', 'destroyed'],
              ['dropped', handle, 'set', 'destroyed'],
              ['dropped', handle, 'touch', 'destroyed'],
              ['dropped', handle, 'touch', 'destroyed'],
              ['dropped', handle, 'set', 'destroyed'],
            ]);
          });
        }
      }

      for (const [what, changes] of [
        ['expired', { expiresInMs: -HOUR }],
        ['reached `maxLifetime`', { createdAgoMs: HOUR }],
      ] as const) {
        it(`after it ${what}, its row still there: by no save and no touch`, async () => {
          const { table, store } = await openPair(world, { touchAfter: 0, maxLifetime: 3600 });
          await store.set('sid', plain({ user: 'ann' }, 2 * HOUR));
          const [changed, touched, cookie] = [await loaded(store), await loaded(store), await loaded(store)];
          changed.a = 1;
          cookie.cookie.maxAge = HOUR;
          await table.change(changes);
          const before = await contents(table);
          const events = told(store);
          await store.set('sid', changed);
          await store.touch('sid', touched);
          await store.set('sid', cookie);
          await tick();
          assert.equal(await store.get('sid'), null);
          assert.deepEqual(await contents(table), before);
          const handle = handleOf('sid');
          assert.deepEqual(events, [
            ['dropped', handle, 'set', 'destroyed'],
            ['dropped', handle, 'touch', 'destroyed'],
            ['dropped', handle, 'set', 'destroyed'],
          ]);
        });
      }

      it('by a save of a session that was new in its request, either', async () => {
        const { stores, store, table } = await openPair(world);
        const made = generated(store, 'sid', { user: 'ann' });
        await store.set('sid', made);
        await stores[1].destroy('sid');
        made.late = 1;
        const events = told(store);
        await store.set('sid', made);
        await tick();
        assert.deepEqual(await table.rows(), []);
        assert.deepEqual(events, [['dropped', handleOf('sid'), 'set', 'destroyed']]);
      });

      it('by a save that is under way when the row goes', async () => {
        const { table, store } = await openPair(world);
        for (let round = 0; round < 20; round++) {
          await store.set('sid', plain({ round }));
          const request = await loaded(store);
          request.a = round;
          await Promise.all([store.set('sid', request), table.deleteAll()]);
          assert.deepEqual(await table.rows(), []);
        }
      });

      it('by a touch: it creates no row, with a snapshot or without', async () => {
        const { table, store } = await openPair(world, { touchAfter: 0 });
        await store.touch('sid', plain({ user: 'ann' }));
        await store.touch('sid', generated(store, 'sid', { user: 'ann' }));
        assert.deepEqual(await table.rows(), []);
      });

      it('even where its session ID is used again: the old data stay away', async () => {
        // Each row starts at a random version, so that a stale snapshot does not take the new row for its own.
        const { table, stores, store } = await openPair(world);
        const versions = new Set<number>();
        for (let round = 0; round < 20; round++) {
          await store.set('sid', plain({ user: 'ann', secret: 'of ann' }));
          const [row] = await table.rows();
          versions.add(Number(row?.version));
          const stale = await loaded(store);
          stale.late = 1;
          await stores[1].destroy('sid');
          await stores[1].set('sid', plain({ user: 'bob' }));
          await store.set('sid', stale);
          assert.deepEqual(await dataOf(store), { user: 'bob', late: 1 });
          await store.destroy('sid');
        }
        assert(versions.size > 15, 'the first versions are not random');
      });
    });

    describe('sessions without a snapshot', () => {
      it('replace the row: plain objects, and what `get` gave', async () => {
        const { stores, store } = await openPair(world);
        await store.set('sid', plain({ a: 1, b: 1 }));
        const found: any = await store.get('sid');
        await stores[1].set('sid', plain({ a: 2, c: 1 }));
        assert.deepEqual(await dataOf(store), { a: 2, c: 1 });
        found.d = 1;
        await store.set('sid', found);
        assert.deepEqual(await dataOf(store), { a: 1, b: 1, d: 1 });
        const object = plain({ x: 1 });
        for (const n of [1, 2]) {
          await stores[1].set('sid', plain({ y: n }));
          await store.set('sid', object);
          assert.deepEqual(await dataOf(store), { x: 1 }, `save ${n}`);
        }
      });

      it('also one saved under another session ID than it was loaded with', async () => {
        const { store } = await openPair(world);
        await store.set('sid', plain({ a: 1 }));
        await store.set('other', plain({ b: 1 }));
        const request = await loaded(store);
        request.c = 1;
        await store.set('other', request);
        assert.deepEqual([await dataOf(store), await dataOf(store, 'other')], [{ a: 1 }, { a: 1, c: 1 }]);
      });
    });

    describe('a session that reaches the store by another way', () => {
      it('wrapped in a Proxy keeps what others changed, and is not revived', async () => {
        const { stores, store } = await openPair(world);
        for (const destroyed of [false, true]) {
          await store.set('sid', plain());
          const [one, two] = [new Proxy(await loaded(store), {}), await loaded(stores[1])];
          one.a = two.b = 1;
          if (destroyed) await stores[1].destroy('sid');
          else await stores[1].set('sid', two);
          await store.set('sid', one);
          assert.deepEqual(await dataOf(store), destroyed ? null : { a: 1, b: 1 });
        }
      });

      it('saved by another PgStore of the same table, changed or not: the same', async () => {
        const { stores, store } = await openPair(world, { touchAfter: 0 });
        const events = told(store);
        await store.set('sid', plain());
        const [one, two] = [await loaded(stores[1]), await loaded(store)];
        one.a = two.b = 1;
        await store.set('sid', two);
        await store.set('sid', one);
        assert.deepEqual(await dataOf(store), { a: 1, b: 1 });
        const unchanged = await loaded(stores[1]);
        await store.set('sid', unchanged);
        assert.deepEqual(await dataOf(store), { a: 1, b: 1 });
        const stale = [await loaded(stores[1]), await loaded(stores[1]), one];
        await store.destroy('sid');
        (stale[0] as AnySession).late = 1;
        for (const session of stale) await store.set('sid', session);
        assert.equal(await store.get('sid'), null);
        await tick();
        assert.deepEqual(events.filter(([event]) => event === 'dropped').length, 3);
      });

      it('saved by a PgStore of another table, changed or not, replaces there', async () => {
        for (const change of [false, true]) {
          const { store: old } = await openPair(world);
          const { stores, store } = await openPair(world);
          await old.set('sid', plain({ n: 1 }));
          const data = await old.get('sid');
          const session = store.createSession(
            { sessionID: 'sid', sessionStore: store } as any,
            data as any,
          ) as AnySession;
          const late = store.createSession({ sessionID: 'sid', sessionStore: store } as any, data as any) as AnySession;
          if (change) session.a = 1;
          await store.set('sid', session);
          assert.deepEqual(await dataOf(store), change ? { n: 1, a: 1 } : { n: 1 });
          // After this save it is a session of this table.
          const other = await loaded(stores[1]);
          other.b = 1;
          await stores[1].set('sid', other);
          session.c = late.d = 1;
          await store.set('sid', session);
          await store.set('sid', late);
          assert.deepEqual(await dataOf(store), { n: 1, ...(change ? { a: 1 } : {}), b: 1, c: 1, d: 1 });
          await stores[1].destroy('sid');
          session.e = 1;
          await store.set('sid', session);
          assert.equal(await store.get('sid'), null);
        }
      });

      it('of another table, destroyed there meanwhile, is not revived in this one', async () => {
        const { store: old } = await openPair(world);
        const { store } = await openPair(world);
        await old.set('sid', plain({ n: 1 }));
        const data = await old.get('sid');
        const session = store.createSession({ sessionID: 'sid', sessionStore: store } as any, data as any);
        await old.destroy('sid');
        await store.set('sid', session);
        assert.equal(await store.get('sid'), null);
      });

      it('of the same table but another prefix is a new session', async () => {
        const { table, store } = await openPair(world);
        const { store: other } = await table.open({ prefix: 'other:' });
        await store.set('sid', plain({ n: 1 }));
        await other.set('sid', await loaded(store));
        assert.deepEqual(await dataOf(other), { n: 1 });
        assert.deepEqual(await dataOf(store), { n: 1 });
      });
    });

    describe('the cookie', () => {
      it('is stored where only `maxAge` or `sameSite` changed, by touch and by save', async () => {
        for (const call of ['set', 'touch'] as const) {
          const { table, store } = await openPair(world);
          await store.set('sid', generated(store, 'sid', { a: 1 }));
          const request = await loaded(store);
          request.cookie.maxAge = HOUR;
          await store[call]('sid', request);
          const found = await loaded(store);
          assert.equal(maxAgeOf(found.cookie), HOUR);
          assert((await expiresIn(table)) > HOUR / 2);

          found.cookie.sameSite = 'strict';
          await store[call]('sid', found);
          assert.equal((await loaded(store)).cookie.sameSite, 'strict');
          assert.deepEqual(await dataOf(store), { a: 1 });
        }
      });

      it('stays changed when a parallel request that did not change it is saved or touched', async () => {
        for (const call of ['set', 'set changed', 'touch'] as const) {
          const { table, stores, store } = await openPair(world, { touchAfter: 0 });
          await store.set('sid', generated(store, 'sid', { a: 1 }));
          const [one, two] = [await loaded(stores[0]), await loaded(stores[1])];
          one.cookie.maxAge = HOUR;
          await stores[0].touch('sid', one);
          if (call === 'set changed') two.b = 1;
          two.touch();
          await stores[1][call === 'touch' ? 'touch' : 'set']('sid', two);
          assert.equal(maxAgeOf((await loaded(store)).cookie), HOUR, call);
          assert((await expiresIn(table)) > HOUR / 2, call);
        }
      });

      it('takes the later of two changes', async () => {
        const { stores, store } = await openPair(world);
        await store.set('sid', generated(store, 'sid'));
        const [one, two] = [await loaded(stores[0]), await loaded(stores[1])];
        one.cookie.maxAge = HOUR;
        two.cookie.maxAge = 2 * HOUR;
        await stores[0].touch('sid', one);
        await stores[1].touch('sid', two);
        assert.equal(maxAgeOf((await loaded(store)).cookie), 2 * HOUR);
      });

      it('is stored with a save of other data, in one statement', async () => {
        const { store, sent } = await openCounted();
        await store.set('sid', generated(store, 'sid'));
        const request = await loaded(store);
        request.a = 1;
        request.cookie.maxAge = HOUR;
        const statements = await sent(() => store.set('sid', request));
        assert.deepEqual(statements, ['update']);
        assert.equal(maxAgeOf((await loaded(store)).cookie), HOUR);
      });
    });

    describe('touchAfter', () => {
      /** Sets a session's expiry as if it had last been touched `seconds` ago. */
      async function age(table: WorldTable, seconds: number): Promise<void> {
        await table.change({ expiresInMs: (await expiresIn(table)) - seconds * 1000 });
      }

      /**
       * Counts the statements of a request that loads its session and touches it at the end, as express-session does.
       */
      async function touches(options: PgStoreOptions, maxAge: number | null, seconds: number, call: 'set' | 'touch') {
        const { store, table, sent } = await openCounted(options);
        await store.set('sid', generated(store, 'sid', { a: 1 }, maxAge));
        const before = await expiresIn(table);
        await age(table, seconds);
        const request = await loaded(store);
        const statements = await sent(async () => {
          request.touch();
          await store[call]('sid', request);
        });
        const after = await expiresIn(table);
        if (statements.length === 0) {
          assert(after > before - seconds * 1000 - 60_000);
          return 0;
        }
        assert.deepEqual(statements, ['update']);
        assert(after > before - 60_000, 'the expiry was not put off');
        return 1;
      }

      const settings: [
        what: string,
        options: PgStoreOptions,
        maxAge: number | null,
        skipped: number,
        written: number,
      ][] = [
        ['60 seconds by default', {}, HOUR, 50, 61],
        ['as many seconds as it says', { touchAfter: 300 }, HOUR, 290, 301],
        ['at most a tenth of the lifetime', { touchAfter: 600 }, HOUR, 350, 361],
        ['at most a tenth of a short lifetime, by default', {}, 300_000, 25, 31],
        ['at most a tenth of `ttl` where the cookie has no expiry', { ttl: 300 }, null, 25, 31],
      ];
      for (const call of ['touch', 'set'] as const) {
        for (const [what, options, maxAge, skipped, written] of settings) {
          it(`skips ${call === 'touch' ? 'touches' : 'saves of nothing new'} within ${what}`, async () => {
            assert.equal(await touches(options, maxAge, 0, call), 0);
            assert.equal(await touches(options, maxAge, skipped, call), 0);
            assert.equal(await touches(options, maxAge, written, call), 1);
          });
        }

        it(`0: each ${call === 'touch' ? 'touch' : 'save of nothing new'} writes`, async () => {
          assert.equal(await touches({ touchAfter: 0 }, HOUR, 0, call), 1);
        });
      }

      it('writes a shorter `maxAge` always', async () => {
        const { store, table, sent } = await openCounted({ touchAfter: 600 });
        await store.set('sid', generated(store, 'sid', {}, HOUR));
        const request = await loaded(store);
        request.cookie.maxAge = HOUR - 5000;
        assert.equal((await sent(() => store.touch('sid', request))).length, 1);
        assert((await expiresIn(table)) <= HOUR - 5000);
        assert.equal(maxAgeOf((await loaded(store)).cookie), HOUR - 5000);
        assert.equal((await sent(() => store.touch('sid', request))).length, 0, 'once');
      });

      it('counts from what the request wrote last', async () => {
        const { store, sent, table } = await openCounted();
        await store.set('sid', generated(store, 'sid', {}, HOUR));
        await age(table, 120);
        const request = await loaded(store);
        request.touch();
        assert.equal((await sent(() => store.touch('sid', request))).length, 1);
        assert.equal((await sent(() => store.touch('sid', request))).length, 0);
      });

      it('puts the expiry off with each save of something new', async () => {
        const { store, table } = await openCounted();
        await store.set('sid', generated(store, 'sid', {}, HOUR));
        await age(table, 30);
        const before = await expiresIn(table);
        const request = await loaded(store);
        request.touch();
        request.a = 1;
        await store.set('sid', request);
        assert((await expiresIn(table)) > before + 20_000);
        assert.deepEqual(await dataOf(store), { a: 1 });
      });

      it('destroys nothing, without a statement, in a request that never wrote and whose session is gone', async () => {
        const { store, table, sent } = await openCounted();
        await store.set('sid', generated(store, 'sid', {}, HOUR));
        const request = await loaded(store);
        await store.destroy('sid');
        assert.equal((await sent(() => store.touch('sid', request))).length, 0);
        assert.deepEqual(await table.rows(), []);
      });
    });

    describe('what it costs', () => {
      it('is two more statements for each save that it meets', async () => {
        const { store, table, sent } = await openCounted();
        const { store: other } = await table.open();
        await store.set('sid', generated(store, 'sid'));
        const [ours, theirs] = [await loaded(store), await loaded(other)];
        theirs.a = 1;
        ours.b = 1;
        await other.set('sid', theirs);
        const statements = await sent(() => store.set('sid', ours));
        assert.deepEqual(statements, ['update', 'select', 'update']);
      });

      it('is one parsing for a load that never saves, and none more for a save without conflict', async () => {
        const { store } = await openPair(world);
        await store.set('sid', plain({ mark: 'of the data' }));
        const parse = JSON.parse;
        let parsed = 0;
        JSON.parse = (text: string, ...rest: any[]) => {
          if (String(text).includes('of the data')) parsed++;
          return parse(text, ...rest);
        };
        try {
          const request = await loaded(store);
          await store.touch('sid', request);
          await store.set('sid', request);
          assert.equal(parsed, 1);
          request.changed = 1;
          await store.set('sid', request);
          assert.equal(parsed, 1);
        } finally {
          JSON.parse = parse;
        }
        assert.deepEqual(await dataOf(store), { mark: 'of the data', changed: 1 });
      });
    });

    describe('option `merge`', () => {
      /** Adds up what the sides counted. */
      const counters = (base: any, ours: any, theirs: any) => ({
        ...theirs,
        ...ours,
        n: (theirs.n ?? 0) + (ours.n ?? 0) - (base.n ?? 0),
      });

      it('gets what the request saw, what it holds, and what the row holds', async () => {
        const seen: unknown[][] = [];
        const { stores } = await openPair(world, {
          merge: (...sides) => {
            seen.push(sides);
            return { merged: true };
          },
        });
        await stores[0].set('sid', plain({ a: 1 }));
        const [one, two] = [await loaded(stores[0]), await loaded(stores[1])];
        one.b = 1;
        two.c = 1;
        await stores[0].set('sid', one);
        assert.deepEqual(seen, [], 'without a conflict there is nothing to merge');
        await stores[1].set('sid', two);
        assert.deepEqual(seen, [[{ a: 1 }, { a: 1, c: 1 }, { a: 1, b: 1 }]]);
        assert.deepEqual(await dataOf(stores[0]), { merged: true });
      });

      it('may change its arguments', async () => {
        const { stores } = await openPair(world, {
          merge: (base: any, ours: any, theirs: any) => {
            base.x = ours.x = theirs.x = 1;
            return Object.assign(theirs, ours);
          },
        });
        await stores[0].set('sid', plain({ a: 1 }));
        const [one, two] = [await loaded(stores[0]), await loaded(stores[1])];
        one.b = 1;
        two.c = 1;
        await stores[0].set('sid', one);
        await stores[1].set('sid', two);
        await stores[1].set('sid', two);
        assert.deepEqual(await dataOf(stores[0]), { a: 1, b: 1, c: 1, x: 1 });
        assert.equal(two.x, undefined);
      });

      it('counts right where 40 requests in two processes counted one up each', async () => {
        const { stores } = await openPair(world, { merge: counters });
        await stores[0].set('sid', plain({ n: 0 }));
        const requests = await Promise.all(Array.from({ length: 40 }, (_, n) => loaded(stores[n % 2] as PgStore)));
        for (const request of requests) request.n++;
        await Promise.all(requests.map((request, n) => (stores[n % 2] as PgStore).set('sid', request)));
        assert.deepEqual(await dataOf(stores[0]), { n: 40 });
      });

      it('what it throws goes to the callback of that save, and the next save merges again', async () => {
        let fails = true;
        const { stores, store } = await openPair(world, {
          merge: (base: any, ours: any, theirs: any) => {
            if (fails) throw new Error('cannot merge these');
            return { ...counters(base, ours, theirs), merged: true };
          },
        });
        await store.set('sid', plain({ n: 1 }));
        const [one, two] = [await loaded(stores[0]), await loaded(stores[1])];
        one.n += 10;
        two.n += 100;
        await stores[0].set('sid', one);
        const error: any = await new Promise((resolve) => stores[1].set('sid', two, resolve));
        assert.equal(error.name, 'PgStoreError');
        assert.match(error.message, /PgStore\.set: cannot merge these/);
        assert.equal(error.cause.message, 'cannot merge these');
        assert.deepEqual(await dataOf(store), { n: 11 });
        fails = false;
        await stores[1].set('sid', two);
        assert.deepEqual(await dataOf(store), { n: 111, merged: true });
      });

      it('must return an object', async () => {
        for (const merged of [undefined, null, 5, 'text', [1], new Date(), Promise.resolve({ a: 1 })]) {
          const { stores } = await openPair(world, { merge: (() => merged) as any });
          await stores[0].set('sid', plain());
          const [one, two] = [await loaded(stores[0]), await loaded(stores[1])];
          one.a = two.b = 1;
          await stores[0].set('sid', one);
          await assert.rejects(stores[1].set('sid', two), { code: 'INVALID_SESSION', message: /option `merge`/ });
          assert.deepEqual(await dataOf(stores[0]), { a: 1 });
        }
      });
    });

    it('says so where data is nested too deep, and serves on', async () => {
      const { stores, store } = await openPair(world);
      await store.set('sid', plain());
      const request = await loaded(store);
      request.deep = JSON.parse('{"a":'.repeat(10_000) + 1 + '}'.repeat(10_000));
      await assert.rejects(store.set('sid', request), { name: 'PgStoreError', message: /call stack/i });
      const other = await loaded(stores[1]);
      other.a = 1;
      await stores[1].set('sid', other);
      request.deep = 1;
      await store.set('sid', request);
      assert.deepEqual(await dataOf(store), { a: 1, deep: 1 });
    });

    it('works on sessions of `store.load`', async () => {
      const { stores, store } = await openPair(world);
      await store.set('sid', plain());
      const one: any = await promisify(store.load.bind(store))('sid');
      const other = await loaded(stores[1]);
      other.b = 1;
      await stores[1].set('sid', other);
      one.a = 1;
      await store.set('sid', one);
      assert.deepEqual(await dataOf(store), { a: 1, b: 1 });
    });
  });
}
