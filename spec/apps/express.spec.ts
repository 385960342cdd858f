/** The store serves Express 4 and 5 over HTTP as express-session documents it. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Server } from 'node:http';
import { createRequire } from 'node:module';
import { sign } from 'cookie-signature';
import express5, { type ErrorRequestHandler, type Express, type Request } from 'express';
import session, { type SessionOptions } from 'express-session';
import request from 'supertest';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { closeStores, freshTable, openStore, sqlClient } from '../support/postgres.js';

// Express 4 under a name of its own has no types of its own.
const express4 = createRequire(import.meta.url)('express4') as typeof express5;

/** Sessions here hold what they please. */
type Handler = (session: any, req: Request) => unknown;

const promised = (session: session.Session, method: 'save' | 'reload' | 'regenerate' | 'destroy') =>
  new Promise<void>((resolve, reject) => session[method]((error?: unknown) => (error ? reject(error) : resolve())));

/** What the specs' apps do; each answers with what it returns. */
const routes: Record<string, Handler> = {
  '/views': (session) => {
    session.views = (session.views ?? 0) + 1;
    return session.views;
  },
  '/read': (session) => session.views ?? null,
  '/id': (_, req) => req.sessionID,
  '/login': async (session, req) => {
    await promised(session, 'regenerate');
    (req.session as any).user = 'ann';
    return req.sessionID;
  },
  '/reload': async (session, req) => {
    session.views = 'not saved';
    await promised(session, 'reload');
    return (req.session as any).views;
  },
  '/save': async (session) => {
    session.views = 'saved';
    await promised(session, 'save');
    return session.views;
  },
  '/logout': async (session, req) => {
    await promised(session, 'destroy');
    return req.session === undefined;
  },
  '/unset': (_, req) => {
    req.session = null as any;
    return true;
  },
  '/remember': (session) => {
    session.cookie.maxAge = 90_000;
    return true;
  },
  '/max-age': (session) => session.cookie.originalMaxAge,
  '/add': (session, req) => {
    session[String(req.query.key)] = true;
    return true;
  },
  '/keys': (session) => Object.keys(session).filter((key) => key !== 'cookie'),
};

for (const [name, express] of [
  ['Express 4', express4],
  ['Express 5', express5],
] as const) {
  describe(name, () => {
    const servers = new Set<Server>();
    let store: PgStore;
    let table: string;

    async function open(settings: Partial<SessionOptions> = {}, options: PgStoreOptions = {}): Promise<Server> {
      table = options.table ?? freshTable();
      store = await openStore({ table, touchAfter: 0, ...options });
      const app: Express = express();
      app.set('trust proxy', 1);
      app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false, ...settings }));
      for (const [path, handler] of Object.entries(routes)) {
        app.get(path, async (req, res, next) => {
          try {
            const answer = await handler(req.session, req);
            res.json(answer);
          } catch (error) {
            next(error);
          }
        });
      }
      const tell: ErrorRequestHandler = (error, _req, res, _next) => {
        res.status(500).json(`${error.message.split(':')[0]}: ${error.code}`);
      };
      app.use(tell);
      const server = app.listen(0);
      servers.add(server);
      await once(server, 'listening');
      return server;
    }

    const rows = async () => {
      const sql = await sqlClient();
      return sql`select sid, data, cookie, expires_at from ${sql(table)} order by sid`;
    };
    const expiry = async () => (await rows())[0]?.expires_at.getTime();
    /** express-session sometimes takes a millisecond off. */
    const hasMaxAge = async (visitor: ReturnType<typeof request.agent>, expected: number) => {
      const { body } = await visitor.get('/max-age').expect(200);
      assert(Math.abs(body - expected) <= 10, `${body} ms`);
    };
    const setCookie = (response: request.Response) => (response.headers['set-cookie']?.[0] ?? '') as string;

    afterEach(async () => {
      for (const server of servers) {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      }
      servers.clear();
      await closeStores();
    });

    it('creates a session for a new visitor and uses it again', async () => {
      const visitor = request.agent(await open());
      const first = await visitor.get('/views').expect(200, '1');
      assert.match(setCookie(first), /^connect\.sid=s%3A[^;]+; Path=\/; HttpOnly$/);
      const second = await visitor.get('/views').expect(200, '2');
      assert.equal(setCookie(second), '');
      await visitor.get('/read').expect(200, '2');
      assert.deepEqual(
        (await rows()).map(({ data }) => data),
        [{ views: 2 }],
      );
    });

    it('keeps visitors apart, and strangers out', async () => {
      const server = await open();
      const [one, two] = [request.agent(server), request.agent(server)];
      await one.get('/views').expect('1');
      await two.get('/views').expect('1');
      await one.get('/views').expect('2');
      await request(server).get('/read').set('Cookie', 'connect.sid=s%3Aforged.signature').expect('null');
      await request(server).get('/read').set('Cookie', 'connect.sid=%00').expect('null');
    });

    it('gives a new session where the old one is missing in the table', async () => {
      const visitor = request.agent(await open());
      const { body: before } = await visitor.get('/id');
      await visitor.get('/views').expect('1');
      await store.clear();
      const { body: after } = await visitor.get('/views').expect(200, '1');
      assert.notEqual(before, after);
      assert.equal((await rows()).length, 1);
    });

    it('expires sessions to the millisecond', async () => {
      const visitor = request.agent(await open({ cookie: { maxAge: 700 } }));
      await visitor.get('/views').expect('1');
      const sql = await sqlClient();
      const [life] = await sql`select extract(epoch from expires_at - updated_at) * 1000 as ms from ${sql(table)}`;
      assert(Number(life?.ms) > 0 && Number(life?.ms) <= 700, `${life?.ms} ms`);
      const isLive = async () => (await sql`select from ${sql(table)} where expires_at > now()`).length > 0;
      while (await isLive());
      await visitor.get('/views').expect('1');
    });

    it('prolongs a session with each request, and its cookie with `rolling`', async () => {
      const plain = request.agent(await open({ cookie: { maxAge: 60_000 } }));
      await plain.get('/views');
      const before = await expiry();
      assert.equal(setCookie(await plain.get('/read')), '');
      assert((await expiry()) > before, 'the row was touched');

      const rolling = request.agent(await open({ cookie: { maxAge: 60_000 }, rolling: true }));
      await rolling.get('/views');
      const first = await expiry();
      assert.match(setCookie(await rolling.get('/read')), /Expires=/);
      assert((await expiry()) > first);
    });

    it('gives a new ID and an empty session on `regenerate`', async () => {
      const visitor = request.agent(await open());
      await visitor.get('/views').expect('1');
      const { body: before } = await visitor.get('/id');
      const { body: after } = await visitor.get('/login').expect(200);
      assert.notEqual(after, before);
      await visitor.get('/id').expect(200, JSON.stringify(after));
      await visitor.get('/keys').expect(200, ['user']);
      assert.deepEqual(
        (await rows()).map(({ sid }) => sid),
        [after],
      );
    });

    it('loads the stored session again on `reload`', async () => {
      const visitor = request.agent(await open());
      await visitor.get('/views').expect('1');
      await visitor.get('/reload').expect(200, '1');
      await visitor.get('/read').expect('1');
    });

    it('stores a session at once on `save`', async () => {
      const visitor = request.agent(await open());
      await visitor.get('/save').expect(200, '"saved"');
      await visitor.get('/read').expect(200, '"saved"');
    });

    it('removes a session on `destroy`', async () => {
      const visitor = request.agent(await open());
      await visitor.get('/views');
      await visitor.get('/logout').expect(200, 'true');
      assert.equal((await rows()).length, 0);
      await visitor.get('/read').expect('null');
    });

    it('deletes the row of an unset session with `unset: "destroy"`, keeps it without', async () => {
      for (const [unset, left] of [
        ['destroy', 0],
        ['keep', 1],
      ] as const) {
        const visitor = request.agent(await open({ unset }));
        await visitor.get('/views');
        await visitor.get('/unset').expect(200, 'true');
        assert.equal((await rows()).length, left, unset);
      }
    });

    it('stores an untouched new session with `saveUninitialized` only', async () => {
      for (const saveUninitialized of [true, false]) {
        const response = await request(await open({ saveUninitialized })).get('/read');
        assert.equal(setCookie(response) !== '', saveUninitialized);
        assert.equal(await store.length(), saveUninitialized ? 1 : 0);
      }
    });

    it('works with `resave: true`', async () => {
      const visitor = request.agent(await open({ resave: true }));
      await visitor.get('/views').expect('1');
      await visitor.get('/read').expect('1');
      await visitor.get('/views').expect('2');
    });

    it('sends a `secure` cookie over HTTPS only', async () => {
      const server = await open({ cookie: { secure: true } });
      assert.equal(setCookie(await request(server).get('/views')), '');
      assert.match(setCookie(await request(server).get('/views').set('X-Forwarded-Proto', 'https')), /; Secure$/);
    });

    it('remembers what `secure: "auto"` came to', async () => {
      const server = await open({ cookie: { secure: 'auto' } });
      assert.match(setCookie(await request(server).get('/views')), /; HttpOnly$/);
      assert.match(setCookie(await request(server).get('/views').set('X-Forwarded-Proto', 'https')), /; Secure$/);
      assert.deepEqual((await rows()).map(({ cookie }) => cookie.secure).sort(), [false, true]);
    });

    it('keeps a changed `maxAge` where nothing else changed', async () => {
      const visitor = request.agent(await open());
      await visitor.get('/views');
      await visitor.get('/remember');
      await hasMaxAge(visitor, 90_000);
      const [row] = await rows();
      assert.equal(Math.round(row?.cookie.originalMaxAge / 100), 900);
    });

    it('lets sessions outlive the browser with `permanent`', async () => {
      const visitor = request.agent(await open({}, { permanent: true, ttl: 3600 }));
      assert.match(setCookie(await visitor.get('/views')), /; Expires=/);
      await hasMaxAge(visitor, 3_600_000);
      const { body: id } = await visitor.get('/login');
      assert.match(setCookie(await visitor.get('/login')), /; Expires=/);
      assert.notEqual(id, undefined);
    });

    it('leaves a `maxAge` of the app alone with `permanent`', async () => {
      const visitor = request.agent(await open({ cookie: { maxAge: 60_000 } }, { permanent: true, ttl: 3600 }));
      await visitor.get('/views');
      await hasMaxAge(visitor, 60_000);
    });

    it('answers a hundred requests at once, on one session and on a hundred', async () => {
      const server = await open();
      const visitor = request.agent(server);
      const keys = Array.from({ length: 100 }, (_, n) => `key${String(n).padStart(2, '0')}`);
      await visitor.get('/views').expect('1');
      await Promise.all(keys.map((key) => visitor.get(`/add?key=${key}`).expect(200)));
      const { body } = await visitor.get('/keys');
      assert.deepEqual(body.sort(), [...keys, 'views']);

      await Promise.all(keys.map(() => request(server).get('/views').expect(200, '1')));
      assert.equal(await store.length(), 101);
    });

    it('hands the app an error, not a hang, where the table is missing', async () => {
      const server = await open({}, { createTable: false });
      const known = `connect.sid=s%3A${encodeURIComponent(sign('abc', 'keyboard cat'))}`;
      await request(server).get('/views').set('Cookie', known).expect(500, '"PgStore.get: 42P01"');
    });
  });
}
