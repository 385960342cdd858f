/** The cookbook's recipes for getting an app to run. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import request from 'supertest';
import { closeStores, freshTable, openStore, SHARDS, sqlClient } from '../support/postgres.js';
import { recipe } from '../support/recipes.js';

const PAGE = 'docs/cookbook.md';

describe('cookbook', () => {
  const servers: Server[] = [];

  afterEach(async () => {
    for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
    await closeStores();
  });

  it('behind a proxy that ends TLS, the secure cookie is set', async () => {
    const { behindProxy } = await recipe(PAGE, 'export function behindProxy');
    const store = await openStore();
    const app = behindProxy(store);
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

  it('at start-up, fails fast where the table is missing', async () => {
    const { failFast } = await recipe(PAGE, 'export async function failFast');
    await assert.rejects(failFast(express(), await openStore({ createTable: false }), 0), { code: '42P01' });
    const server: Server = await failFast(express(), await openStore(), 0);
    servers.push(server);
    if (!server.listening) await once(server, 'listening');
  });

  it('at start-up, starts anyway, and works as soon as the table is there', async () => {
    const { startAnyway } = await recipe(PAGE, 'export function startAnyway');
    const table = freshTable();
    const store = await openStore({ table, createTable: false, ...(SHARDS && { shards: SHARDS }) });
    const { error } = console;
    const said = new Promise<unknown[]>((resolve) => (console.error = (...args) => resolve(args)));
    try {
      const server: Server = startAnyway(express(), store, 0);
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

  it('tests with MemoryStore', async () => {
    const { appUnderTest, createApp } = await recipe(PAGE, 'export const appUnderTest');
    for (const app of [appUnderTest(), createApp(await openStore())]) {
      const agent = request.agent(app);
      assert.equal((await agent.post('/visits')).body, 1);
      assert.equal((await agent.post('/visits')).body, 2);
      assert.equal((await request(app).post('/visits')).body, 1);
    }
  });
});
