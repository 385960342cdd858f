/** A row is of use only with the secret, and changing the secret loses nothing. */

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { sign } from 'cookie-signature';
import express from 'express';
import session from 'express-session';
import type { Sql } from 'postgres';
import request from 'supertest';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { documented } from '../support/docs.js';
import { closeStores, freshTable, openStore, shardColumn, shardValue, sqlClient } from '../support/postgres.js';
import { data, load, loaded, plain } from '../support/sessions.js';

const sha256 = (text: string) => createHash('sha256').update(text).digest('base64url');
/** The key that a store makes of a secret and its prefix. */
const keyOf = (secret: string, prefix: string) =>
  createHmac('sha256', secret).update(`express-pg-store row key\0${prefix}`).digest();
const hmac = (key: Buffer, text: string) => createHmac('sha256', key).update(text).digest('base64url');

describe('session IDs at rest', () => {
  let sql: Sql;
  let table: string;
  const open = (options: PgStoreOptions = {}) => openStore({ table, touchAfter: 0, ...options });
  const keys = async () => (await sql`select sid from ${sql(table)} order by sid`).map(({ sid }) => sid as string);
  const insert = (key: string) => sql`
    insert into ${sql(table)} (${sql.unsafe(shardColumn)}sid, data, cookie, user_id, expires_at, delete_after)
    values (${sql.unsafe(shardValue(key.split('.')[0] ?? ''))}${key}, '{"passport":{"user":"eve"}}', '{"path":"/"}', 'eve',
      now() + interval '1 hour', now() + interval '1 hour')`;

  beforeEach(async () => {
    sql = await sqlClient();
    table = freshTable();
  });
  afterEach(closeStores);

  describe('signed', () => {
    it('a row that nobody with the secret wrote is no session', async () => {
      const store = await open({ secret: 'right', prefix: 'p:' });
      await store.set('good', plain({ passport: { user: 'eve' } }));
      const stranger = await open({ secret: 'wrong', prefix: 'p:' });
      await stranger.set('planted', plain());
      const [theirs] = (await keys()).filter((key) => key.includes('planted'));
      for (const key of ['p:planted', 'p:planted.', `p:${sign('planted', 'right')}`, `p:${sign('planted', 'wrong')}`]) {
        await insert(key);
      }
      assert((await keys()).length === 6 && theirs);
      for (const sid of ['planted', 'planted.', theirs.slice(2), sign('planted', 'right'), 'p:planted']) {
        assert.equal(await store.get(sid), null, sid);
      }
      assert.deepEqual(
        (await store.all()).map(({ id }) => id),
        ['good'],
      );
      assert.deepEqual(await store.ids(), ['good']);
      const listed = [];
      for await (const { id } of store.sessions()) listed.push(id);
      assert.deepEqual(listed, ['good']);
      assert.deepEqual(
        (await store.sessionsOf('eve')).map(({ session }) => (session as any).passport.user),
        ['eve'],
      );
      assert.equal(await store.length(), 6, 'length counts rows');
    });

    it('neither touch nor a save brings a planted row to life', async () => {
      const store = await open({ secret: 'right' });
      await store.ready();
      await insert('planted');
      await store.touch('planted', plain({ mine: true }));
      assert.equal(await store.get('planted'), null);
      await store.set('planted', plain({ mine: true }));
      assert.deepEqual(await data(store, 'planted'), { mine: true });
      await store.destroy('planted');
      assert.deepEqual(await keys(), ['planted'], 'the planted row was never ours');
    });

    it('a row copied to another prefix, or another session ID, is no session', async () => {
      const [shop, admin] = [
        await open({ secret: 's', prefix: 'shop:' }),
        await open({ secret: 's', prefix: 'admin:' }),
      ];
      await shop.set('abc', plain());
      const [key] = await keys();
      assert(key?.startsWith('shop:abc.'));
      const signature = key.slice('shop:abc.'.length);
      for (const copy of [`admin:abc.${signature}`, `shop:abd.${signature}`]) {
        const shard = sql.unsafe(shardValue(copy.slice(0, copy.indexOf('.'))));
        await sql`insert into ${sql(table)} select ${shard}${copy} as sid, data, cookie, cookie_expires, user_id, version,
          created_at, updated_at, expires_at, delete_after from ${sql(table)} where sid = ${key}`;
      }
      assert.equal(await admin.get('abc'), null);
      assert.equal(await shop.get('abd'), null);
      assert.deepEqual([await admin.ids(), await shop.ids()], [[], ['abc']]);
    });

    it('who reads the table cannot make a cookie of a row, even with one secret for both', async () => {
      const store = await open({ secret: 'one for both' });
      const app = express();
      app.use(session({ store, secret: 'one for both', resave: false, saveUninitialized: true }));
      app.get('/', (req, res) => void res.json({ sid: req.sessionID }));
      const first = await request(app).get('/');
      const cookie = decodeURIComponent(/connect\.sid=([^;]*)/.exec(first.headers['set-cookie']?.[0] ?? '')?.[1] ?? '');
      const again = await request(app)
        .get('/')
        .set('Cookie', `connect.sid=${encodeURIComponent(cookie)}`);
      assert.equal(again.body.sid, first.body.sid, 'the real cookie works');
      const [key] = await keys();
      assert(key?.startsWith(first.body.sid));
      const stolen = await request(app)
        .get('/')
        .set('Cookie', `connect.sid=${encodeURIComponent(`s:${key}`)}`);
      assert.notEqual(stolen.body.sid, first.body.sid);
    });
  });

  for (const hashIds of [false, true]) {
    describe(`a new secret${hashIds ? ', hashed IDs' : ''}`, () => {
      const openOld = () => open({ secret: 'old', hashIds });
      const openNew = () => open({ secret: ['new', 'old'], hashIds });
      const newKey = async (sid: string) => {
        const other = freshTable();
        const store = await openStore({ table: other, secret: 'new', hashIds });
        await store.set(sid, plain());
        const [row] = await sql`select sid from ${sql(other)}`;
        return row?.sid as string;
      };

      it('finds rows of the old one; the next save moves them', async () => {
        await (await openOld()).set('a', plain({ n: 1 }));
        const before = await keys();
        const store = await openNew();
        assert.deepEqual(await data(store, 'a'), { n: 1 });
        if (!hashIds) assert.deepEqual(await store.ids(), ['a']);
        const mine = await loaded(store, 'a');
        mine.n = 2;
        await store.set('a', mine);
        const after = await keys();
        assert.deepEqual(after, [await newKey('a')]);
        assert.notDeepEqual(after, before);
        assert.deepEqual(await data(store, 'a'), { n: 2 });
      });

      it('moves them with a save that changes nothing, too', async () => {
        await (await openOld()).set('a', plain({ n: 1 }));
        const store = await openNew();
        const conflicts: unknown[] = [];
        store.on('conflict', (...args) => conflicts.push(args));
        const [one, two] = [await loaded(store, 'a'), await loaded(store, 'a')];
        await store.set('a', one);
        assert.deepEqual(await keys(), [await newKey('a')]);
        await store.set('a', two);
        assert.deepEqual(await keys(), [await newKey('a')]);
        assert.deepEqual(await data(store, 'a'), { n: 1 });
        assert.deepEqual(conflicts, []);
      });

      it('touches them where they are, unless the request has changed the cookie', async () => {
        await (await openOld()).set('a', plain({ n: 1 }, 60_000));
        const before = await keys();
        const store = await openNew();
        const mine = await loaded(store, 'a');
        mine.touch();
        await store.touch('a', mine);
        await store.touch('a', plain({}, 7_200_000));
        const [row] =
          await sql`select sid, expires_at > now() + interval '1 hour 50 minutes' as late from ${sql(table)}`;
        assert.deepEqual(row, { sid: before[0], late: true });
        const changed = await loaded(store, 'a');
        changed.cookie.maxAge = 3_600_000;
        await store.touch('a', changed);
        assert.deepEqual(await keys(), [await newKey('a')]);
        assert.deepEqual(await data(store, 'a'), { n: 1 });
      });

      it('destroys them, also for a request that saves meanwhile', async () => {
        await (await openOld()).set('a', plain({ n: 1 }));
        const store = await openNew();
        const mine = await loaded(store, 'a');
        await store.destroy('a');
        assert.deepEqual(await keys(), []);
        mine.n = 2;
        await store.set('a', mine);
        assert.deepEqual(await keys(), []);
      });

      it('destroys both rows where the old one was put back', async () => {
        await (await openOld()).set('a', plain({ old: true }));
        await (await open({ secret: 'new', hashIds })).set('a', plain({ fresh: true }));
        const store = await openNew();
        assert.equal((await keys()).length, 2);
        assert.deepEqual(await data(store, 'a'), { fresh: true });
        await store.destroy('a');
        assert.deepEqual(await keys(), []);
      });

      it('merges with a row that another process has put under the new key meanwhile', async () => {
        await (await openOld()).set('a', plain({ old: true }));
        await (await openOld()).set('b', plain({ n: 1 }));
        const store = await openNew();
        const [mine, other] = [await loaded(store, 'a'), await loaded(store, 'b')];
        await (await open({ secret: 'new', hashIds })).set('a', plain({ old: true, fresh: true }));
        mine.n = other.n = 2;
        await Promise.all([store.set('a', mine), store.set('b', other)]);
        assert.deepEqual(await data(store, 'a'), { old: true, fresh: true, n: 2 });
        assert.deepEqual(await data(store, 'b'), { n: 2 });
      });

      it('puts a new session in the place of an old row', async () => {
        await (await openOld()).set('a', plain({ old: true }));
        const store = await openNew();
        await store.set('a', plain({ fresh: true }));
        assert.deepEqual(await keys(), [await newKey('a')]);
        assert.deepEqual(await data(store, 'a'), { fresh: true });
      });

      it('puts a new session in the place of an expired old row, and it is new', async () => {
        await (await openOld()).set('a', plain({ old: true }));
        await sql`update ${sql(table)} set created_at = now() - interval '2 days', expires_at = now() - interval '1 day'`;
        const store = await open({ secret: ['new', 'old'], hashIds, maxLifetime: 3600 });
        await store.set('a', plain({ fresh: true }));
        const [row] = await sql`select sid, created_at > now() - interval '1 minute' as young from ${sql(table)}`;
        assert.deepEqual(row, { sid: await newKey('a'), young: true });
        assert.deepEqual(await data(store, 'a'), { fresh: true });
      });

      it('ends sessions whose secret was removed', async () => {
        await (await openOld()).set('a', plain());
        const store = await open({ secret: 'new', hashIds });
        assert.equal(await store.get('a'), null);
        if (!hashIds) assert.deepEqual([await store.ids(), await store.all()], [[], []]);
      });

      it('loses no write of requests in two processes that meet on the move', async () => {
        const [old, one, two] = [await openOld(), await openNew(), await openNew()];
        const rounds = Array.from({ length: 60 }, (_, n) => `round${n}`);
        await Promise.all(rounds.map((sid) => old.set(sid, plain({ base: 1 }))));
        const all = rounds.flatMap((sid) =>
          Array.from({ length: 6 }, async (_, n) => {
            const store = n % 2 ? one : two;
            const mine = await loaded(store, sid);
            mine[`key${n}`] = n;
            await store.set(sid, mine);
          }),
        );
        await Promise.all(all);
        const expected = { base: 1, key0: 0, key1: 1, key2: 2, key3: 3, key4: 4, key5: 5 };
        for (const sid of rounds) assert.deepEqual(await data(one, sid), expected, sid);
        assert.equal((await keys()).length, rounds.length, 'no row twice');
      });

      it('never misses a row that moves while it is looked for, even to and fro during a deployment', async () => {
        // Half of the processes have the new secret first, half the old one: rows move both ways.
        const forth = await openNew();
        const back = await open({ secret: ['old', 'new'], hashIds });
        const reader = await open({ secret: ['new', 'other', 'old'], hashIds });
        await back.set('a', plain({ base: 1 }));
        let isMoving = true;
        const moving = (async () => {
          for (let n = 0; n < 120; n++) {
            const store = n % 2 ? back : forth;
            await store.set('a', await loaded(store, 'a'));
          }
          isMoving = false;
        })();
        let reads = 0;
        while (isMoving) {
          const found = await Promise.all([reader.get('a'), forth.get('a'), back.get('a')]);
          assert(found.every(Boolean), `missed in read ${reads}`);
          reads++;
        }
        await moving;
        assert(reads > 10);
        assert.equal((await keys()).length, 1);
      });

      it('logs out for good while others move the row to and fro', async () => {
        const forth = await openNew();
        const back = await open({ secret: ['old', 'new'], hashIds });
        const sids = Array.from({ length: 40 }, (_, n) => `s${n}`);
        await Promise.all(sids.map((sid) => back.set(sid, plain({ base: 1 }))));
        await Promise.all(
          sids.flatMap((sid) => {
            const move = async (store: PgStore) => {
              for (let n = 0; n < 8; n++) {
                const mine = await load(store, sid);
                if (!mine) return;
                mine[`n${n}`] = n;
                await store.set(sid, mine);
              }
            };
            const logout = async () => {
              await Promise.all([loaded(forth, sid), loaded(back, sid)]);
              await forth.destroy(sid);
            };
            return [move(forth), move(back), logout()];
          }),
        );
        assert.deepEqual(await keys(), []);
      });
    });
  }

  describe('hashed', () => {
    it('the table holds SHA-256 of the session ID, or HMAC-SHA-256 with a key that is made of secret and prefix', async () => {
      await (await open({ hashIds: true, prefix: 'a:' })).set('sid-ü', plain());
      await (await open({ hashIds: true, prefix: 'b:', secret: ['new', 'old'] })).set('sid-ü', plain());
      assert.deepEqual(await keys(), [`a:${sha256('sid-ü')}`, `b:${hmac(keyOf('new', 'b:'), 'sid-ü')}`]);
      // printf %s abc | openssl dgst -sha256 [-hmac secret] -binary | basenc --base64url
      assert.equal(sha256('abc'), 'ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0');
      assert.equal(hmac(Buffer.from('secret'), 'abc'), 'mUba1OAOkT_Ivo5dP34RCkqegy-D-wnDRShdeGONig4');
    });

    it('a row copied to another prefix with its hash is a session there; with a secret it is not', async () => {
      for (const [secret, isThere] of [
        [undefined, true],
        ['s', false],
      ] as const) {
        const options = { hashIds: true, table: freshTable(), ...(secret && { secret }) };
        await (await open({ ...options, prefix: 'a:' })).set('abc', plain());
        await sql`update ${sql(options.table)} set sid = 'b:' || substr(sid, 3)`;
        assert.equal((await (await open({ ...options, prefix: 'b:' })).get('abc')) !== null, isThere);
      }
    });

    it('what the table holds is no session ID', async () => {
      for (const secret of [undefined, 's']) {
        const store = await open({ hashIds: true, ...(secret ? { secret } : {}) });
        await store.set('abc', plain({ n: 1 }));
        assert.deepEqual(await data(store, 'abc'), { n: 1 });
        for (const key of await keys()) {
          assert(!key.includes('abc'));
          assert.equal(await store.get(key), null);
        }
        assert((await store.all()).every((listed) => !('id' in listed)));
        await assert.rejects(store.ids(), { code: 'INVALID_SID' });
      }
    });

    it('a statement turns a plain table into a hashed one, and the sessions stay', async () => {
      const prefix = `p%_'\u{10FFFE}:`;
      const [plainStore, other] = [await open({ prefix }), await open({ prefix: 'other:' })];
      const sids = ['abc', 'sid-ü💥', 'a.b/c+d=', 'x'.repeat(200), '2Vx0kHbbw0GF6z1X3Y0nJx7cWbqj9qKd'];
      for (const sid of sids) await plainStore.set(sid, plain({ sid }));
      await other.set('abc', plain({ other: true }));
      await sql.unsafe(toHashed(table, prefix));
      const store = await open({ prefix, hashIds: true });
      for (const sid of sids) assert.deepEqual(await data(store, sid), { sid });
      assert.deepEqual((await keys()).sort(), ['other:abc', ...sids.map((sid) => prefix + sha256(sid))].sort());
      assert.equal(await store.length(), sids.length);
      assert.equal(await plainStore.get('abc'), null);
      assert.deepEqual(await data(other, 'abc'), { other: true });
      const mine = await loaded(store, 'abc');
      mine.more = 1;
      await store.set('abc', mine);
      assert.deepEqual(await data(store, 'abc'), { sid: 'abc', more: 1 });
    });

    it('it does so without a prefix too', async () => {
      await (await open()).set('abc', plain({ n: 1 }));
      await sql.unsafe(toHashed(table, ''));
      assert.deepEqual(await keys(), [sha256('abc')]);
      assert.deepEqual(await data(await open({ hashIds: true }), 'abc'), { n: 1 });
    });

    it('with pgcrypto it does so for a secret', async () => {
      await (await open({ prefix: 'p:' })).set('sid-ü', plain({ n: 1 }));
      await sql`create extension if not exists pgcrypto`;
      await sql.unsafe(toHashed(table, 'p:', 's3cret'));
      assert.deepEqual(await keys(), [`p:${hmac(keyOf('s3cret', 'p:'), 'sid-ü')}`]);
      const store = await open({ prefix: 'p:', secret: ['newer', 's3cret'], hashIds: true });
      assert.deepEqual(await data(store, 'sid-ü'), { n: 1 });
    });
  });
});

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** The statements of docs/security.md, for another table and prefix. */
function toHashed(table: string, prefix: string, secret?: string): string {
  const statement = documented(
    'docs/security.md',
    'sql',
    secret === undefined ? 'encode(sha256(' : 'encode(public.hmac(',
  )
    .replaceAll('public.sessions', `public.${table}`)
    .replaceAll("'app:'", literal(prefix));
  return secret === undefined ? statement : statement.replaceAll("'the secret'", literal(secret));
}
