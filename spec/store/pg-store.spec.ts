/**
 * PgStore keeps express-session's contract, by the database's clock, with a callback or a promise.
 */

import assert from 'node:assert/strict';
import session from 'express-session';
import defaultExport, { PgStore } from '../../lib/index.js';
import { eventually, patiently } from '../support/eventually.js';
import { closeStores, freshTable, openStore, shardColumn, shardValue, sqlClient } from '../support/postgres.js';
import { generated, load, plain } from '../support/sessions.js';

/** Runs `work` on an app server whose clock is wrong by some milliseconds. */
async function withClock<T>(offset: number, work: () => Promise<T>): Promise<T> {
  const RealDate = Date;
  globalThis.Date = class extends RealDate {
    constructor(...args: any[]) {
      super(...((args.length === 0 ? [RealDate.now() + offset] : args) as [number]));
    }
    static override now() {
      return RealDate.now() + offset;
    }
  } as DateConstructor;
  try {
    return await work();
  } finally {
    globalThis.Date = RealDate;
  }
}

const HOUR = 3_600_000;

describe('pg-store', () => {
  afterEach(closeStores);

  it('is an express-session store, also as the default export', async () => {
    const store = await openStore();
    assert(store instanceof session.Store);
    assert.equal(defaultExport, PgStore);
  });

  it('fails calls whose promise nobody awaits, as of `req.session.destroy()`, without ending the process', async () => {
    const store = await openStore({ uri: 'postgres://127.0.0.1:1/none', retry: { attempts: 1 } });
    // Mocha fails a spec under which a rejection is left unhandled.
    store.set('dropped', plain());
    store.touch('dropped', plain());
    store.get('dropped');
    store.destroy('dropped');
    store.clear();
    store.destroySessionsOf('ann');
    store.set('dropped', { circular: store } as any);
    await assert.rejects(store.destroy('awaited'), { code: 'ECONNREFUSED' });
    await new Promise((resolve) => setImmediate(resolve));
  });

  it('takes null for no callback, as MemoryStore does', async () => {
    const store: any = await openStore();
    await store.set('sid', plain({ n: 1 }), null);
    assert.equal((await store.get('sid', null)).n, 1);
    await store.destroy('sid', null);
    await store.clear(null);
  });

  it('never says ENOENT, which express-session takes for an unknown session: not of a missing Unix socket', async () => {
    const store = await openStore({ postgres: { host: '/nowhere/postgresql' }, retry: { attempts: 1 } });
    await assert.rejects(store.get('sid'), { code: 'ECONNREFUSED', message: /ENOENT/ });
  });

  it('times out on locked rows, in clear and destroySessionsOf too, and goes on', async () => {
    const table = freshTable();
    const store = await openStore({ table, timeout: 300, user: () => 'ann' });
    await patiently(() => store.set('locked', plain()));
    const sql = await sqlClient();
    await sql.begin(async (sql) => {
      await sql`select from ${sql(table)} where sid = 'locked' for update`;
      await assert.rejects(store.destroySessionsOf('ann'), {
        code: 'TIMEOUT',
        message: /^PgStore.destroySessionsOf: /,
      });
      await assert.rejects(store.clear(), { code: 'TIMEOUT', message: /^PgStore.clear: / });
      await patiently(() => store.set('other', plain()));
    });
    await patiently(() => store.clear());
    assert.equal(await patiently(() => store.length()), 0);
  });

  it('gives each method of express-session a promise without a callback, and nothing with one', async () => {
    const store = await openStore();
    const calls: [string, unknown[]][] = [
      ['set', ['a', plain()]],
      ['get', ['a']],
      ['touch', ['a', plain()]],
      ['all', []],
      ['length', []],
      ['destroy', ['a']],
      ['clear', []],
    ];
    const other = await openStore();
    for (const [method, args] of calls) {
      const promised = (store as any)[method](...args);
      assert(promised instanceof Promise, method);
      const result = await promised;
      const [error, called] = await new Promise<unknown[]>((resolve) => {
        assert.equal(
          (other as any)[method](...args, (...got: unknown[]) => resolve(got)),
          undefined,
          method,
        );
      });
      assert.equal(error ?? null, null, method);
      assert.equal(typeof called, typeof result, method);
    }
  });

  it('closes by `await using`', async () => {
    const table = freshTable();
    const outer = await openStore({ table });
    let inner: PgStore;
    {
      await using store = await openStore({ table });
      await store.set('a', plain());
      inner = store;
    }
    await assert.rejects(inner.get('a'), { code: 'CLOSED' });
    assert.deepEqual(await outer.ids(), ['a']);
  });

  it('finishes on `close` what was called before it', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    const saves = Array.from({ length: 50 }, (_, n) => store.set(`s${n}`, plain()));
    await store.close();
    await Promise.all(saves);
    assert.equal(await (await openStore({ table })).length(), 50);
  });

  it('never lists or counts what has expired', async () => {
    const store = await openStore();
    await store.set('unexpired', plain());
    await store.set('expired', plain({}, 0));
    assert.equal(await store.get('expired'), null);
    assert.deepEqual(await store.ids(), ['unexpired']);
    assert.deepEqual(
      (await store.all()).map(({ id }) => id),
      ['unexpired'],
    );
    assert.equal(await store.length(), 1);
    for await (const { id } of store.sessions()) assert.equal(id, 'unexpired');
  });

  it('counts milliseconds: a `maxAge` of 300 lives 300 ms', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    const sql = await sqlClient();
    const lifetime = async () => {
      const [row] = await sql`select extract(epoch from expires_at - updated_at) * 1000 as ms from ${sql(table)}`;
      return Number(row?.ms);
    };
    // Less than 500 ms pass between the call and the moment when the row is written, at the latest
    // in the next try.
    await eventually(async () => {
      await store.set('a', generated(store, 'a', {}, 60_900));
      const ms = await lifetime();
      assert(ms <= 60_900, `${ms} ms`);
      return ms > 60_400;
    });
    const before = performance.now();
    await store.set('a', generated(store, 'a', {}, 300));
    const ms = await lifetime();
    assert(ms <= 300, `${ms} ms`);
    await eventually(async () => (await store.get('a')) === null);
    assert(performance.now() - before >= ms);
  });

  it('lets a session whose cookie has no expiry live for `ttl` seconds', async () => {
    const table = freshTable();
    const sql = await sqlClient();
    const lives = async () =>
      (await sql`select extract(epoch from expires_at - updated_at)::float8 as s from ${sql(table)} order by sid`).map(
        ({ s }) => s,
      );
    await (await openStore({ table })).set('1', { cookie: {} } as any);
    await (await openStore({ table, ttl: 60 })).set('2', { x: 1, cookie: {} } as any);
    const store = await openStore({ table, ttl: (data: any) => data.seconds });
    await store.set('3', { seconds: 25, cookie: {} } as any);
    await store.set('4', { ...plain({}, 500_000), seconds: 9 } as any);
    // Counted from the call: a little of it is over when the row is written.
    for (const [n, seconds] of [86_400, 60, 25, 500].entries()) {
      const lifetime = (await lives())[n];
      assert(lifetime > seconds / 2 && lifetime <= seconds, `${lifetime} of ${seconds}`);
    }
  });

  it('asks a `ttl` function about the session as it is at the call', async () => {
    const table = freshTable();
    const sql = await sqlClient();
    const store = await openStore({ table, touchAfter: 0, ttl: (data: any) => data.seconds });
    const lifetime = async () => {
      const [row] = await sql`select extract(epoch from expires_at - updated_at)::float8 as s from ${sql(table)}`;
      return Math.ceil(row?.s / 100) * 100;
    };
    for (const [call, seconds] of [
      ['set', 1000],
      ['touch', 3000],
    ] as const) {
      const session: any = { seconds, cookie: {} };
      const first = store.get('sid');
      const calling = store[call]('sid', session);
      session.seconds = 9000;
      await Promise.all([first, calling]);
      assert.equal(await lifetime(), seconds);
    }
  });

  it('says which option a `ttl` without a number is', async () => {
    for (const seconds of [undefined, null, '5', Number.NaN, -1, Number.POSITIVE_INFINITY]) {
      const store = await openStore({ ttl: () => seconds as number });
      await assert.rejects(store.set('a', { cookie: {} } as any), { code: 'INVALID_SESSION', message: /option `ttl`/ });
    }
  });

  for (const [name, offset] of [
    ['an hour fast', HOUR],
    ['an hour slow', -HOUR],
  ] as const) {
    it(`keeps and ends sessions in time on an app server whose clock is ${name}`, async () => {
      const table = freshTable();
      const sql = await sqlClient();
      const right = await openStore({ table, touchAfter: 0 });
      await right.set('right', generated(right, 'right', { x: 1 }, 60_000));
      await right.set('expired', plain({}, 0));
      await withClock(offset, async () => {
        const wrong = await openStore({ table, touchAfter: 0 });
        await wrong.set('wrong', generated(wrong, 'wrong', { x: 1 }, 60_000));
        const [row] =
          await sql`select extract(epoch from expires_at - updated_at) as s from ${sql(table)} where sid = 'wrong'`;
        assert(Number(row?.s) > 50 && Number(row?.s) <= 60, `${row?.s} s`);
        const loaded = await load(wrong, 'right');
        assert(loaded, 'the others’ session has not expired here');
        const { maxAge } = loaded.cookie;
        assert(maxAge !== undefined && maxAge > 0 && maxAge <= 60_000, `${maxAge} ms`);
        assert.equal(await wrong.get('expired'), null);
        assert.deepEqual((await wrong.ids()).sort(), ['right', 'wrong']);
        loaded.touch();
        await wrong.touch('right', loaded);
        assert.equal(await wrong.autodelete(), 1);
      });
      const found = await right.get('wrong');
      const left = Date.parse(String(found?.cookie.expires)) - Date.now();
      assert(left > 0 && left <= 60_000, `${left} ms`);
      const [row] =
        await sql`select expires_at - updated_at <= interval '60 s' as is_right from ${sql(table)} where sid = 'right'`;
      assert.equal(row?.is_right, true);
    });
  }

  it('gives `null` for unknown sessions and for what is no session ID', async () => {
    const store = await openStore();
    for (const sid of ['nobody', '', '\0', '\ud800', undefined, null, 5, {}]) {
      assert.equal(await store.get(sid as string), null);
      await store.touch(sid as string, plain());
      await store.destroy(sid as string);
    }
    for (const sid of ['\0', '\ud800', undefined, 5]) {
      await assert.rejects(store.set(sid as string, plain()), { code: 'INVALID_SID', message: /^PgStore\.set: / });
    }
  });

  it('gives `null` for a row that was cut short, forged or moved', async () => {
    const table = freshTable();
    const store = await openStore({ table, secret: 's' });
    await store.set('a', plain({ admin: false }));
    const sql = await sqlClient();
    await sql`insert into ${sql(table)} (${sql.unsafe(shardColumn)}sid, data, expires_at, delete_after)
      values (${sql.unsafe(shardValue('b'))}'b', '{"admin":true}', now() + interval '1 hour', now() + interval '1 hour')`;
    assert.equal(await store.get('b'), null);
    assert.deepEqual(await store.ids(), ['a']);
    await sql`update ${sql(table)} set sid = 'b' || sid where sid like 'a%'`;
    assert.equal(await store.get('a'), null);
    assert.equal(await store.get('ba'), null);
    for (const data of ['[]', '"text"', '5']) {
      await store.set('c', plain());
      await sql`update ${sql(table)} set data = ${data}::text::json`;
      assert.equal(await store.get('c'), null, data);
    }
  });

  it('refuses what is not a session: not an object, or one with a cookie that is not one', async () => {
    const store = await openStore();
    await store.set('a', plain({ x: 1 }));
    for (const none of [undefined, null, 'text', 42, [1], { cookie: 'text' }, { cookie: [1] }] as any[]) {
      await assert.rejects(store.set('a', none), { code: 'INVALID_SESSION', message: /^PgStore\.set: the session/ });
    }
    for (const cookie of ['text', [1], 42] as any[]) {
      await assert.rejects(store.touch('a', { cookie }), { code: 'INVALID_SESSION', message: /^PgStore\.touch: / });
    }
    assert.equal(((await store.get('a')) as any).x, 1);
  });

  it('saves what the session was at the call', async () => {
    const store = await openStore();
    const made = generated(store, 'a', { list: [1] });
    const saved = store.set('a', made);
    made.list.push(2);
    await saved;
    assert.deepEqual(((await store.get('a')) as any).list, [1]);
  });

  it('keeps the calls on one session in order, awaited or not', async () => {
    const store = await openStore();
    for (let round = 0; round < 20; round++) {
      const sid = `s${round}`;
      const answers = [
        store.set(sid, plain({ n: 1 })),
        store.get(sid),
        store.set(sid, plain({ n: 2 })),
        store.get(sid),
      ];
      answers.push(store.destroy(sid) as any, store.get(sid), store.set(sid, plain({ n: 3 })), store.get(sid));
      const got = (await Promise.all(answers)).map((data: any) => data?.n ?? data);
      assert.deepEqual(got, [undefined, 1, undefined, 2, undefined, null, undefined, 3]);
    }
  });
});
