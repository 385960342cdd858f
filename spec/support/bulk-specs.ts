/**
 * Specs of calls on users and prefixes: they destroy the sessions that exist when their statement runs, and those that
 * `set` calls of their process were writing when they were made. They wait for no call on a session, and none waits for
 * them.
 */

import assert from 'node:assert/strict';
import { setImmediate as tick } from 'node:timers/promises';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { eventually, patiently } from './eventually.js';
import { type AnySession, data, generated, load, loaded, plain } from './sessions.js';
import type { World, WorldTable } from './worlds.js';

const user = (session: any) => session.user;
const sids = Array.from({ length: 20 }, (_, n) => `sid${n}`);

/** The calls that can destroy all of ann's sessions with the given IDs. */
const endings: Record<string, (store: PgStore, sids: string[]) => Promise<unknown>> = {
  clear: (store) => store.clear(),
  destroySessionsOf: (store) => store.destroySessionsOf('ann'),
  destroyByHandle: (store, sids) =>
    Promise.all(sids.map((sid) => store.destroyByHandle(handleOf(sid), { user: 'ann' }))),
};

const keysIn = async (table: WorldTable) => (await table.rows()).map(({ key }) => key);

/** @param world where the specs run */
export function describeBulkCalls(world: World): void {
  /** Creates a table with two stores on it, which stand for two processes. */
  async function open(options: PgStoreOptions = {}) {
    const table = await world.createTable();
    const all = { user, touchAfter: 0, ...options };
    return { table, store: (await table.open(all)).store, other: (await table.open(all)).store };
  }

  describe(`calls on users and prefixes, ${world.name}`, () => {
    afterEach(world.closeStores);

    for (const [name, end] of Object.entries(endings)) {
      describe(name, () => {
        it('destroys what was saved before it and not awaited: plain objects, new sessions, sign-ins', async () => {
          const { table, store } = await open();
          for (let round = 0; round < 20; round++) {
            await Promise.all(sids.map((sid, n) => n % 3 === 2 && store.set(sid, plain())));
            const requests = await Promise.all(sids.map((sid) => load(store, sid)));
            const saves = sids.map((sid, n) => {
              if (n % 3 === 0) return store.set(sid, plain({ user: 'ann' }));
              if (n % 3 === 1) return store.set(sid, generated(store, sid, { user: 'ann' }));
              return store.set(sid, Object.assign(requests[n] as AnySession, { user: 'ann' }));
            });
            await Promise.all([...saves, end(store, sids)]);
            assert.deepEqual(await keysIn(table), []);
          }
        });

        it('destroys what a save that waits for its row writes later', async () => {
          const { table, store } = await open();
          await store.set('sid0', plain());
          const request = await loaded(store, 'sid0');
          let calls: Promise<unknown>[] = [];
          await table.whileLocked('sid0', async () => {
            calls = [store.set('sid0', Object.assign(request, { user: 'ann' })), end(store, ['sid0'])];
            // Once this call has been answered, the statement of the call above has run, and found no session of ann.
            await store.destroySessionsOf('nobody');
          });
          await Promise.all(calls);
          assert.deepEqual(await keysIn(table), []);
        });

        it('is final for requests that have loaded the sessions: they are dropped, here and elsewhere', async () => {
          const { table, store, other } = await open();
          await Promise.all(sids.map((sid) => store.set(sid, plain({ user: 'ann' }))));
          const dropped: unknown[] = [];
          for (const one of [store, other]) one.on('dropped', (...args) => dropped.push(args[2]));
          const stale = await Promise.all(sids.map((sid, n) => loaded(n % 2 ? store : other, sid)));
          await end(store, sids);
          await Promise.all(
            sids.map((sid, n) => {
              const process = n % 2 ? store : other;
              const session = stale[n] as AnySession;
              if (n % 3 === 0) return process.touch(sid, session);
              return process.set(sid, n % 3 === 1 ? Object.assign(session, { late: true }) : session);
            }),
          );
          await tick();
          assert.deepEqual(await keysIn(table), []);
          assert.deepEqual(dropped, Array(20).fill('destroyed'));
        });

        it('leaves what is created once it has taken effect, in whichever process, under the same IDs too', async () => {
          const { table, store, other } = await open();
          await Promise.all(['locked', ...sids].map((sid) => store.set(sid, plain({ user: 'ann' }))));
          let ending: Promise<unknown> | undefined;
          await table.whileLocked('locked', async () => {
            ending = end(store, ['locked', ...sids]);
            await eventually(async () => (await keysIn(table)).length === 1);
            await Promise.all(
              [...sids, 'new', 'newer'].map((sid, n) => (n % 2 ? store : other).set(sid, plain({ user: 'ann', n }))),
            );
            const request = await loaded(store, 'new');
            await store.set('new', Object.assign(request, { seen: true }));
          });
          await ending;
          assert.deepEqual(await keysIn(table), [...sids, 'new', 'newer'].sort());
          assert.equal((await data(store, 'new'))?.seen, true);
        });

        it('waits for no call on a session that it does not concern, and no such call waits for it', async () => {
          const { table, store } = await open();
          await Promise.all(['locked', ...sids].map((sid) => store.set(sid, plain({ user: 'ann' }))));
          await store.set('bob', plain({ user: 'bob' }));
          await table.whileLocked('locked', async () => {
            const request = await loaded(store, 'locked');
            // This save waits for its row. It does not concern the calls below.
            const waiting = store.set('locked', Object.assign(request, { user: 'carol' })).catch(() => {});
            if (name === 'destroyByHandle') await end(store, sids);
            else {
              void end(store, []).catch(() => {});
              await eventually(async () => (await store.get('sid0')) === null);
            }
            assert.equal(await store.destroySessionsOf('bob'), name === 'clear' ? 0 : 1);
            for (const sid of sids) assert.equal(await store.get(sid), null);
            await Promise.all(sids.map((sid) => store.set(sid, plain({ user: 'dora' }))));
            assert.equal(await store.destroySessionsOf('dora', { except: 'sid3' }), 19);
            void waiting;
          });
        });

        it('fails with `TIMEOUT` where a row that it concerns stays locked, and has destroyed all others', async () => {
          const { table, store } = await open({ timeout: 1000 });
          await Promise.all(['locked', ...sids].map((sid) => patiently(() => store.set(sid, plain({ user: 'ann' })))));
          await table.whileLocked('locked', async () => {
            await assert.rejects(end(store, ['locked', ...sids]), { code: 'TIMEOUT' });
          });
          assert.deepEqual(await keysIn(table), ['locked']);
          await patiently(() => end(store, ['locked']));
          assert.deepEqual(await keysIn(table), []);
        });
      });
    }

    describe('destroySessionsOf', () => {
      it('leaves the excepted session, also one that is just being saved, and counts the others', async () => {
        const { store } = await open();
        const saves = sids.map((sid) => store.set(sid, plain({ user: 'ann' })));
        saves.push(store.set('bob', plain({ user: 'bob' })));
        const [count] = await Promise.all([store.destroySessionsOf('ann', { except: 'sid3' }), ...saves]);
        assert.equal(count, 19);
        assert.deepEqual((await store.ids()).sort(), ['bob', 'sid3']);
      });

      it('counts each session once among many calls at once', async () => {
        const { store, other } = await open();
        await Promise.all(sids.map((sid) => store.set(sid, plain({ user: 'ann' }))));
        const calls = Array.from({ length: 10 }, (_, n) => (n % 2 ? store : other).destroySessionsOf('ann'));
        const counts = await Promise.all(calls);
        assert.equal(
          counts.reduce((sum, count) => sum + count, 0),
          20,
        );
      });

      it('is not kept up by a session whose `user` throws', async () => {
        const { table, store } = await open({
          user: (session: any) => {
            if (session.isBroken) throw new Error('of the app');
            return session.user;
          },
        });
        await store.set('sid', plain({ user: 'ann' }));
        const broken = assert.rejects(store.set('broken', plain({ isBroken: true })), /of the app/);
        assert.equal(await store.destroySessionsOf('ann'), 1);
        await broken;
        assert.deepEqual(await keysIn(table), []);
      });
    });

    describe('destroyByHandle', () => {
      it('finds a session by its handle from before a rotation of `secret`', async () => {
        const table = await world.createTable();
        const { store: before } = await table.open({ user, secret: 'old' });
        for (const sid of ['moved', 'not moved', 'kept']) await before.set(sid, plain({ user: 'ann', sid }));
        const shown = await before.sessionsOf('ann');
        const handleOfSession = (sid: string) =>
          String(shown.find(({ session }) => (session as any).sid === sid)?.handle);
        const { store } = await table.open({ user, secret: ['new', 'old'] });
        await store.set('moved', Object.assign(await loaded(store, 'moved'), { more: 1 }));
        assert.equal(await store.destroyByHandle(handleOfSession('moved'), { user: 'bob' }), false);
        for (const sid of ['moved', 'not moved']) {
          assert.equal(await store.destroyByHandle(handleOfSession(sid), { user: 'ann' }), true);
          assert.equal(await store.destroyByHandle(handleOfSession(sid), { user: 'ann' }), false);
        }
        assert.deepEqual(await store.ids(), ['kept']);
      });
    });

    describe('limitSessionsOf', () => {
      /** Creates sessions of ann's whose last activity is in the order of `sids`, the oldest first. */
      async function openWith(sids: readonly string[], options: PgStoreOptions = {}) {
        const opened = await open(options);
        for (const sid of sids) await opened.store.set(sid, plain({ user: 'ann' }));
        await opened.store.set('bob', plain({ user: 'bob' }));
        const left = async () => (await opened.store.ids()).filter((sid) => sid !== 'bob').sort();
        return { ...opened, left };
      }

      it('keeps the most recently active, and says how many it destroyed', async () => {
        const { store, left } = await openWith(['a', 'b', 'c', 'd']);
        // The oldest session is used again, which makes it the most recently active one.
        await store.touch('a', await loaded(store, 'a'));
        assert.equal(await store.limitSessionsOf('ann', 4), 0);
        assert.equal(await store.limitSessionsOf('ann', 3), 1);
        assert.deepEqual(await left(), ['a', 'c', 'd']);
        assert.equal(await store.limitSessionsOf('ann', 1), 2);
        assert.deepEqual(await left(), ['a']);
        assert.equal(await store.limitSessionsOf('ann', 0), 1);
        assert.deepEqual(await left(), []);
        assert.equal(await store.limitSessionsOf('ann', 0), 0);
        assert(await store.get('bob'));
      });

      it('keeps so many in all, `except` among them, however old that one is', async () => {
        const { store, left } = await openWith(['a', 'b', 'c', 'd']);
        assert.equal(await store.limitSessionsOf('ann', 2, { except: 'a' }), 2);
        assert.deepEqual(await left(), ['a', 'd']);
        assert.equal(await store.limitSessionsOf('ann', 1, { except: 'a' }), 1);
        assert.deepEqual(await left(), ['a']);
        assert.equal(await store.limitSessionsOf('ann', 0, { except: 'a' }), 0);
        assert.deepEqual(await left(), ['a']);
      });

      it('destroys expired sessions, which take no place', async () => {
        const { store, left, table } = await openWith(['a', 'b']);
        await store.set('expired', plain({ user: 'ann' }, -1000));
        assert.equal(await store.limitSessionsOf('ann', 2), 1);
        assert.deepEqual(await left(), ['a', 'b']);
        assert.deepEqual(await keysIn(table), ['a', 'b', 'bob']);
      });

      it('works with the keys of an older secret, and with `hashIds`', async () => {
        for (const options of [{ secret: ['new', 'old'] }, { hashIds: true }, { hashIds: true, secret: 's' }]) {
          const { store } = await open(options);
          for (const sid of ['a', 'b', 'c']) await store.set(sid, plain({ user: 'ann' }));
          assert.equal(await store.limitSessionsOf('ann', 2, { except: 'a' }), 1);
          const there = await Promise.all(['a', 'b', 'c'].map((sid) => store.get(sid)));
          assert.deepEqual(
            there.map((session) => session !== null),
            [true, false, true],
          );
        }
      });

      it('leaves so many once 200 sign-ins of one user at once have ended, and one more call is made', async () => {
        const { store, other, left } = await openWith([]);
        const signIns = Array.from({ length: 200 }, async (_, n) => {
          const process = n % 2 ? store : other;
          const sid = `sid${n}`;
          await process.set(sid, plain({ user: 'ann' }));
          await process.limitSessionsOf('ann', 3, { except: sid });
        });
        await Promise.all(signIns);
        await store.limitSessionsOf('ann', 3);
        assert((await left()).length <= 3);
        await store.set('last', plain({ user: 'ann' }));
        await store.limitSessionsOf('ann', 1, { except: 'last' });
        assert.deepEqual(await left(), ['last']);
      });

      it('refuses what is not a number of sessions, not a session ID, or not an option, and destroys nothing', async () => {
        const { store, left } = await openWith(['a', 'b']);
        for (const most of [-1, 1.5, '3', Number.NaN, Number.POSITIVE_INFINITY, undefined, null] as any[]) {
          await assert.rejects(store.limitSessionsOf('ann', most), {
            name: 'TypeError',
            message: 'PgStore.limitSessionsOf: `most`: expected a whole number, 0 or more',
          });
        }
        for (const options of [{ exept: 'a' }, { limit: 1 }, 'a', 5] as any[]) {
          await assert.rejects(store.limitSessionsOf('ann', 0, options), {
            name: 'TypeError',
            message: /^PgStore\.limit/,
          });
        }
        for (const except of [5, {}, 'a\0', '\ud800'] as any[]) {
          await assert.rejects(store.limitSessionsOf('ann', 0, { except }), {
            code: 'INVALID_SID',
            message: /`except`/,
          });
        }
        await assert.rejects(store.limitSessionsOf({} as any, 0), { code: 'INVALID_USER' });
        assert.deepEqual(await left(), ['a', 'b']);
        assert.equal(await store.limitSessionsOf('ann', 1, { except: undefined }), 1);
        assert.equal(await store.limitSessionsOf('ann', 0, null), 1);
      });
    });

    describe('sessionsOf', () => {
      it('gives the newest, no more than `limit`', async () => {
        const { store } = await open();
        for (const sid of ['a', 'b', 'c']) await store.set(sid, plain({ user: 'ann', sid }));
        const listed = async (options?: { limit?: number }) =>
          (await store.sessionsOf('ann', options)).map(({ session }) => (session as any).sid);
        assert.deepEqual(await listed(), ['c', 'b', 'a']);
        assert.deepEqual(await listed({}), ['c', 'b', 'a']);
        assert.deepEqual(await listed({ limit: 2 }), ['c', 'b']);
        for (const limit of [0, -1, 1.5, '3', Number.NaN] as any[]) {
          await assert.rejects(store.sessionsOf('ann', { limit }), {
            name: 'TypeError',
            message: 'PgStore.sessionsOf: `limit`: expected a whole number, 1 or more',
          });
        }
        await assert.rejects(store.sessionsOf('ann', { most: 2 } as any), { name: 'TypeError' });
      });
    });
  });
}
