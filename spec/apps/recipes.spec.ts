/** Recipes of the documentation for getting an app to run. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pathToFileURL } from 'node:url';
import { sign } from 'cookie-signature';
import express, { type ErrorRequestHandler } from 'express';
import session from 'express-session';
import request from 'supertest';
import { documented } from '../support/docs.js';
import { closeStores, freshTable, openStore, SHARDS, sqlClient } from '../support/postgres.js';
import { withRecipe } from '../support/recipes.js';
import { load, plain } from '../support/sessions.js';

const COOKBOOK = 'docs/cookbook.md';
const DATABASES = 'docs/databases.md';

describe('recipes', () => {
  const servers: Server[] = [];

  afterEach(async () => {
    for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
    await closeStores();
  });

  it('behind a proxy that ends TLS, the secure cookie is set', async () => {
    const store = await openStore();
    const app = express();
    app.set('trust proxy', 1);
    const secret = 'keyboard cat';
    app.use(session({ store, secret, resave: false, saveUninitialized: false, cookie: { secure: true } }));
    app.post('/', (req: any, res: any) => {
      req.session.user = 'ann';
      res.end();
    });
    const plain = await request(app).post('/');
    assert.equal(plain.headers['set-cookie'], undefined);
    const proxied = await request(app).post('/').set('x-forwarded-proto', 'https');
    assert.match(String(proxied.headers['set-cookie']), /Secure/);
    // Express-session stores the session either way; nobody comes back to the first one.
    assert.equal(await store.length(), 2);
  });

  it('at start-up, starts anyway, and works as soon as the table is there', async () => {
    const table = freshTable();
    const store = await openStore({ table, createTable: false, ...(SHARDS && { shards: SHARDS }) });
    const { error } = console;
    const said = new Promise<unknown[]>((resolve) => (console.error = (...args) => resolve(args)));
    try {
      const app = express();
      store.ready().catch((error) => console.error('No sessions yet:', error.message));
      app.get('/healthz', (_request, response) => {
        store.ready().then(
          () => response.sendStatus(204),
          () => response.sendStatus(503),
        );
      });
      const server: Server = app.listen(0);
      servers.push(server);
      const [what, why] = await said;
      assert.equal(what, 'No sessions yet:');
      assert.match(String(why), new RegExp(table));
      if (!server.listening) await once(server, 'listening');
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      await request(url).get('/healthz').expect(503);
      const owner = await openStore({ table });
      await owner.ready();
      await request(url).get('/healthz').expect(204);
      const sql = await sqlClient();
      await sql.unsafe(`drop table ${table}`);
      await request(url).get('/healthz').expect(503);
    } finally {
      console.error = error;
    }
  });

  it('serves visitors as anonymous while the database is down', async () => {
    // The package as the recipe imports it: specs may be loaded as CommonJS, and then have one of their own.
    const { anonymousWhenDown, PgStore, PgStoreError } = await withRecipe(
      COOKBOOK,
      'export const anonymousWhenDown',
      (file) => import(pathToFileURL(file).href),
      "export { PgStore, PgStoreError } from 'express-pg-store';",
    );
    const store = new PgStore({ uri: 'postgres://127.0.0.1:1/nowhere', retry: { attempts: 1 } });
    const app = express();
    app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false }));
    app.use(anonymousWhenDown);
    app.get('/', (req, res) => {
      res.json(req.session ? 'with a session' : 'anonymous');
    });
    app.get('/broken', () => {
      throw new PgStoreError('of a later call', 'TIMEOUT');
    });
    app.use(((_error, _req, res, _next) => res.sendStatus(500)) as ErrorRequestHandler);
    const cookie = `connect.sid=s:${sign('a', 'keyboard cat')}`;
    assert.equal((await request(app).get('/').set('cookie', cookie).expect(200)).body, 'anonymous');
    assert.equal((await request(app).get('/').expect(200)).body, 'with a session');
    await request(app).get('/broken').expect(500);
    await store.close();
  });

  it('a row written by hand is a session', async () => {
    // With shards, a row also needs the number of its shard.
    if (SHARDS) return;
    const table = freshTable();
    const store = await openStore({ table, user: (data) => (data as { userId?: string }).userId });
    await store.ready();
    const sql = await sqlClient();
    await sql.unsafe(documented(DATABASES, 'sql', 'insert into').replace('public.sessions', table));
    const loaded = await store.get('a-session-id');
    assert.equal((loaded as { userId?: string } | null)?.userId, 'ann');
    assert.equal(loaded?.cookie.originalMaxAge, 86_400_000);
    assert(Math.abs(new Date(loaded?.cookie.expires ?? 0).getTime() - Date.now() - 86_400_000) < 3_600_000);
    assert.equal((await store.sessionsOf('ann')).length, 1);
    await sql.unsafe(`update ${table} set expires_at = now() - interval '1 second', delete_after = now()`);
    assert.equal(await store.get('a-session-id'), null);
    assert.equal(await store.autodelete(), 1);
  });

  it('a table with a foreign key to the sessions is as the documentation has it', async () => {
    // Its key is that of a table without shards.
    if (SHARDS) return;
    const table = freshTable();
    const store = await openStore({ table, secret: 'old' });
    await store.set('a', plain({ n: 1 }));
    const sql = await sqlClient();
    const statement = documented(DATABASES, 'sql', 'references').replace('public.sessions', table);
    await sql.unsafe(statement.replace('carts', `${table}_carts`));
    await sql.unsafe(`insert into ${table}_carts (sid) select sid from ${table}`);
    const rotated = await openStore({ table, secret: ['new', 'old'] });
    const session = await load(rotated, 'a');
    assert(session);
    await rotated.set('a', Object.assign(session, { n: 2 }));
    const moved = await sql.unsafe(`select from ${table}_carts c join ${table} s using (sid)`);
    assert.equal(moved.length, 1);
    await rotated.destroy('a');
    assert.equal((await sql.unsafe(`select from ${table}_carts`)).length, 0);
    await sql.unsafe(`drop table ${table}_carts`);
  });
});
