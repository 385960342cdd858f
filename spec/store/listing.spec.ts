/** Listings show each unexpired session, whole, and only what may be shown of it. */

import assert from 'node:assert/strict';
import { handleOf } from '../../lib/session/session-id.js';
import { closeStores, freshTable, openStore, SHARDS, sqlClient } from '../support/postgres.js';
import { plain } from '../support/sessions.js';

async function idsOf(sessions: AsyncIterable<{ id?: string }>): Promise<(string | undefined)[]> {
  const ids: (string | undefined)[] = [];
  for await (const { id } of sessions) ids.push(id);
  return ids;
}

/** Listings go by row key; with shards, shard after shard. */
const inOrder = <T>(values: T[]): T[] => (SHARDS ? values.toSorted() : values);

describe('listing', () => {
  afterEach(closeStores);

  it('names a user’s session by its handle, never by its ID, and tells its times', async () => {
    const table = freshTable();
    const store = await openStore({ table, user: () => 'ann' });
    await store.set('abc', plain({ cart: [1] }));
    const sql = await sqlClient();
    await sql`update ${sql(table)} set created_at = '2020-01-01T00:00:00.001Z',
      updated_at = '2021-01-01T00:00:00.002Z', expires_at = '2100-01-01T00:00:00.003Z'`;
    const [{ session, ...shown }, ...others] = (await store.sessionsOf('ann')) as any;
    assert.deepEqual(others, []);
    assert.deepEqual(shown, {
      handle: handleOf('abc'),
      createdAt: new Date('2020-01-01T00:00:00.001Z'),
      lastSeenAt: new Date('2021-01-01T00:00:00.002Z'),
      expiresAt: new Date('2100-01-01T00:00:00.003Z'),
    });
    assert.deepEqual(Object.keys(session), ['cart', 'cookie']);
  });

  it('is an array of sessions with their IDs', async () => {
    const store = await openStore();
    await store.set('a', plain({ n: 1 }));
    await store.set('b', plain({ n: 2 }));
    const all: any[] = await store.all();
    assert.deepEqual(inOrder(all.map(({ id, n, cookie }) => [id, n, cookie.path])), [
      ['a', 1, '/'],
      ['b', 2, '/'],
    ]);
  });

  it('iterates over sessions of any number, once each', async () => {
    const store = await openStore();
    const ids = Array.from({ length: 1203 }, (_, n) => `s${String(n).padStart(4, '0')}`);
    await Promise.all(ids.map((id) => store.set(id, plain())));
    assert.deepEqual(inOrder(await idsOf(store.sessions())), ids);
    assert.deepEqual(inOrder((await store.all()).map(({ id }) => id)), ids);
    assert.deepEqual(inOrder(await store.ids()), ids);
    assert.equal(await store.length(), 1203);
  });

  it('reads on only as far as it is asked, and may be left at any time', async () => {
    const store = await openStore();
    await Promise.all(Array.from({ length: 600 }, (_, n) => store.set(`s${String(n).padStart(3, '0')}`, plain())));
    for await (const { id } of store.sessions()) if (id === 's002') break;
    const sessions = store.sessions();
    await sessions.next();
    // The second page is not read yet: what ends meanwhile is not in it.
    await store.destroy('s599');
    const rest = await idsOf(sessions);
    assert.equal(rest.length, 598);
    await sessions.return();
    assert.deepEqual(await sessions.next(), { done: true, value: undefined });
  });

  it('lets the store close during an iteration', async () => {
    const store = await openStore();
    await Promise.all(Array.from({ length: 501 }, (_, n) => store.set(`s${n}`, plain())));
    const sessions = store.sessions();
    await sessions.next();
    await store.close();
    await assert.rejects(idsOf(sessions), { code: 'CLOSED', message: 'PgStore.sessions: the store is closed' });
  });

  it('shows each prefix only its own, whatever characters it has', async () => {
    const table = freshTable();
    const prefixes = ['%', '_', "'", '\\', '"', 'a', 'A', '{', 'ä', '💥', ' ', '%_', "x'; drop table y; --"];
    const stores = await Promise.all(prefixes.map((prefix) => openStore({ table, prefix, maxConnections: 1 })));
    const own = prefixes.map((_, n) => `sid${n}`);
    for (const [n, store] of stores.entries()) {
      if (prefixes[n] === '%_') continue;
      await store.set(own[n] as string, plain());
    }
    for (const [n, store] of stores.entries()) {
      const ids = prefixes[n] === '%_' ? [] : [own[n]];
      assert.deepEqual(await store.ids(), ids, prefixes[n]);
      assert.deepEqual(
        (await store.all()).map(({ id }) => id),
        ids,
      );
      assert.deepEqual(inOrder(await idsOf(store.sessions())), ids);
      assert.equal(await store.length(), ids.length);
    }
    await stores[0]?.clear();
    const whole = await openStore({ table });
    assert.equal(await whole.length(), prefixes.length - 2);
    assert.equal(await stores[0]?.length(), 0);
  });

  it('shows no row that was signed by others, and with hashed IDs none', async () => {
    const table = freshTable();
    const [mine, other] = [await openStore({ table, secret: 'mine' }), await openStore({ table, secret: 'other' })];
    await mine.set('a', plain());
    await other.set('b', plain());
    assert.deepEqual(await mine.ids(), ['a']);
    assert.deepEqual(await idsOf(mine.sessions()), ['a']);
    const hashed = await openStore({ hashIds: true });
    await hashed.set('a', plain({ n: 1 }));
    await assert.rejects(hashed.ids(), { code: 'INVALID_SID' });
    const [session]: any[] = await hashed.all();
    assert.equal(session.n, 1);
    assert(!('id' in session));
  });
});
