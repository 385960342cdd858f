/** Expired rows are deleted by the timer, without blocking anybody. */

import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import type { PgStore } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { runNode } from '../support/child.js';
import { eventually } from '../support/eventually.js';
import {
  closeStores,
  directUri,
  freshTable,
  openStore,
  postgresUri,
  shardColumn,
  shardValue,
  sqlClient,
} from '../support/postgres.js';
import { plain } from '../support/sessions.js';

describe('autodelete', () => {
  afterEach(closeStores);

  it('deletes expired rows of every prefix and tells how many', async () => {
    const table = freshTable();
    const [mine, other] = [await openStore({ table, prefix: 'mine:' }), await openStore({ table, prefix: 'other:' })];
    await mine.set('unexpired', plain());
    await mine.set('expired', plain({}, 0));
    await other.set('expired', plain({}, 0));
    const cleaner = await openStore({ table, autodelete: 0.05 });
    const [rows] = await once(cleaner, 'autodelete');
    assert.equal(rows, 2);
    const sql = await sqlClient();
    assert.deepEqual([...(await sql`select sid from ${sql(table)}`)], [{ sid: 'mine:unexpired' }]);
    const [none] = await once(cleaner, 'autodelete');
    assert.equal(none, 0);
  });

  it('tells why it could not', async () => {
    const store = await openStore({ createTable: false, autodelete: 0.05 });
    const [rows, error] = await once(store, 'autodelete');
    assert.equal(rows, 0);
    assert.match(error.message, /^PgStore\.autodelete: /);
    assert.equal(error.code, '42P01');
  });

  it('tells of each expired session that it removed, once in all processes, by its handle and user', async () => {
    const table = freshTable();
    const user = (session: any) => session.user;
    const stores = await Promise.all(Array.from({ length: 3 }, () => openStore({ table, user })));
    const [store] = stores as [PgStore, ...PgStore[]];
    const sids = Array.from({ length: 700 }, (_, n) => `sid${n}`);
    await Promise.all(sids.map((sid, n) => store.set(sid, plain(n % 2 ? { user: `user ${n}` } : {}, 0))));
    await store.set('unexpired', plain({ user: 'ann' }));
    const sql = await sqlClient();
    // A tombstone is not a session.
    await sql`insert into ${sql(table)} (${sql.unsafe(shardColumn)}sid, data, expires_at, delete_after)
      values (${sql.unsafe(shardValue('tombstone'))}'tombstone', 'null', to_timestamp(0), now())`;
    const told: unknown[] = [];
    for (const one of stores) one.on('expired', (handle, of) => told.push([handle, of]));
    const counts = await Promise.all([...stores, ...stores].map((one) => one.autodelete()));
    await eventually(() => told.length >= 700);
    await new Promise(setImmediate);
    assert.equal(
      counts.reduce((sum, count) => sum + count, 0),
      701,
    );
    const expected = sids.map((sid, n) => [handleOf(sid), n % 2 ? `user ${n}` : null]);
    assert.deepEqual(told.sort(), expected.sort());
    assert.deepEqual(await store.ids(), ['unexpired']);
  });

  it('tells of sessions in their channel, too, and of none while nobody listens', async () => {
    const table = freshTable();
    const store = await openStore({ table, user: () => 'ann' });
    const messages: unknown[] = [];
    const listen = (message: unknown) => messages.push(message);
    await store.set('a', plain({}, 0));
    await store.autodelete();
    subscribe('express-pg-store:expired', listen);
    await store.set('b', plain({}, 0));
    await store.autodelete();
    unsubscribe('express-pg-store:expired', listen);
    assert.deepEqual(messages, [{ table: `public.${table}`, handle: handleOf('b'), user: 'ann' }]);
  });

  it('works by hand, in portions, and leaves locked rows to the next time', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    await Promise.all(Array.from({ length: 1203 }, (_, n) => store.set(`s${n}`, plain({}, n < 3 ? 60_000 : 0))));
    const sql = await sqlClient();
    await sql.begin(async (holding) => {
      await holding`select from ${sql(table)} where sid = 's1000' for update`;
      assert.equal(await store.autodelete(), 1199);
    });
    assert.equal(await store.autodelete(), 1);
    assert.equal(await store.autodelete(), 0);
    assert.equal(await store.length(), 3);
  });

  // Both zones' names for themselves are ones that PostgreSQL writes and reads as another zone's,
  // or not at all.
  for (const [TimeZone, DateStyle] of [
    ['Asia/Kolkata', 'SQL'],
    ['Pacific/Guam', 'Postgres'],
  ]) {
    it(`deletes them all whatever a time looks like: ${TimeZone}, DateStyle ${DateStyle}`, async () => {
      const connection = { TimeZone, DateStyle, extra_float_digits: -15 };
      const table = freshTable();
      await (await openStore({ table })).ready();
      // A pooler refuses settings that it does not know.
      const store = await openStore({ table, uri: await directUri(), postgres: { connection } });
      const sql = await sqlClient();
      await sql`insert into ${sql(table)} (${sql.unsafe(shardColumn)}sid, data, expires_at, delete_after)
        select ${sql.unsafe(shardValue('a'))}n::text, '{}', t, t
        from generate_series(1, 1203) n, lateral (select now() - n * interval '1 millisecond' as t) times`;
      assert.equal(await store.autodelete(), 1203);
    });
  }

  it('stops with `close`', async () => {
    const store = await openStore({ autodelete: 0.02 });
    await once(store, 'autodelete');
    await store.close();
    let ran = false;
    store.on('autodelete', () => {
      ran = true;
    });
    const other = await openStore({ autodelete: 0.02 });
    await once(other, 'autodelete');
    await once(other, 'autodelete');
    assert.equal(ran, false);
  });

  it('lets a process end', async () => {
    const { code, stderr } = await runNode(
      `import { PgStore } from './lib/index.js';
       const sql = new PgStore({ uri: process.env.URI, autodelete: 1 });
       console.log('made');`,
      { env: { URI: await postgresUri() } },
    );
    assert.equal(code, 0, stderr);
  });
});
