/** Calls on users and prefixes destroy what is there, and what is being saved, and block no call on a session. */

import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setImmediate as tick } from 'node:timers/promises';
import type { Sql } from 'postgres';
import type { PgStore, PgStoreDiagnostics, PgStoreOptions } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { eventually, patiently } from '../support/eventually.js';
import { closeStores, freshTable, openStore, SHARDS, shardColumn, shardValue, sqlClient } from '../support/postgres.js';
import { type AnySession, data, generated, load, loaded, plain } from '../support/sessions.js';

const user = (session: any) => session.user;

async function open(options: PgStoreOptions = {}) {
  const table = freshTable();
  const store = await openStore({ table, user, touchAfter: 0, ...options });
  await patiently(() => store.ready());
  return { store, table, sql: await sqlClient() };
}

/** Destroys all of ann's sessions with these IDs. */
const endings: Record<string, (store: PgStore, sids: string[]) => Promise<unknown>> = {
  clear: (store) => store.clear(),
  destroySessionsOf: (store) => store.destroySessionsOf('ann'),
  destroyByHandle: (store, sids) =>
    Promise.all(sids.map((sid) => store.destroyByHandle(handleOf(sid), { user: 'ann' }))),
};
const sids = Array.from({ length: 20 }, (_, n) => `sid${n}`);

/** Runs `work` while a row is locked. */
async function whileLocked(sql: Sql, table: string, sid: string, work: () => Promise<unknown>): Promise<void> {
  await sql.begin(async (lock) => {
    await lock`select from ${lock(table)} where sid = ${sid} for update`;
    await work();
  });
}

describe('calls on users and prefixes', () => {
  afterEach(closeStores);

  for (const [name, end] of Object.entries(endings)) {
    describe(name, () => {
      it('ends what was saved before it, not awaited', async () => {
        const { store } = await open();
        for (let round = 0; round < 20; round++) {
          const saves = sids.map((sid) => store.set(sid, plain({ user: 'ann' })));
          await Promise.all([...saves, end(store, sids)]);
          assert.equal(await store.length(), 0);
        }
      });

      it('ends what signed in before it, not awaited', async () => {
        const { store } = await open();
        await Promise.all(sids.map((sid) => store.set(sid, plain())));
        const requests = await Promise.all(sids.map((sid) => loaded(store, sid)));
        const saves = requests.map((request, n) =>
          store.set(sids[n] as string, Object.assign(request, { user: 'ann' })),
        );
        await Promise.all([...saves, end(store, sids)]);
        assert.equal(await store.length(), 0);
      });

      it('is final for requests that had loaded a session; what is saved afterwards stays', async () => {
        const { store, table, sql } = await open();
        for (let round = 0; round < 10; round++) {
          await Promise.all(sids.map((sid) => store.set(sid, plain({ user: 'ann' }))));
          const stale = await Promise.all(sids.map((sid) => loaded(store, sid)));
          const dropped: unknown[] = [];
          store.on('dropped', (...args) => dropped.push(args));
          await end(store, sids);
          const answers = sids.map((sid, n) => {
            const session = Object.assign(stale[n] as AnySession, { late: true });
            if (n % 5 === 0) return store.get(sid);
            if (n % 5 === 1) return store.set(sid, session);
            if (n % 5 === 2) return store.touch(sid, session);
            if (n % 5 === 3) return store.set(sid, plain({ user: 'ann', fresh: true }));
            return store.set(sid, generated(store, sid, { user: 'ann', fresh: true }));
          });
          for (const [n, answer] of (await Promise.all(answers)).entries()) if (n % 5 === 0) assert.equal(answer, null);
          await tick();
          const rows = await sql`select sid, data from ${sql(table)}`;
          assert.deepEqual(rows.map(({ sid }) => sid).sort(), sids.filter((_, n) => n % 5 > 2).sort());
          assert(rows.every((row) => row.data.fresh));
          assert.equal(dropped.length, 8);
          store.removeAllListeners('dropped');
          await store.clear();
        }
      });

      it('waits for no call on another session, and none for it: a locked row fails its own calls only', async () => {
        const { store, table, sql } = await open({ timeout: 3000 });
        await Promise.all(['locked', ...sids].map((sid) => patiently(() => store.set(sid, plain({ user: 'ann' })))));
        const request = await patiently(() => loaded(store, 'locked'));
        const failures: unknown[] = [];
        await whileLocked(sql, table, 'locked', async () => {
          const own = [store.set('locked', Object.assign(request, { a: 1 })), end(store, ['locked', ...sids])];
          own.push(store.get('locked'));
          for (const call of own) call.catch((error) => failures.push(error.code));
          await eventually(async () =>
            (await Promise.all(sids.map((sid) => store.get(sid)))).every((one) => one === null),
          );
          await Promise.all(sids.map((sid) => patiently(() => store.set(sid, plain({ user: 'ann', fresh: true })))));
          await Promise.allSettled(own);
        });
        assert.deepEqual(failures, ['TIMEOUT', 'TIMEOUT', 'TIMEOUT']);
        for (const sid of sids) {
          assert.deepEqual(await patiently(() => data(store, sid)), { user: 'ann', fresh: true });
        }
      });

      it('leaves what another process saves meanwhile, also to calls of this one', async () => {
        const { store, table, sql } = await open();
        const other = await openStore({ table, user });
        await store.set('locked', plain({ user: 'ann' }));
        let ending: Promise<unknown> | undefined;
        const kinds: string[] = [];
        const listen = (message: unknown) => {
          const { table: name, kind } = message as PgStoreDiagnostics['express-pg-store:statement'];
          if (name.endsWith(table)) kinds.push(kind);
        };
        subscribe('express-pg-store:statement', listen);
        await whileLocked(sql, table, 'locked', async () => {
          ending = end(store, ['locked']);
          // It has taken effect on what was there once it tries to delete the locked row.
          await eventually(() => kinds.includes('destroy'));
          await other.set('fresh', plain({ user: 'ann' }));
          const request = await loaded(store, 'fresh');
          request.seen = true;
          await store.set('fresh', request);
        });
        await ending;
        unsubscribe('express-pg-store:statement', listen);
        assert.equal(await load(store, 'locked'), undefined);
        assert.deepEqual(await data(store, 'fresh'), { user: 'ann', seen: true });
      });
    });
  }

  it('clear ends while others add sessions faster than it deletes', async () => {
    const sql = await sqlClient();
    const { table } = await open();
    let added = 0;
    const unsafe = (text: string, values: any[], options: object) => ({
      simple: () => sql.unsafe(text).simple(),
      values: async () => {
        if (text.includes('delete from')) {
          // After all keys that are there.
          await sql`insert into ${sql(table)} (${sql.unsafe(shardColumn)}sid, data, expires_at, delete_after)
            select ${sql.unsafe(shardValue('z'))}'z' || ${added}::integer + n, '{}', now() + interval '1 hour', now() + interval '1 hour'
            from generate_series(1, 600) n`;
          added += 600;
        }
        return sql.unsafe(text, values, options).values();
      },
    });
    const store = await openStore({ table, sql: Object.assign(() => {}, { unsafe }) as unknown as Sql });
    await Promise.all(Array.from({ length: 1200 }, (_, n) => store.set(`s${n}`, plain())));
    await store.clear();
    assert.equal(await store.length(), added);
    assert(added <= 6000 * (SHARDS ?? 1), 'a statement for each 256 sessions that were there');
  });

  it('destroySessionsOf excepts a session that is in use, and counts all others', async () => {
    const { store } = await open();
    const saves = sids.map((sid) => store.set(sid, plain({ user: 'ann' })));
    saves.push(store.set('bob', plain({ user: 'bob' })));
    const [count] = await Promise.all([store.destroySessionsOf('ann', { except: 'sid3' }), ...saves]);
    assert.equal(count, 19);
    assert.deepEqual((await store.ids()).sort(), ['bob', 'sid3']);
  });
});
