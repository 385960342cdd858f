/** A cookie column that express-session would fail on makes its row unreadable, and no request fails. */

import assert from 'node:assert/strict';
import { setImmediate as immediate } from 'node:timers/promises';
import express from 'express';
import session from 'express-session';
import fc from 'fast-check';
import request from 'supertest';
import { cookieFlaw } from '../../lib/session/cookie.js';
import { handleOf } from '../../lib/session/session-id.js';
import { closeStores, freshTable, openStore, sqlClient } from '../support/postgres.js';

/** What express-session does with a cookie from its store, at most: the same as at the end of a request. */
function expressSessionFails(text: string): boolean {
  const data: any = { cookie: JSON.parse(text) };
  // As the store gives it back.
  if (data.cookie.expires === true) data.cookie.expires = new Date(Date.now() + 60_000).toISOString();
  if (typeof data.cookie.originalMaxAge !== 'number') data.cookie.originalMaxAge = null;
  try {
    const created: any = new session.MemoryStore().createSession({ sessionID: 's' } as any, data);
    created.touch();
    created.cookie.serialize('connect.sid', 's%3Asid.signature');
    JSON.stringify(created);
    return false;
  } catch {
    return true;
  }
}

const ATTRIBUTES =
  `path domain sameSite priority expires maxAge originalMaxAge httpOnly secure partitioned _expires data serialize
  toJSON __proto__ constructor hasOwnProperty signed overwrite`.split(/\s+/);

const VALUES: unknown[] = [
  ...[null, true, false, 0, 1, -1, 60_000, 1e300, -1e300, 8.64e15, 9e15, 1e12, '', ' ', '/', '/a b', '/;', '/ä', '/\n'],
  ...['a', '.a', 'a.b', 'a..b', '-a', 'a b', 'ä.de', 'x'.repeat(64), 'lax', 'Lax', 'STRICT', 'none', 'sometimes'],
  ...['low', 'HIGH', 'highest', 'auto', 'never', '2030-01-01', '1e300', [], ['lax'], {}, { a: 1 }, [0], '60000'],
];

describe('a cookie', () => {
  it('has a flaw wherever express-session fails on it: each attribute with each value', () => {
    let failures = 0;
    for (const name of ATTRIBUTES) {
      for (const value of VALUES) {
        // Not as a literal: there `__proto__` is not a key.
        const text = `{"path":"/",${JSON.stringify(name)}:${JSON.stringify(value)}}`;
        const fails = expressSessionFails(text);
        failures += fails ? 1 : 0;
        if (fails) assert(cookieFlaw(JSON.parse(text)), text);
      }
    }
    assert(failures > 100, String(failures));
  });

  it('has a flaw wherever express-session fails on it: combinations', () => {
    const cookie = fc.dictionary(fc.constantFrom(...ATTRIBUTES), fc.oneof(fc.constantFrom(...VALUES), fc.jsonValue()));
    fc.assert(
      fc.property(cookie, (made) => {
        const text = JSON.stringify(made);
        if (expressSessionFails(text)) assert(cookieFlaw(JSON.parse(text)), text);
      }),
      { numRuns: 5000 },
    );
  });

  it('has none where an app of express-session, Fastify or Koa may have stored it', () => {
    const cookies: object[] = [
      {},
      { originalMaxAge: null, expires: null, httpOnly: true, path: '/' },
      { originalMaxAge: 60_000, expires: true, secure: true, httpOnly: true, domain: '.example.com', path: '/app' },
      { originalMaxAge: 60_000, expires: true, sameSite: 'lax', priority: 'high', partitioned: true, path: '/' },
      { originalMaxAge: 59_999.5, expires: true, sameSite: true, secure: 'auto', path: '' },
      { originalMaxAge: -1, expires: true, sameSite: false, priority: undefined, domain: null },
      { originalMaxAge: 400 * 86_400_000, expires: true, sameSite: 'None', secure: true },
      { maxAge: 86_400_000, overwrite: true, httpOnly: true, signed: true, rolling: false, renew: false },
    ];
    for (const cookie of cookies) assert.equal(cookieFlaw(JSON.parse(JSON.stringify(cookie))), undefined);
  });

  describe('in the table', () => {
    afterEach(closeStores);

    it('that express-session fails on: the visitor has no session, an event says so, and no request fails', async () => {
      const table = freshTable();
      const store = await openStore({ table, touchAfter: 0 });
      const told: unknown[] = [];
      store.on('unreadable', (...args) => void told.push(args));
      const app = express();
      app.use(session({ store, secret: 's', resave: false, rolling: true, saveUninitialized: false }));
      app.get('/sign-in', (req, res) => {
        (req.session as any).n = 1;
        req.session.cookie.maxAge = 60_000;
        res.end();
      });
      app.get('/', (req, res) => void res.json((req.session as any).n ?? 'none'));
      const agent = request.agent(app);
      const sql = await sqlClient();
      const put = (cookie: string) => sql`update ${sql(table)} set cookie = ${cookie}::text::json`;
      const kept = (await agent.get('/sign-in').expect(200)).headers['set-cookie']?.[0] as string;
      const visit = (path: string) =>
        request(app)
          .get(path)
          .set('Cookie', kept.split(';')[0] as string)
          .expect(200);
      assert.equal((await visit('/')).body, 1);
      const [{ sid, cookie }] = (await sql`select sid, cookie::text from ${sql(table)}`) as any;
      for (const bad of [
        { sameSite: 'sometimes' },
        { sameSite: 5 },
        { priority: 'highest' },
        { path: '/;' },
        { path: 5 },
        { domain: 'a b' },
        { originalMaxAge: 1e300 },
        { maxAge: 'long' },
        { expires: 'never' },
        { expires: {} },
        { _expires: 'never' },
      ]) {
        told.length = 0;
        await put(JSON.stringify({ ...JSON.parse(cookie), ...bad }));
        assert.equal((await visit('/')).body, 'none', JSON.stringify(bad));
        assert.equal((await store.all()).filter(({ id }) => id === sid).length, 0);
        await immediate();
        assert.deepEqual((told[0] as unknown[])[0], handleOf(sid), JSON.stringify(bad));
        assert.doesNotMatch(String(told), /sometimes|highest|never|long|1e\+?300/);
      }
      for (const odd of ['[]', '5', '"text"', 'null', 'true']) {
        await put(odd);
        assert.equal((await visit('/')).body, 'none', odd);
      }
      await put(cookie);
      assert.equal((await visit('/')).body, 1);
    });
  });
});
