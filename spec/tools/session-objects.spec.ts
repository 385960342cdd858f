/**
 * The promises hold with frameworks that make session objects of their own and await `get`, over HTTP, by
 * `store.scope`.
 */

import assert from 'node:assert/strict';
import path from 'node:path';
import { closeStores, freshTable, openStore, sqlClient } from '../support/postgres.js';
import { listen } from '../support/race-app.js';
import { itKeepsThePromises } from '../support/race-server.js';
import { skipWithoutTools } from '../support/tools.js';
import { Visitor } from '../support/visitor.js';

describe('koa-session', () => {
  before(function () {
    skipWithoutTools.call(this);
  });

  afterEach(closeStores);

  it('keeps a session whose cookie ends with the browser for `ttl`, in place of its `maxAge`', async () => {
    const { default: Koa } = await import('koa');
    const { default: koaSession } = await import('koa-session');
    const { storeForKoa } = await import('./frameworks/koa.js');
    const table = freshTable();
    const store = await openStore({ table, ttl: 60 });
    const app = new Koa();
    app.use((context, next) => store.scope(context.req, context.res, next));
    app.use(koaSession({ store: storeForKoa(store), signed: false, maxAge: 3_600_000 }, app));
    app.use((context) => {
      const { session } = context as any;
      if (context.path === '/forget') session.maxAge = 'session';
      session.visits = (session.visits ?? 0) + 1;
      context.body = { visits: session.visits };
    });
    const { url, close } = await listen(app.callback());
    try {
      const visitor = new Visitor(url);
      const sql = await sqlClient();
      const isLong = async () =>
        (await sql`select expires_at > now() + interval '59 min' as l from ${sql(table)}`)[0]?.l;
      assert.deepEqual(await visitor.json('POST', '/'), { visits: 1 });
      assert.equal(await isLong(), true);
      for (const [path, visits] of [
        ['/forget', 2],
        ['/', 3],
      ] as const) {
        assert.deepEqual(await visitor.json('POST', path), { visits });
        assert.equal(await isLong(), false);
      }
    } finally {
      await close();
    }
  });
});

for (const name of ['koa', 'openid-connect']) {
  describe(`${name}, by \`store.scope\``, () => {
    before(function () {
      skipWithoutTools.call(this);
    });

    itKeepsThePromises(path.join(import.meta.dirname, `races/${name}.ts`));
  });
}
