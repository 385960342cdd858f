/** A session expires `maxLifetime` after its creation, whatever is done to it. */

import assert from 'node:assert/strict';
import express from 'express';
import session from 'express-session';
import type { Sql } from 'postgres';
import request from 'supertest';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { closeStores, earlier, freshTable, openStore, sqlClient } from '../support/postgres.js';
import { generated, loaded, plain } from '../support/sessions.js';

const HOUR = 3600;
const WEEK_MS = 7 * 24 * HOUR * 1000;

describe('maxLifetime', () => {
  let sql: Sql;
  let table: string;
  const open = (options: PgStoreOptions = {}) =>
    openStore({ table, touchAfter: 0, maxLifetime: HOUR, user: () => 'ann', ...options });
  /**
   * Seconds from a row's creation to its expiry; a cookie's date, from which it may come, is in
   * whole milliseconds.
   */
  const life = async (like = '%'): Promise<number> => {
    const [row] = await sql`
      select extract(epoch from expires_at - created_at)::float8 as life from ${sql(table)} where sid like ${like}`;
    assert(row && row.life <= HOUR, `lives ${row?.life} seconds`);
    return Math.round(row.life);
  };
  /** Lets time pass for all rows. */
  const pass = (seconds: number) => {
    const times = ['created_at', 'updated_at', 'expires_at'].map((column) => `${column} = ${earlier(column, seconds)}`);
    return sql.unsafe(`update ${table} set ${times.join()}`);
  };

  beforeEach(async () => {
    sql = await sqlClient();
    table = freshTable();
  });
  afterEach(closeStores);

  /** Every way to write a session's expiry. */
  const writes: Record<string, (store: PgStore) => Promise<void>> = {
    'a touch': async (store) => store.touch('a', await loaded(store, 'a')),
    'a touch with a new maxAge': async (store) => {
      const mine = await loaded(store, 'a');
      mine.cookie.maxAge = 2 * WEEK_MS;
      await store.touch('a', mine);
    },
    'a touch without an expiry': async (store) => {
      const mine = await loaded(store, 'a');
      mine.cookie.expires = null;
      await store.touch('a', mine);
    },
    'a touch by plain data': (store) => store.touch('a', plain({}, WEEK_MS)),
    'a save that changes nothing': async (store) => store.set('a', await loaded(store, 'a')),
    'a changed save': async (store) => {
      const mine = await loaded(store, 'a');
      mine.n = 2;
      mine.cookie.maxAge = WEEK_MS;
      await store.set('a', mine);
    },
    'merged saves': async (store) => {
      const both = [await loaded(store, 'a'), await loaded(store, 'a')];
      await Promise.all(
        both.map((mine, n) => {
          mine[`n${n}`] = n;
          mine.cookie.maxAge = WEEK_MS + n;
          return store.set('a', mine);
        }),
      );
    },
    'a replacement': (store) => store.set('a', plain({ n: 2 }, WEEK_MS)),
    'a replacement whose cookie has no expiry': (store) => store.set('a', { n: 2, cookie: {} } as any),
  };

  for (const [name, write] of Object.entries(writes)) {
    it(`${name} keeps to it`, async () => {
      const store = await open({ ttl: 24 * HOUR });
      await store.set('a', plain({ n: 1 }, WEEK_MS));
      assert.equal(await life(), HOUR);
      await pass(HOUR / 2);
      await write(store);
      assert.equal(await life(), HOUR);
      await pass(HOUR / 2);
      assert.equal(await store.get('a'), null);
    });
  }

  it('a move to a new secret keeps to it', async () => {
    await (await open({ secret: 'old' })).set('a', plain({ n: 1 }, WEEK_MS));
    await pass(HOUR / 2);
    const store = await open({ secret: ['new', 'old'] });
    await store.set('a', await loaded(store, 'a'));
    assert.equal(await life(), HOUR);
    await pass(HOUR / 4);
    await (await open({ secret: ['newest', 'new'] })).set('a', plain({ n: 2 }, WEEK_MS));
    assert.equal(await life(), HOUR);
  });

  it('a request that is under way at the end cannot extend it', async () => {
    const store = await open();
    await store.set('a', plain({ n: 1 }, WEEK_MS));
    const [saves, touches] = [await loaded(store, 'a'), await loaded(store, 'a')];
    await pass(HOUR);
    saves.n = 2;
    await store.set('a', saves);
    await store.touch('a', touches);
    assert.equal(await store.get('a'), null);
    assert.equal(await life(), HOUR);
  });

  it('a shorter expiry stays as it is', async () => {
    const store = await open();
    await store.set('a', plain({}, 60_000));
    assert(Math.abs((await life()) - 60) < 30);
    await store.touch('a', plain({}, 120_000));
    assert(Math.abs((await life()) - 120) < 30);
  });

  it('a touch right after the first save of a longer session writes nothing', async () => {
    const store = await open({ touchAfter: 60 });
    const created = generated(store, 'a', { n: 1 }, WEEK_MS);
    await store.set('a', created);
    const before = await sql`select xmin::text from ${sql(table)}`;
    await store.touch('a', created);
    assert.deepEqual(await sql`select xmin::text from ${sql(table)}`, before);
  });

  it('the cookie says when it ends', async () => {
    const store = await open();
    await store.set('a', plain({}, WEEK_MS));
    await pass(HOUR / 2);
    const found = await store.get('a');
    const left = new Date(found?.cookie.expires as unknown as string).getTime() - Date.now();
    assert(left > 0 && left <= (HOUR / 2) * 1000 + 5);
    const [listed] = await store.sessionsOf('ann');
    assert(listed);
    assert.equal(listed.expiresAt.getTime() - listed.createdAt.getTime(), HOUR * 1000);
  });

  it('regenerate starts anew', async () => {
    const store = await open();
    const app = express();
    app.use(session({ store, secret: 's', resave: false, saveUninitialized: true, cookie: { maxAge: WEEK_MS } }));
    app.get('/login', (req, res) => {
      req.session.regenerate((error) => res.status(error ? 500 : 200).end());
    });
    app.get('/', (_, res) => void res.end());
    const agent = request.agent(app);
    await agent.get('/').expect(200);
    await pass(HOUR - 60);
    const [before] = await sql`select sid from ${sql(table)}`;
    await agent.get('/login').expect(200);
    const [after] = await sql`select sid, created_at > now() - interval '30 seconds' as young from ${sql(table)}`;
    assert.notEqual(after?.sid, before?.sid);
    assert.equal(after?.young, true);
    assert.equal(await life(), HOUR);
  });

  it('a session saved in place of one that has expired is new', async () => {
    const store = await open();
    await store.set('a', plain({ n: 1 }, WEEK_MS));
    await pass(HOUR);
    await store.set('a', generated(store, 'a', { n: 2 }, WEEK_MS));
    assert.equal(((await store.get('a')) as any)?.n, 2);
    assert.equal(await life(), HOUR);
  });

  describe('for rows written before it was switched on', () => {
    let store: PgStore;
    beforeEach(async () => {
      const before = await open({ maxLifetime: undefined });
      for (const sid of ['young', 'old']) await before.set(sid, plain({ n: 1 }, WEEK_MS));
      await sql`update ${sql(table)} set created_at = now() - interval '59 minutes' where sid = 'young'`;
      await sql`update ${sql(table)} set created_at = now() - interval '61 minutes' where sid = 'old'`;
      store = await open();
    });

    it('old ones are no sessions any more, and counted and listed nowhere', async () => {
      assert.equal(await store.get('old'), null);
      assert.deepEqual(await store.ids(), ['young']);
      assert.deepEqual(
        (await store.all()).map(({ id }) => id),
        ['young'],
      );
      assert.equal(await store.length(), 1);
      assert.equal((await store.sessionsOf('ann')).length, 1);
      const listed = [];
      for await (const { id } of store.sessions()) listed.push(id);
      assert.deepEqual(listed, ['young']);
    });

    it('a touch of an old one does not bring it back', async () => {
      await store.touch('old', plain({}, WEEK_MS));
      assert.equal(await store.get('old'), null);
    });

    it('a young one ends in time, and its cookie says so', async () => {
      const found = await loaded(store, 'young');
      assert((found.cookie.maxAge as number) <= 60_000 && (found.cookie.maxAge as number) > 0);
      await store.touch('young', found);
      assert.equal(await life('young'), HOUR);
    });

    it('a session saved in place of an old one is new', async () => {
      await store.set('old', plain({ n: 2 }, WEEK_MS));
      assert.equal(((await store.get('old')) as any)?.n, 2);
    });
  });

  it('counts fractions of a second, and centuries', async () => {
    for (const [maxLifetime, isThere] of [
      [0.000001, false],
      [1e-7, false],
      [1e11, true],
    ] as const) {
      const store = await open({ maxLifetime, table: freshTable() });
      await store.set('a', plain({}, WEEK_MS));
      assert.equal((await store.get('a')) !== null, isThere, String(maxLifetime));
    }
  });
});
