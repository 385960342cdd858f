/** The cookbook's recipes about single sessions: their end, their data and their lifetime. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http, { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import flash from 'connect-flash';
import express, { type RequestHandler } from 'express';
import session, { type SessionOptions } from 'express-session';
import { WebSocket, WebSocketServer } from 'ws';
import type { PgStore } from '../../lib/index.js';
import { closeStores, freshTable, openStore, sqlClient } from '../support/postgres.js';
import { data, generated, loaded, plain } from '../support/sessions.js';

const MINUTE = 60_000;
const MONTH = 30 * 24 * 60 * MINUTE;

describe('cookbook: recipes about sessions', () => {
  const servers: http.Server[] = [];

  afterEach(async () => {
    for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
    await closeStores();
  });

  async function listen(app: RequestListener): Promise<string> {
    const server = createServer(app);
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** An app with a session that lives for ten minutes. */
  function withSessions(store: PgStore, options: Partial<SessionOptions> = {}) {
    const app = express();
    const cookie = { maxAge: 10 * MINUTE };
    app.use(session({ store, secret: 'not a secret', resave: false, saveUninitialized: false, cookie, ...options }));
    return app;
  }

  async function visit(url: string, cookie = '', method = 'GET') {
    const response = await fetch(url, { method, headers: { cookie }, redirect: 'manual' });
    const [set = ''] = response.headers.getSetCookie();
    return { text: await response.text(), cookie: set.split(';')[0] ?? '', set };
  }

  it('ends a WebSocket with its session', async () => {
    const table = freshTable();
    const [store, other] = [await openStore({ table, watchInterval: 0.1 }), await openStore({ table })];
    const sessionID = 'a';
    await store.set(sessionID, plain());
    const sockets = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    await once(sockets, 'listening');
    try {
      sockets.on('connection', (socket) => {
        const stop = store.watch(sessionID, (reason) => socket.close(4401, reason));
        socket.on('close', stop);
      });
      const client = new WebSocket(`ws://127.0.0.1:${(sockets.address() as AddressInfo).port}`);
      await once(client, 'open');
      await other.destroy(sessionID);
      const [code, reason] = await once(client, 'close');
      assert.deepEqual([code, String(reason)], [4401, 'destroyed']);
    } finally {
      sockets.close();
    }
  });

  it('changes a user’s role everywhere', async () => {
    const store = await openStore({ user: (stored: any) => stored.userId });
    for (const sid of ['a', 'b']) await store.set(sid, plain({ userId: 'ann' }));
    await store.set('c', plain({ userId: 'bob' }));
    const setRole = (session: any) => {
      session.role = 'editor';
    };
    assert.equal(await store.updateSessionsOf('ann', setRole), 2);
    const roles = await Promise.all(['a', 'b', 'c'].map(async (sid) => (await data(store, sid))?.role));
    assert.deepEqual(roles, ['editor', 'editor', undefined]);
  });

  it('counts outside of requests', async () => {
    const store = await openStore();
    const addCredits = async (sid: string, amount: number) => {
      const changed: any = await store.update(sid, (session: any) => {
        session.credits = (session.credits ?? 0) + amount;
      });
      return changed?.credits;
    };
    await store.set('a', plain({ credits: 1 }));
    await Promise.all(Array.from({ length: 20 }, () => addCredits('a', 2)));
    assert.equal(await addCredits('a', 1), 42);
    assert.equal(await addCredits('nowhere', 1), undefined);
  });

  it('counts in requests, by a rule of option `merge`', async () => {
    const store = await openStore({ merge: { credits: 'sum' } });
    await store.set('a', plain({ credits: 1 }));
    const [one, two] = [await loaded(store, 'a'), await loaded(store, 'a')];
    one.credits += 2;
    two.credits += 3;
    await Promise.all([store.set('a', one), store.set('a', two)]);
    assert.equal((await data(store, 'a'))?.credits, 6);
  });

  it('keeps messages of connect-flash that parallel requests add', async () => {
    const store = await openStore({ merge: { 'flash.info': 'append', 'flash.error': 'append' } });
    await store.set('a', generated(store, 'a'));
    const messages = ['one', 'two', 'three'];
    const requests = await Promise.all(
      messages.map(async (message) => {
        const request: any = { session: await loaded(store, 'a') };
        flash()(request, {} as any, () => {});
        request.flash('info', '%s', message);
        return request.session;
      }),
    );
    for (const request of requests) await store.set('a', request);
    assert.deepEqual(await data(store, 'a'), { flash: { info: messages } });
  });

  it('shows how much time is left without extending it, nor sending a cookie', async () => {
    const table = freshTable();
    const store = await openStore({ table, touchAfter: 0 });
    const app = withSessions(store, { rolling: true });
    app.post('/sign-in', (request, response) => {
      Object.assign(request.session, { user: 'ann' });
      response.end();
    });
    app.get('/time-left', (request, response) => {
      // It is what is stored: express-session sets the full `maxAge` again only when it sends the response.
      const { maxAge } = request.session.cookie;
      delete (request as { session?: unknown }).session;
      response.json(typeof maxAge === 'number' ? Math.max(0, Math.round(maxAge / 1000)) : null);
    });
    app.get('/', (_, response) => void response.end());
    const url = await listen(app);
    const { cookie } = await visit(`${url}/sign-in`, '', 'POST');
    const sql = await sqlClient();
    await sql`update ${sql(table)} set expires_at = now() + interval '1 minute'`;
    const expires = async () => Number((await sql`select expires_at from ${sql(table)}`)[0].expires_at);
    const before = await expires();
    const { text, set } = await visit(`${url}/time-left`, cookie);
    assert(Number(text) > 0 && Number(text) <= 60, text);
    assert.equal(set, '');
    assert.equal(await expires(), before);
    // Any other request does.
    await visit(url, cookie);
    assert((await expires()) > before + MINUTE);
  });

  it('keeps users signed in: the cookie is sent again where data change, or with `rolling`', async () => {
    const signIn = (userId: string, remember: boolean): RequestHandler => {
      return (request, response, next) => {
        request.session.regenerate((error) => {
          if (error) return next(error);
          request.session.userId = userId;
          // Otherwise what option `cookie` of express-session says: without a `maxAge`, until the browser is closed.
          if (remember) request.session.cookie.maxAge = MONTH;
          response.redirect(303, '/');
        });
      };
    };
    for (const rolling of [false, true]) {
      const store = await openStore();
      const app = withSessions(store, { rolling, cookie: {} });
      app.post('/sign-in', signIn('ann', true));
      app.post('/sign-in-here-only', signIn('ann', false));
      app.get('/', (_, response) => void response.end());
      app.get('/seen', (request, response) => {
        Object.assign(request.session, { seenOn: new Date().toDateString() });
        response.end();
      });
      const url = await listen(app);
      assert.doesNotMatch((await visit(`${url}/sign-in-here-only`, '', 'POST')).set, /Expires/);
      const { cookie, set } = await visit(`${url}/sign-in`, '', 'POST');
      const expires = (text: string) => Date.parse(/Expires=([^;]+)/.exec(text)?.[1] ?? '') - Date.now();
      assert.equal(Math.round(expires(set) / (24 * 60 * MINUTE)), 30);
      assert.equal((await visit(url, cookie)).set !== '', rolling);
      assert.equal(Math.round(expires((await visit(`${url}/seen`, cookie)).set) / (24 * 60 * MINUTE)), 30);
    }
  });
});
