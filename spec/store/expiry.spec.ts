/**
 * A session expires when its cookie says, whatever its save waited for and whatever the clocks say.
 */

import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import type { PgStore } from '../../lib/index.js';
import { eventually } from '../support/eventually.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { closeStores, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { generated, load, plain } from '../support/sessions.js';

describe('expiry', () => {
  const { now } = Date;

  afterEach(async () => {
    Date.now = now;
    await closeStores();
  });

  /** Resolves once a statement of this kind has been answered. */
  function nextStatement(table: string, kind: string): Promise<void> {
    return new Promise((resolve) => {
      const listener = (message: any) => {
        if (message.table !== `public.${table}` || message.kind !== kind) return;
        unsubscribe('express-pg-store:statement', listener);
        resolve();
      };
      subscribe('express-pg-store:statement', listener);
    });
  }

  const jsonOf = (value: unknown) => JSON.parse(JSON.stringify(value));

  /**
   * Saves sessions of many lifetimes at once; each must be read with the cookie that it was saved
   * with.
   */
  async function assertReadAsSet(store: PgStore, round = 0): Promise<void> {
    const sessions = Array.from({ length: 500 }, (_, n) => generated(store, `${round}-${n}`, { n }, 60_000 + 977 * n));
    const saved = sessions.map(jsonOf);
    await Promise.all(sessions.map((session) => store.set(session.id, session)));
    assert.deepEqual(await Promise.all(sessions.map(({ id }) => store.get(id))), saved);
  }

  for (const [how, options] of Object.entries({
    '': {},
    ', signed and encrypted': { secret: 's', encryptionKey: 'an encryption key for specs' },
    ', with `maxLifetime`': { maxLifetime: 86_400 },
  })) {
    it(`is read as it was set, to the millisecond${how}`, async () => {
      const store = await openStore(options);
      for (let round = 0; round < 4; round++) await assertReadAsSet(store, round);
    });
  }

  it('is read as it was set by a touch, by a save with changes, and in listings', async () => {
    const store = await openStore({ touchAfter: 0, user: () => 'ann' });
    await store.set('sid', plain({}, 30_000));
    for (const call of ['touch', 'set'] as const) {
      const request = await load(store, 'sid');
      assert(request);
      request.cookie.maxAge = 90_000;
      request[call] = true;
      await store[call]('sid', request);
      const { cookie } = jsonOf(request);
      assert.deepEqual((await store.get('sid'))?.cookie, cookie);
      assert.deepEqual((await store.all())[0]?.cookie, cookie);
      const [listed] = await store.sessionsOf('ann');
      assert.deepEqual(listed?.session.cookie, cookie);
      // The row's own expiry, by the database's clock.
      assert(Math.abs(Number(listed?.expiresAt) - Number(request.cookie.expires)) < 5000);
    }
  });

  it('is read as it was set after a save that waited for its connection', async () => {
    const port = Number(new URL(await postgresUri()).port);
    const proxy = await FaultProxy.start(() => port);
    try {
      const store = await openStore({ uri: proxy.uriTo(await postgresUri()) });
      proxy.silence();
      const saving = assertReadAsSet(store);
      const start = Date.now();
      await eventually(() => proxy.held > 0 && Date.now() > start);
      proxy.resume();
      await saving;
    } finally {
      await closeStores();
      await proxy.close();
    }
  });

  it('is read as it was set after a save that waited for the server to come back', async () => {
    const port = Number(new URL(await postgresUri()).port);
    const proxy = await FaultProxy.start(() => port);
    try {
      const store = await openStore({ uri: proxy.uriTo(await postgresUri()), retry: { attempts: 10, delay: 50 } });
      await store.ready();
      proxy.refuse(true);
      const retried = once(store, 'retry');
      const saving = assertReadAsSet(store);
      await retried;
      proxy.refuse(false);
      await saving;
    } finally {
      await closeStores();
      await proxy.close();
    }
  });

  it('is read as it was set after a save that waited for another call on its session', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    await store.set('sid', plain());
    const sql = await sqlClient();
    const sessions = [plain({ n: 1 }, 90_000), plain({ n: 2 }, 70_000)];
    await sql.begin(async (locking) => {
      await locking`select from ${sql(table)} where sid = 'sid' for update`;
      for (const session of sessions) store.set('sid', session, () => {});
      // It comes back without the row, which is locked.
      await nextStatement(table, 'set');
    });
    assert.deepEqual(await store.get('sid'), sessions[1]);
  });

  for (const hours of [-1, 1]) {
    it(`goes by the milliseconds left where the app's clock is ${hours} hours off`, async () => {
      const table = freshTable();
      const store = await openStore({ table });
      Date.now = () => now() + hours * 3_600_000;
      const session = plain({ n: 1 }, 60_000);
      await store.set('sid', session);
      const found = await store.get('sid');
      const sql = await sqlClient();
      const [row] = await sql`select extract(epoch from expires_at - updated_at)::float8 as seconds from ${sql(table)}`;
      assert(row?.seconds > 50 && row.seconds <= 60, `${row?.seconds}`);
      const drift = Date.parse(String(found?.cookie.expires)) - Date.parse(String(session.cookie.expires));
      assert(Math.abs(drift) < 5000, `${drift}`);
      Date.now = now;
      // Read by a process whose clock is right: as long as is left.
      const left = Date.parse(String((await store.get('sid'))?.cookie.expires)) - now();
      assert(left > 50_000 && left <= 60_000, `${left}`);
    });
  }

  it('tells clocks apart by a tenth of the lifetime, so that a short session lives its time', async () => {
    const store = await openStore();
    await store.ready();
    Date.now = () => now() - 4900;
    await store.set('sid', plain({ n: 1 }, 4800));
    assert.equal(((await store.get('sid')) as any)?.n, 1);
  });
});
