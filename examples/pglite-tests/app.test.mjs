/**
 * Tests an app without a database server: PGlite is PostgreSQL compiled to WebAssembly, and runs in the tests' process.
 *
 *     npm install --save-dev @electric-sql/pglite @electric-sql/pglite-socket
 *     node --test
 */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, beforeEach, test } from 'node:test';
import { PGlite } from '@electric-sql/pglite';
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';
import express from 'express';
import { PgStore } from 'express-pg-store';
import session from 'express-session';

/** The app under test takes its store as a parameter. */
function createApp(store) {
  const app = express();
  app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false }));
  app.post('/cart/:item', (req, res) => {
    req.session[req.params.item] = true;
    res.json(Object.keys(req.session).filter((key) => key !== 'cookie'));
  });
  app.post('/logout', (req, res, next) => {
    req.session.destroy((error) => (error ? next(error) : res.sendStatus(204)));
  });
  return app;
}

let database, socket, store, server, url;

before(async () => {
  database = await PGlite.create();
  // A store opens at most ten connections by default, but PGlite accepts only one by default.
  socket = new PGLiteSocketServer({ db: database, port: 0, maxConnections: 10 });
  await socket.start();
  store = new PgStore({ uri: `postgres://postgres@${socket.getServerConn()}/postgres` });
  server = createApp(store).listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${server.address().port}`;
});

beforeEach(() => store.clear());

after(async () => {
  server?.close();
  await store?.close();
  await socket?.stop();
  await database?.close();
});

const post = (path, cookie = '') => fetch(url + path, { method: 'POST', headers: { cookie, connection: 'close' } });
const cookieOf = (response) => response.headers.get('set-cookie').split(';')[0];

test('two requests at once keep what both have put into the cart', async () => {
  const cookie = cookieOf(await post('/cart/tea'));
  await Promise.all([post('/cart/milk', cookie), post('/cart/bread', cookie)]);
  const items = await (await post('/cart/jam', cookie)).json();
  assert.deepEqual(items.sort(), ['bread', 'jam', 'milk', 'tea']);
});

test('after the logout there is no session', async () => {
  const cookie = cookieOf(await post('/cart/tea'));
  assert.equal(await store.length(), 1);
  assert.equal((await post('/logout', cookie)).status, 204);
  assert.equal(await store.length(), 0);
});
