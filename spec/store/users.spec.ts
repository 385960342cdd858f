/** A user's sessions, and how they are listed and destroyed. */

import assert from 'node:assert/strict';
import express from 'express';
import session from 'express-session';
import postgres from 'postgres';
import request from 'supertest';
import { PgStore } from '../../lib/index.js';
import { passportApp } from '../apps/frameworks/passport.js';
import { closeStores, directUri, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { recipe } from '../support/recipes.js';
import { generated, load, plain } from '../support/sessions.js';

const ofAda = (data: object = {}) => plain({ passport: { user: 'ada' }, ...data });

describe('sessions of a user', () => {
  afterEach(closeStores);

  describe('option `user`', () => {
    /** The user_id that a session gets in the table. */
    async function userIdOf(data: Record<string, unknown>, options: object = {}): Promise<string | null> {
      const table = freshTable();
      const store = await openStore({ table, ...options });
      await store.set('sid', plain(data));
      const sql = await sqlClient();
      const [row] = await sql`select user_id from ${sql(table)}`;
      return row.user_id;
    }

    it('is Passport’s by default, where that is a string or a number', async () => {
      assert.equal(await userIdOf({ passport: { user: 'ada' } }), 'ada');
      assert.equal(await userIdOf({ passport: { user: 17 } }), '17');
      assert.equal(await userIdOf({ passport: { user: { id: 17 } } }), null);
      assert.equal(await userIdOf({ passport: {} }), null);
      assert.equal(await userIdOf({ passport: null }), null);
      assert.equal(await userIdOf({}), null);
    });

    it('says whose session it is', async () => {
      const user = (data: any) => data.account?.number;
      assert.equal(await userIdOf({ account: { number: 0 } }, { user }), '0');
      assert.equal(await userIdOf({ passport: { user: 'ada' } }, { user }), null);
    });

    it('works on encrypted data too', async () => {
      assert.equal(await userIdOf({ passport: { user: 'ada' } }, { encryptionKey: 'k'.repeat(32) }), 'ada');
    });

    it('counts with each save: signing in, signing out, and as merged', async () => {
      const table = freshTable();
      const store = await openStore({ table });
      const sql = await sqlClient();
      const userId = async () => (await sql`select user_id from ${sql(table)}`)[0].user_id;
      await store.set('sid', plain());
      assert.equal(await userId(), null);

      const slow = await load(store, 'sid');
      const signingIn = await load(store, 'sid');
      assert(slow && signingIn);
      signingIn.passport = { user: 'ada' };
      await store.set('sid', signingIn);
      assert.equal(await userId(), 'ada');
      slow.views = 1;
      await store.set('sid', slow);
      assert.equal(await userId(), 'ada');

      const signingOut = await load(store, 'sid');
      assert(signingOut);
      delete signingOut.passport;
      await store.set('sid', signingOut);
      assert.equal(await userId(), null);
    });

    it('sees what is stored, as it is at the call: never a later state, nor values that JSON has otherwise', async () => {
      const seen: unknown[] = [];
      const user = (session: any) => {
        seen.push(session);
        return session.account?.id;
      };
      const store = await openStore({ user });
      const id = { toJSON: () => 'an id' };
      const account: any = generated(store, 'sid', { account: { id, since: new Date(0) } });
      const waiting = store.set('sid', plain());
      const saving = store.set('sid', account);
      const cookie = JSON.parse(JSON.stringify(account.cookie));
      account.account.id = 'changed afterwards';
      account.cookie.maxAge = 5;
      await Promise.all([waiting, saving]);
      assert.deepEqual(seen.at(-1), { account: { id: 'an id', since: '1970-01-01T00:00:00.000Z' }, cookie });
      assert.equal((await store.sessionsOf('an id')).length, 1);

      const [ours, theirs] = [await load(store, 'sid'), await load(store, 'sid')];
      assert(ours && theirs);
      theirs.account = { id: 'an id', role: 'theirs' };
      await store.set('sid', theirs);
      ours.more = 1;
      const merging = store.set('sid', ours);
      ours.account = { id: 'changed afterwards' };
      await merging;
      const stored = { account: { id: 'an id', role: 'theirs' }, more: 1 };
      assert.deepEqual(seen.at(-1), { ...stored, cookie: (await store.get('sid'))?.cookie });
      assert.equal((await store.sessionsOf('an id')).length, 1);
    });

    it('fails the save if it throws or returns something else', async () => {
      const throwing = await openStore({
        user: () => {
          throw new Error('no such account');
        },
      });
      await assert.rejects(throwing.set('sid', plain()), /PgStore\.set: no such account/);
      const wrong = await openStore({ user: () => ({}) as string });
      await assert.rejects(wrong.set('sid', plain()), {
        code: 'INVALID_USER',
        message: 'PgStore.set: option `user`: expected a string or a number as user, got object',
      });
    });
  });

  describe('sessionsOf', () => {
    it('lists them, newest activity first, without a session ID', async () => {
      const before = Date.now() - 60_000;
      const store = await openStore({ touchAfter: 0 });
      for (const sid of ['a', 'b', 'c']) await store.set(sid, ofAda({ sid: `device ${sid}` }));
      await store.set('d', plain({ passport: { user: 'grace' } }));
      const a = await load(store, 'a');
      assert(a);
      await store.touch('a', a);

      const sessions = await store.sessionsOf('ada');
      assert.deepEqual(
        sessions.map(({ session }: any) => session.sid),
        ['device a', 'device c', 'device b'],
      );
      for (const { handle, createdAt, lastSeenAt, expiresAt, session } of sessions) {
        assert.match(handle, /^[\w-]{24}$/);
        assert(before < createdAt.getTime() && createdAt <= lastSeenAt && lastSeenAt < expiresAt);
        assert.equal(session.cookie.httpOnly, true);
        assert.equal('id' in session, false);
      }
      assert.equal(new Set(sessions.map(({ handle }) => handle)).size, 3);
    });

    it('gives a handle that is no session ID, and stays the same', async () => {
      const store = await openStore();
      await store.set('sid', ofAda());
      const [{ handle }] = await store.sessionsOf('ada');
      assert.equal(await store.get(handle), null);
      const changed = await load(store, 'sid');
      assert(changed);
      changed.views = 1;
      await store.set('sid', changed);
      assert.deepEqual(
        (await store.sessionsOf('ada')).map((session) => session.handle),
        [handle],
      );
    });

    for (const options of [{ encryptionKey: 'k'.repeat(32) }, { hashIds: true }, { secret: ['new', 'old'] }]) {
      it(`works with ${Object.keys(options)}`, async () => {
        const store = await openStore(options);
        await store.set('one', ofAda({ n: 1 }));
        await store.set('two', ofAda({ n: 2 }));
        const sessions = await store.sessionsOf('ada');
        assert.deepEqual(
          sessions.map(({ session }: any) => session.n),
          [2, 1],
        );
        assert.equal(await store.destroyByHandle(sessions[0].handle, { user: 'ada' }), true);
        assert.equal(await store.get('two'), null);
        assert.equal(await store.destroySessionsOf('ada', { except: 'one' }), 0);
        assert.notEqual(await store.get('one'), null);
        assert.equal(await store.destroySessionsOf('ada'), 1);
      });
    }

    it('leaves out expired sessions, and those of another prefix', async () => {
      const table = freshTable();
      const [store, other] = [await openStore({ table, prefix: 'a:' }), await openStore({ table, prefix: 'b:' })];
      await store.set('expired', plain({ passport: { user: 'ada' } }, -1000));
      await other.set('other', ofAda());
      assert.deepEqual(await store.sessionsOf('ada'), []);
      assert.equal(await store.destroySessionsOf('ada'), 1, 'the expired one');
      assert.equal((await other.sessionsOf('ada')).length, 1);
    });

    it('takes a number for the same user as its digits', async () => {
      const store = await openStore();
      await store.set('sid', plain({ passport: { user: 17 } }));
      assert.equal((await store.sessionsOf('17')).length, 1);
      assert.equal((await store.sessionsOf(17)).length, 1);
      assert.equal(await store.destroySessionsOf(17), 1);
      await assert.rejects(store.sessionsOf(undefined as any), /expected a string or a number as user, got undefined/);
    });
  });

  describe('destroyByHandle', () => {
    it('destroys that session, and no other', async () => {
      const store = await openStore();
      for (const sid of ['a', 'b']) await store.set(sid, ofAda({ sid }));
      const [{ handle, session }] = await store.sessionsOf('ada');
      assert.equal((session as any).sid, 'b');
      assert.equal(await store.destroyByHandle(handle, { user: 'ada' }), true);
      assert.equal(await store.get('b'), null);
      assert.notEqual(await store.get('a'), null);
      assert.equal(await store.destroyByHandle(handle, { user: 'ada' }), false);
    });

    it('ends only that user’s', async () => {
      const store = await openStore();
      await store.set('sid', ofAda());
      const [{ handle }] = await store.sessionsOf('ada');
      for (const user of ['grace', '', 'ADA', "ada' or true --"]) {
        assert.equal(await store.destroyByHandle(handle, { user }), false);
      }
      assert.equal(await store.destroyByHandle(`${handle}x`, { user: 'ada' }), false);
      assert.equal(await store.destroyByHandle('', { user: 'ada' }), false);
      assert.notEqual(await store.get('sid'), null);
    });
  });

  describe('destroySessionsOf', () => {
    it('destroys all but the excepted one and says how many, in one statement', async () => {
      const statements: string[] = [];
      const sql = postgres(await postgresUri(), {
        onnotice: () => {},
        debug: (_connection, query) => void statements.push(query),
      });
      try {
        const store = await openStore({ sql });
        for (const sid of ['a', 'b', 'c', 'd']) await store.set(sid, ofAda());
        await store.set('e', plain({ passport: { user: 'grace' } }));
        statements.length = 0;
        assert.equal(await store.destroySessionsOf('ada', { except: 'b' }), 3);
        assert.equal(statements.filter((text) => /\bdelete\b/.test(text)).length, 1);
        assert.deepEqual((await store.ids()).sort(), ['b', 'e']);
        await closeStores();
      } finally {
        await sql.end();
      }
    });

    it('excepts nothing by a session ID of another user', async () => {
      const store = await openStore();
      await store.set('a', ofAda());
      await store.set('g', plain({ passport: { user: 'grace' } }));
      assert.equal(await store.destroySessionsOf('ada', { except: 'g' }), 1);
      assert.notEqual(await store.get('g'), null);
    });

    it('refuses options that it does not know, and then destroys nothing', async () => {
      const store = await openStore();
      await store.set('a', ofAda());
      for (const options of [{ exept: 'a' }, 'a', ['a']] as any[]) {
        await assert.rejects(store.destroySessionsOf('ada', options), {
          name: 'TypeError',
          message: /^PgStore\.destroySessionsOf: (unknown option|expected an object)/,
        });
      }
      assert.notEqual(await store.get('a'), null);
      assert.equal(await store.destroySessionsOf('ada', { except: undefined } as any), 1);
    });

    it('ends sessions for good: requests still running do not bring them back', async () => {
      const store = await openStore();
      const dropped: string[] = [];
      store.on('dropped', (_handle, call) => dropped.push(call));
      const waiting: (() => void)[] = [];
      const app = express();
      app.use(session({ store, secret: 'x', resave: true, rolling: true, saveUninitialized: true }));
      app.post('/sign-in', (req, res) => {
        (req.session as any).passport = { user: 'ada' };
        res.end();
      });
      app.post('/slow/:n', async (req, res) => {
        await new Promise<void>((resolve) => waiting.push(resolve));
        (req.session as any)[req.params.n] = true;
        res.end();
      });
      app.get('/', (req, res) => res.json((req.session as any).passport ?? null));
      const server = app.listen(0);
      try {
        const signIn = await request(server).post('/sign-in');
        const cookie = signIn.get('set-cookie')?.[0] ?? '';
        const slow = Array.from({ length: 20 }, (_, n) =>
          request(server)
            .post(`/slow/${n}`)
            .set('cookie', cookie)
            .then((response) => response.status),
        );
        while (waiting.length < slow.length) await new Promise((resolve) => setImmediate(resolve));
        assert.equal(await store.destroySessionsOf('ada'), 1);
        for (const go of waiting) go();
        assert.deepEqual(new Set(await Promise.all(slow)), new Set([200]));
        assert.equal(await store.length(), 0);
        assert.equal((await request(server).get('/').set('cookie', cookie)).body, null);
        assert(dropped.length >= 20);
      } finally {
        await new Promise((resolve) => server.close(resolve));
      }
    });
  });

  it('keeps at most N sessions of a user, however many sign in at once', async () => {
    const store = await openStore();
    const limit = 3;
    await Promise.all(
      Array.from({ length: 200 }, async (_, n) => {
        await store.set(`s${n}`, ofAda({ n }));
        await store.limitSessionsOf('ada', limit, { except: `s${n}` });
      }),
    );
    assert((await store.length()) <= limit);

    for (const sid of ['t0', 't1', 't2']) await store.set(sid, ofAda());
    await store.limitSessionsOf('ada', limit, { except: 't0' });
    assert.deepEqual((await store.ids()).sort(), ['t0', 't1', 't2']);
    assert.equal(await store.limitSessionsOf('ada', 0, { except: 't1' }), 2);
    assert.deepEqual(await store.ids(), ['t1']);
  });

  it('gives a Passport app a page of devices, and a limit of sessions by the cookbook’s recipe', async () => {
    const { atMost } = await recipe('docs/cookbook.md', 'export function atMost');
    const store = await openStore();
    const app = passportApp(store);
    addDevices(app, store);
    app.post('/limit', atMost(2, store), (_request, response) => response.end());
    const signedIn = async (username: string) => {
      const agent = request.agent(app);
      await agent.post('/login').type('form').send({ username, password: 'open sesame' }).expect(200);
      return agent;
    };
    const who = async (agent: { get(url: string): request.Test }) => (await agent.get('/me')).body.id ?? null;
    const [one, two, three, other] = [
      await signedIn('ada'),
      await signedIn('ada'),
      await signedIn('ada'),
      await signedIn('grace'),
    ];
    const { body: devices } = await one.get('/devices').expect(200);
    assert.equal(devices.length, 3);
    await other.post(`/devices/${devices[0].handle}/sign-out`).expect(404);
    await one.post(`/devices/${devices[0].handle}/sign-out`).expect(204);
    assert.deepEqual([await who(one), await who(two), await who(three)], ['ada', 'ada', null]);
    assert.equal((await one.post('/sign-out-others')).body, 1);
    assert.deepEqual([await who(one), await who(two), await who(other)], ['ada', null, 'grace']);
    await one.post('/logout').expect(204);
    assert.equal(await who(one), null);
    assert.deepEqual(await store.sessionsOf('ada'), []);

    const agents = [];
    for (let n = 0; n < 3; n++) {
      const agent = await signedIn('ada');
      await agent.post('/limit').expect(200);
      agents.push(agent);
    }
    assert.deepEqual(await Promise.all(agents.map(who)), [null, 'ada', 'ada']);
  });

  describe('in a table of a million rows', () => {
    const table = freshTable();
    let store: PgStore;

    before(async () => {
      const sql = await sqlClient();
      store = new PgStore({ uri: await postgresUri(), table, autodelete: false, timeout: 60_000 });
      await store.ready();
      // Unlogged, for the time it takes.
      await sql.unsafe(`alter table "${table}" set unlogged`);
      const insert = `insert into "${table}" (sid, data, cookie, user_id, expires_at, delete_after)`;
      await sql.unsafe(`${insert} select 's' || n, '{}', null, 'u' || n / 2,
        now() + interval '1 day', now() + interval '1 day'
        from generate_series(1, 999000) n`);
      await sql.unsafe(`${insert} select 'a' || n, '{"passport":{"user":"ada"}}', '{"originalMaxAge":86400000,"expires":true}', 'ada',
        now() + interval '1 day', now() + interval '1 day' from generate_series(1, 1000) n`);
      await sql.unsafe(`analyze "${table}"`);
    });

    after(async () => {
      await store?.close();
      const sql = await sqlClient();
      await sql`drop table ${sql(table)}`;
    });

    it('lists and ends 1,000 sessions of one user by the index', async () => {
      const plans = await explained(table, async (spy) => {
        const sessions = await spy.sessionsOf('ada');
        assert.equal(sessions.length, 1000);
        assert.equal(await spy.destroyByHandle(sessions[500].handle, { user: 'ada' }), true);
        assert.equal(await spy.destroySessionsOf('ada', { except: 'a1' }), 998);
      });
      const [{ left }] =
        await (await sqlClient())`select count(*)::integer as left from ${(await sqlClient())(table)} where user_id = 'ada'`;
      assert.equal(left, 1);
      assert(plans.length >= 4, String(plans.length));
      for (const plan of plans) {
        // One row by its key, or many by their user.
        assert.match(plan, /_pkey|_user_id_idx/);
        assert.doesNotMatch(plan, /Seq Scan on sessions_/);
      }
    });
  });
});

/**
 * The plans of the statements that a store runs on a user's rows, asked of the server before each
 * of them.
 */
async function explained(table: string, work: (store: PgStore) => Promise<void>): Promise<string[]> {
  const sql = postgres(await directUri(), { onnotice: () => {}, max: 1 });
  const plans: string[] = [];
  const spy = new Proxy(sql, {
    get(target: any, name) {
      if (name !== 'unsafe') return target[name];
      return (text: string, values: string[], options: object) => ({
        values: async () => {
          if (text.includes('user_id = ')) {
            const plan: string[][] = await target.unsafe(`explain ${text}`, values, { prepare: true }).values();
            plans.push(plan.flat().join('\n'));
          }
          return target.unsafe(text, values, options).values();
        },
      });
    },
  });
  const store = new PgStore({ sql: spy, table, createTable: false, autodelete: false, timeout: 60_000 });
  try {
    await work(store);
  } finally {
    await store.close();
    await sql.end();
  }
  return plans;
}

/** A page of the user's devices, which ends one session or all others. */
function addDevices(app: express.Express, store: PgStore): void {
  const idOf = (user: Express.User | undefined) => (user as { id: string }).id;
  app.get('/devices', async (req, res) => {
    res.json(await store.sessionsOf(idOf(req.user)));
  });
  app.post('/devices/:handle/sign-out', async (req, res) => {
    const isEnded = await store.destroyByHandle(req.params.handle, { user: idOf(req.user) });
    res.sendStatus(isEnded ? 204 : 404);
  });
  app.post('/sign-out-others', async (req, res) => {
    res.json(await store.destroySessionsOf(idOf(req.user), { except: req.sessionID }));
  });
}
