/** Foreign keys of the app's, to the table and from it, in transactions that stay open. */

import assert from 'node:assert/strict';
import express from 'express';
import session from 'express-session';
import type { Sql, TransactionSql } from 'postgres';
import request from 'supertest';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { closeStores, freshTable, openStore, SHARDS, sqlClient } from '../support/postgres.js';
import { data, loaded, plain } from '../support/sessions.js';

// With shards the key of the table is not `sid` alone, so nothing can reference that.
if (!SHARDS)
  describe('a foreign key to the sessions', () => {
    let sql: Sql;
    let table: string;
    let carts: string;
    const open = (options: PgStoreOptions = {}) => openStore({ table, touchAfter: 0, ...options });

    before(async () => {
      sql = await sqlClient();
    });

    /** A store whose table another one references. */
    async function openReferenced(actions = 'on delete cascade on update cascade', options: PgStoreOptions = {}) {
      table = freshTable();
      carts = `${table}_carts`;
      const store = await open(options);
      await store.ready();
      await sql.unsafe(`create table ${carts} (item text, sid text collate "C" references ${table} (sid) ${actions})`);
      return store;
    }

    afterEach(async () => {
      await closeStores();
      await sql.unsafe(`drop table if exists ${carts}`);
    });

    /** Runs `work` while a transaction that has inserted a reference to a session stays open. */
    function whileReferenced<T>(sid: string, work: (open: TransactionSql) => Promise<T>): Promise<T> {
      return sql.begin(async (open) => {
        await open.unsafe(`insert into ${carts} select 'tea', sid from ${table} where sid like $1`, [`${sid}%`]);
        return work(open);
      }) as Promise<T>;
    }

    it('stalls no get, set or touch while the transaction is open', async () => {
      const store = await openReferenced();
      await Promise.all(['sid', 'other'].map((sid) => store.set(sid, plain({ n: 1 }))));
      await whileReferenced('sid', async () => {
        const one = await loaded(store, 'sid');
        await store.touch('sid', one);
        one.n = 2;
        one.cookie.maxAge = 90_000;
        await store.set('sid', one);
        await store.touch('sid', plain({}, 80_000));
        await store.set('sid', plain({ n: 3 }));
        // Together with others, which share the statements.
        await Promise.all(['sid', 'other'].map((sid) => store.set(sid, plain({ n: 4 }))));
        assert.deepEqual(await data(store, 'sid'), { n: 4 });
      });
      assert.equal((await sql.unsafe(`select from ${carts}`)).length, 1);
    });

    it('lets a request save its session inside of the transaction', async () => {
      const store = await openReferenced();
      const app = express();
      app.use(session({ store, secret: 's', resave: false, saveUninitialized: false }));
      app.get('/sign-in', (req, res) => {
        Object.assign(req.session, { user: 'ann' });
        res.json(req.sessionID);
      });
      app.post('/buy', async (req, res) => {
        await whileReferenced(req.sessionID, async () => {
          Object.assign(req.session, { bought: true });
          await new Promise<void>((resolve, reject) => {
            req.session.save((error) => (error ? reject(error) : resolve()));
          });
        });
        res.end();
      });
      const agent = request.agent(app);
      const { body: sid } = await agent.get('/sign-in');
      await agent.post('/buy').expect(200);
      assert.deepEqual(await data(store, sid), { user: 'ann', bought: true });
    });

    it('holds up a destruction until the transaction ends, and nothing else: no batch waits for it', async () => {
      const store = await openReferenced();
      await Promise.all(['sid', 'a', 'b'].map((sid) => store.set(sid, plain({ passport: { user: 'ann' } }))));
      let destroying: Promise<unknown> | undefined;
      await whileReferenced('sid', async () => {
        destroying = Promise.all([store.destroy('sid'), store.destroySessionsOf('ann')]);
        await Promise.all([store.destroy('a'), store.destroy('b')]);
        assert.deepEqual([...(await sql.unsafe(`select sid from ${table}`))], [{ sid: 'sid' }]);
      });
      await destroying;
      assert.equal(await store.length(), 0);
      assert.equal((await sql.unsafe(`select from ${carts}`)).length, 0);
    });

    it('holds up a move to the key of a new secret until the transaction ends, and no save of another session', async () => {
      await openReferenced(undefined, { secret: 'old' });
      const before = await open({ secret: 'old' });
      await Promise.all(['sid', 'other'].map((sid) => before.set(sid, plain({ n: 1 }))));
      const store = await open({ secret: ['new', 'old'] });
      let moving: Promise<void> | undefined;
      const [one, other] = [await loaded(store, 'sid'), await loaded(store, 'other')];
      await whileReferenced('sid', async () => {
        moving = store.set('sid', Object.assign(one, { n: 2 }));
        await store.set('other', Object.assign(other, { n: 2 }));
        await store.set('other', Object.assign(other, { n: 3 }));
      });
      await moving;
      assert.deepEqual([await data(store, 'sid'), await data(store, 'other')], [{ n: 2 }, { n: 3 }]);
      const joined = await sql.unsafe(`select from ${carts} join ${table} using (sid)`);
      assert.equal(joined.length, 1, 'on update cascade');
    });

    it('without `on update cascade` fails a save after a rotation of `secret`, and the session stays as it was', async () => {
      const before: PgStore = await openReferenced('', { secret: 'old' });
      await before.set('sid', plain({ n: 1 }));
      await sql.unsafe(`insert into ${carts} select 'tea', sid from ${table}`);
      const store = await open({ secret: ['new', 'old'] });
      const one = await loaded(store, 'sid');
      one.n = 2;
      await assert.rejects(store.set('sid', one), { name: 'PgStoreError', code: '23503', message: /^PgStore\.set: / });
      assert.deepEqual(await data(store, 'sid'), { n: 1 });
      await assert.rejects(store.destroy('sid'), { code: '23503' });
    });
  });

describe('a foreign key from the sessions to the users', () => {
  it('works with keys of type text; a sign-in waits for a lock on its user, and no other call does', async () => {
    const sql = await sqlClient();
    const table = freshTable();
    const users = `${table}_users`;
    const store = await openStore({ table, user: (session: any) => session.user, touchAfter: 0 });
    await store.ready();
    await sql
      .unsafe(`create table ${users} (id text primary key); insert into ${users} values ('ann'), ('bob')`)
      .simple();
    await sql.unsafe(`alter table ${table} add foreign key (user_id) references ${users} (id) on delete cascade`);
    try {
      await store.set('ann', plain({ user: 'ann' }));
      await assert.rejects(store.set('eve', plain({ user: 'eve' })), { code: '23503' });
      let signingIn: Promise<void> | undefined;
      await sql.begin(async (locking) => {
        await locking.unsafe(`select from ${users} where id = 'ann' for update`);
        const one = await loaded(store, 'ann');
        one.views = 1;
        await store.set('ann', one);
        await store.touch('ann', one);
        signingIn = store.set('new', plain({ user: 'ann' }));
        assert.equal(((await store.get('ann')) as any).views, 1);
      });
      await signingIn;
      assert.equal((await store.sessionsOf('ann')).length, 2);
      await sql.unsafe(`delete from ${users} where id = 'ann'`);
      assert.equal(await store.length(), 0, 'on delete cascade');
    } finally {
      await closeStores();
      await sql.unsafe(`drop table ${table}, ${users}`);
    }
  });
});
