/**
 * The guarantees hold through each framework, over HTTP. Larger frameworks: spec/tools/frameworks.spec.ts.
 */

import assert from 'node:assert/strict';
import http, { type RequestListener } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import express, { type Express } from 'express';
import { io, type Socket } from 'socket.io-client';
import type { PgStore } from '../../lib/index.js';
import { closeStores, freshTable, openStore, sqlClient } from '../support/postgres.js';
import { Visitor } from '../support/visitor.js';
import { connectApp } from './frameworks/connect.js';
import { flashApp } from './frameworks/connect-flash.js';
import { useSessions } from './frameworks/express.js';
import { fastifyApp } from './frameworks/fastify.js';
import { passportApp } from './frameworks/passport.js';
import { chatServer } from './frameworks/socket-io.js';

// npm's alias for Express 4; it comes without types. No `await` here: Mocha would load the spec,
// and with it the shared server, by `import()`, a second time beside the hooks' one.
const express4: () => Express = createRequire(import.meta.url)('express4');

const ITEMS = Array.from({ length: 10 }, (_, n) => `item${n}`);

describe('frameworks', () => {
  const closing: (() => unknown)[] = [];

  afterEach(async () => {
    for (const close of closing.splice(0)) await close();
    await closeStores();
  });

  async function visit(app: RequestListener): Promise<Visitor> {
    const server = http.createServer(app);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closing.push(() => new Promise((resolve) => server.close(resolve)));
    return new Visitor(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  }

  async function visitFastify(store: any): Promise<Visitor> {
    const app = await fastifyApp(store);
    closing.push(() => app.close());
    return new Visitor(await app.listen({ port: 0, host: '127.0.0.1' }));
  }

  const apps: Record<string, (store: PgStore) => Promise<Visitor>> = {
    'Express 5': (store) => visit(useSessions(express(), store)),
    'Express 4': (store) => visit(useSessions(express4(), store)),
    Connect: (store) => visit(connectApp(store)),
    Fastify: visitFastify,
  };

  for (const [name, start] of Object.entries(apps)) {
    describe(name, () => {
      it('keeps a session from request to request, in one row, until it is destroyed', async () => {
        const store = await openStore();
        const visitor = await start(store);
        assert.deepEqual(await visitor.json('GET', '/cart'), {});
        assert.equal(await store.length(), 0);
        await visitor.json('POST', '/cart/tea');
        assert.deepEqual(await visitor.json('POST', '/cart/milk'), { tea: 1, milk: 1 });
        assert.deepEqual(await visitor.json('GET', '/cart'), { tea: 1, milk: 1 });
        assert.equal(await store.length(), 1);
        assert.equal((await visitor.request('POST', '/logout')).status, 204);
        assert.equal(await store.length(), 0);
        assert.deepEqual(await visitor.json('GET', '/cart'), {});
      });

      it('puts off the expiry with each request', async () => {
        const store = await openStore({ touchAfter: 0 });
        const visitor = await start(store);
        await visitor.json('POST', '/cart/tea');
        const expiry = async () => new Date((await store.all())[0]?.cookie.expires as Date).getTime();
        const before = await expiry();
        assert(Math.abs(before - Date.now() - 3_600_000) < 60_000);
        while ((await expiry()) <= before) await visitor.json('GET', '/cart');
        assert.equal(await store.length(), 1);
      });
    });
  }

  for (const name of ['Express 5', 'Express 4', 'Connect']) {
    describe(name, () => {
      it('keeps what each of the parallel requests changed', async () => {
        const store = await openStore();
        const visitor = await (apps[name] as (typeof apps)[string])(store);
        assert.deepEqual(Object.keys(await cartAfterParallelRequests(visitor, store)).sort(), [...ITEMS, 'tea']);
      });

      it('revives no session that was destroyed while a request was under way', async () => {
        const store = await openStore();
        const visitor = await (apps[name] as (typeof apps)[string])(store);
        assert.deepEqual(await cartAfterLogoutDuringRequest(visitor, store), {});
        assert.equal(await store.length(), 0);
      });
    });
  }

  describe('Fastify', () => {
    it('from a first save by a request on, its next one keeps what another request saved between them', async () => {
      const store = await openStore();
      const app = await fastifyApp(store);
      let saved = () => {};
      let goOn = () => {};
      const isSaved = new Promise<void>((resolve) => (saved = resolve));
      const isFree = new Promise<void>((resolve) => (goOn = resolve));
      app.post('/twice', async ({ session }) => {
        session.cart = { ...session.cart, first: 1 };
        await session.save();
        saved();
        await isFree;
        session.cart = { ...session.cart, second: 1 };
        return session.cart;
      });
      closing.push(() => app.close());
      const visitor = new Visitor(await app.listen({ port: 0, host: '127.0.0.1' }));
      await visitor.json('POST', '/cart/tea');
      const twice = visitor.json('POST', '/twice');
      await isSaved;
      await visitor.another(visitor.cookie).json('POST', '/cart/milk');
      goOn();
      await twice;
      assert.deepEqual(Object.keys(await visitor.json('GET', '/cart')).sort(), ['first', 'milk', 'second', 'tea']);
    });

    it('writes nothing for requests that change nothing, while `touchAfter` allows that', async () => {
      const table = freshTable();
      const app = await fastifyApp(await openStore({ table }));
      closing.push(() => app.close());
      const visitor = new Visitor(await app.listen({ port: 0, host: '127.0.0.1' }));
      // The second save has an attribute `originalExpires` in its cookie, the first one has none.
      for (const item of ['tea', 'milk']) {
        await visitor.json('POST', `/cart/${item}`);
        const sql = await sqlClient();
        const written = async () => (await sql`select xmin::text from ${sql(table)}`)[0]?.xmin;
        const before = await written();
        for (let n = 0; n < 3; n++) await visitor.json('GET', '/cart');
        assert.equal(await written(), before);
      }
    });

    it('regenerates a session under a new ID, and an ID that nobody signed finds none', async () => {
      const store = await openStore();
      const app = await fastifyApp(store);
      app.post('/regenerate', async ({ session }) => session.regenerate(['cart']));
      closing.push(() => app.close());
      const visitor = new Visitor(await app.listen({ port: 0, host: '127.0.0.1' }));
      await visitor.json('POST', '/cart/tea');
      const [before] = await store.ids();
      await visitor.request('POST', '/regenerate');
      const ids = await store.ids();
      assert.equal(ids.length, 1);
      assert.notEqual(ids[0], before);
      assert.deepEqual(await visitor.json('GET', '/cart'), { tea: 1 });
      visitor.cookie = `sessionId=${ids[0]}.forged`;
      assert.deepEqual(await visitor.json('GET', '/cart'), {});
    });
  });

  describe('Passport', () => {
    const login = { username: 'ann', password: 'open sesame' };

    it('signs in under a new session ID, and out', async () => {
      const store = await openStore();
      const visitor = await visit(passportApp(store));
      assert.equal((await visitor.request('GET', '/me')).status, 401);
      assert.equal((await visitor.request('POST', '/login', { ...login, password: 'guess' })).status, 401);
      assert.deepEqual(await visitor.json('POST', '/login', login), { id: 'ann' });
      assert.deepEqual(await visitor.json('GET', '/me'), { id: 'ann' });
      const [first] = await store.ids();
      await visitor.json('POST', '/login', login);
      const ids = await store.ids();
      assert.equal(ids.length, 1);
      assert.notEqual(ids[0], first);
      assert.equal((await visitor.request('POST', '/logout')).status, 204);
      assert.equal((await visitor.request('GET', '/me')).status, 401);
      assert.deepEqual(await store.sessionsOf('ann'), []);
    });

    it('keeps a visitor signed out who logs out during a request', async () => {
      const store = await openStore();
      const app = passportApp(store);
      const visitor = await visit(app);
      await visitor.json('POST', '/login', login);
      const slow = hold(store, 'touch', 1);
      const request = visitor.request('GET', '/me');
      await slow.arrived;
      await visitor.another(visitor.cookie).request('POST', '/logout');
      slow.release();
      await request;
      assert.equal((await visitor.request('GET', '/me')).status, 401);
    });
  });

  describe('Socket.IO', () => {
    async function chat(store: PgStore) {
      const { server, io } = chatServer(store);
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      closing.push(() => io.close());
      return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    }

    function connect(url: string, { cookie }: Visitor): Socket {
      const socket = io(url, { extraHeaders: { cookie }, transports: ['websocket'], reconnection: false });
      closing.push(() => socket.close());
      return socket;
    }

    it('shares the session with its sockets, and refuses one without', async () => {
      const url = await chat(await openStore());
      const visitor = new Visitor(url);
      const [refused] = await once(connect(url, visitor), 'connect_error');
      assert.equal(refused.message, 'signed out');
      await visitor.request('POST', '/login/ann');
      const socket = connect(url, visitor);
      await once(socket, 'connect');
      socket.emit('say', 'hello');
      assert.deepEqual(await once(socket, 'said'), [{ user: 'ann', text: 'hello' }]);
    });

    it('disconnects the sockets of a session that is signed out, and no others', async () => {
      const url = await chat(await openStore());
      const [ann, bob] = [new Visitor(url), new Visitor(url)];
      await ann.request('POST', '/login/ann');
      await bob.request('POST', '/login/bob');
      const [tab, window, other] = [connect(url, ann), connect(url, ann), connect(url, bob)];
      await Promise.all([tab, window, other].map((socket) => once(socket, 'connect')));
      const gone = [tab, window].map((socket) => once(socket, 'disconnect'));
      await ann.request('POST', '/logout');
      await Promise.all(gone);
      other.emit('say', 'still here');
      assert.deepEqual(await once(other, 'said'), [{ user: 'bob', text: 'still here' }]);
      await once(connect(url, ann), 'connect_error');
    });

    it('disconnects a socket whose session was destroyed elsewhere', async () => {
      const table = freshTable();
      const url = await chat(await openStore({ table, watchInterval: 0.1 }));
      const visitor = new Visitor(url);
      await visitor.request('POST', '/login/ann');
      const socket = connect(url, visitor);
      await once(socket, 'connect');
      const gone = once(socket, 'disconnect');
      await (await openStore({ table })).clear();
      await gone;
    });
  });

  describe('connect-flash', () => {
    it('shows a message once, on the page after the redirect', async () => {
      const visitor = await visit(flashApp(await openStore()));
      assert.equal((await visitor.request('POST', '/order')).status, 302);
      assert.deepEqual(await visitor.json('GET', '/'), ['Your order is on its way.']);
      assert.deepEqual(await visitor.json('GET', '/'), []);
    });

    it('shows it once though another request changes the session meanwhile', async () => {
      const store = await openStore();
      const app = flashApp(store);
      app.post('/theme', (req, res) => {
        Object.assign(req.session, { theme: 'dark' });
        res.sendStatus(204);
      });
      const visitor = await visit(app);
      await visitor.request('POST', '/order');
      const both = hold(store, 'set', 2);
      const requests = [visitor.json('GET', '/'), visitor.request('POST', '/theme')];
      await both.arrived;
      both.release();
      assert.deepEqual((await Promise.all(requests))[0], ['Your order is on its way.']);
      assert.deepEqual(await visitor.json('GET', '/'), []);
      assert.equal(((await store.all()) as any[])[0].theme, 'dark');
    });
  });
});

/** The arguments of a socket's next such event. */
function once(socket: Socket, event: string): Promise<any[]> {
  return new Promise((resolve) => socket.once(event, (...args: any[]) => resolve(args.slice(0, 1))));
}

type Calls = Pick<PgStore, 'get' | 'set' | 'destroy' | 'touch'>;

/**
 * Holds back the next calls of one method until `count` of them have arrived and `release()` is
 * called.
 */
function hold(store: Calls, method: keyof Calls, count: number): { arrived: Promise<void>; release: () => void } {
  const original: (...args: any[]) => any = store[method];
  const held: any[][] = [];
  let arrive = () => {};
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  const target = store as any;
  target[method] = (...args: any[]) => {
    held.push(args);
    if (held.length === count) {
      target[method] = original;
      arrive();
    }
  };
  return { arrived, release: () => held.forEach((args) => void original.apply(store, args)) };
}

/** All requests have loaded the session before the first of them saves it. */
async function cartAfterParallelRequests(visitor: Visitor, store: Calls): Promise<Record<string, number>> {
  await visitor.json('POST', '/cart/tea');
  const saves = hold(store, 'set', ITEMS.length);
  const requests = ITEMS.map((item) => visitor.another(visitor.cookie).request('POST', `/cart/${item}`));
  await saves.arrived;
  saves.release();
  for (const response of await Promise.all(requests)) assert.equal(response.status, 200);
  return visitor.json('GET', '/cart');
}

/** A request has loaded the session, then it is destroyed, then the request saves. */
async function cartAfterLogoutDuringRequest(visitor: Visitor, store: Calls): Promise<Record<string, number>> {
  await visitor.json('POST', '/cart/tea');
  const save = hold(store, 'set', 1);
  const request = visitor.another(visitor.cookie).request('POST', '/cart/milk');
  await save.arrived;
  await visitor.another(visitor.cookie).request('POST', '/logout');
  save.release();
  assert.equal((await request).status, 200);
  return visitor.json('GET', '/cart');
}
