/** What the row says after a save was sent, and what is done: each line of the table in `ConcurrentSessions`. */

import assert from 'node:assert/strict';
import { setImmediate as tick } from 'node:timers/promises';
import type { PgStoreOptions } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { MemoryTable } from '../support/memory-table.js';
import { memoryWorld, openMemoryStore } from '../support/memory-world.js';
import { type AnySession, data, loaded, maxAgeOf, plain } from '../support/sessions.js';

const HANDLE = handleOf('sid');
const user = (session: any) => session.user;

/** A session with one key, a request that has loaded it and changed something, and another process. */
async function open(options: PgStoreOptions = {}) {
  const table = new MemoryTable();
  const all = { user, touchAfter: 0, retry: { attempts: 1 }, ...options };
  const { store, statements } = openMemoryStore(all, table);
  const { store: other } = openMemoryStore(all, table);
  const events: unknown[] = [];
  store.on('dropped', (...args) => events.push(['dropped', ...args]));
  store.on('conflict', (...args) => events.push(['conflict', ...args]));
  await store.set('sid', plain({ user: 'ann' }));
  const request = await loaded(store, 'sid');
  request.ours = 1;
  /** Saves the request's session, and gives the statements that were sent. */
  const save = async () => {
    statements.sent = [];
    await store.set('sid', request);
    await tick();
    return statements.sent;
  };
  const change = async (work: (session: AnySession) => void) => {
    const session = await loaded(other, 'sid');
    work(session);
    await other.set('sid', session);
  };
  return { table, store, statements, other, events, request, save, change };
}

describe('what the row says after a save was sent, and what is done', () => {
  afterEach(memoryWorld().closeStores);

  it('it was written: done, with one statement', async () => {
    const { save, store, events } = await open();
    assert.deepEqual(await save(), ['update']);
    assert.deepEqual(await data(store, 'sid'), { user: 'ann', ours: 1 });
    assert.deepEqual(events, []);
  });

  it('it is ours: an earlier attempt at the same statement was done, and its answer lost', async () => {
    const { save, store, statements, events } = await open({ retry: { attempts: 2, delay: 1 } });
    statements.lose({ kind: 'update', fault: 'answer lost' });
    assert.deepEqual(await save(), ['update', 'update', 'select']);
    assert.deepEqual(await data(store, 'sid'), { user: 'ann', ours: 1 });
    assert.deepEqual(events, []);
  });

  it('it is gone: dropped, event `dropped`, destroyed', async () => {
    const { save, other, events, table } = await open();
    await other.destroy('sid');
    assert.deepEqual(await save(), ['update', 'select']);
    assert.equal(table.rows.size, 0);
    assert.deepEqual(events, [['dropped', HANDLE, 'set', 'destroyed']]);
  });

  it('it has expired: dropped, as if it were gone', async () => {
    const { save, events, table } = await open();
    for (const row of table.rows.values()) row.expiresAt = table.now();
    await save();
    assert.deepEqual(events, [['dropped', HANDLE, 'set', 'destroyed']]);
    assert.equal(table.rows.get('sid')?.data, '{"user":"ann"}');
  });

  it('it is gone here, but still in the table of the store that loaded it: saved here as a new session', async () => {
    const { request, events } = await open();
    const { store: elsewhere } = openMemoryStore({ user });
    await elsewhere.set('sid', request);
    assert.deepEqual(await data(elsewhere, 'sid'), { user: 'ann', ours: 1 });
    assert.deepEqual(events, []);
  });

  it('it is gone here, and in the table of the store that loaded it: dropped', async () => {
    const { request, other } = await open();
    const { store: elsewhere } = openMemoryStore({ user });
    await other.destroy('sid');
    await elsewhere.set('sid', request);
    assert.equal(await elsewhere.get('sid'), null);
  });

  it('it is locked: sent again until it is free, without an event', async () => {
    const { save, store, statements, events, table } = await open();
    let saving: Promise<unknown> | undefined;
    await table.whileLocked('sid', 'update', async () => {
      saving = save();
      while (statements.sent.length < 6) await tick();
    });
    await saving;
    assert.deepEqual(statements.sent.slice(0, 6), ['update', 'select', 'update', 'select', 'update', 'select']);
    assert.deepEqual(await data(store, 'sid'), { user: 'ann', ours: 1 });
    assert.deepEqual(events, []);
  });

  it('it stays locked: fails with `TIMEOUT`', async () => {
    const { save, events, table } = await open({ timeout: 200 });
    await table.whileLocked('sid', 'update', () => assert.rejects(save(), { code: 'TIMEOUT' }));
    assert.deepEqual(events, []);
  });

  it('it is locked by a foreign key: written at once', async () => {
    const { save, table } = await open();
    assert.deepEqual(await table.whileLocked('sid', 'key share', save), ['update']);
  });

  it('another request has changed it: merged, with event `conflict`', async () => {
    const { save, change, store, events } = await open();
    await change((session) => {
      session.theirs = 1;
    });
    assert.deepEqual(await save(), ['update', 'select', 'update']);
    assert.deepEqual(await data(store, 'sid'), { user: 'ann', theirs: 1, ours: 1 });
    assert.deepEqual(events, [['conflict', HANDLE, 2]]);
  });

  it('another request has written the same: nothing is written but the expiry', async () => {
    const { save, change, store, events } = await open();
    await change((session) => {
      session.ours = 1;
    });
    // The last one is a touch.
    assert.deepEqual(await save(), ['update', 'select', 'update']);
    assert.deepEqual(await data(store, 'sid'), { user: 'ann', ours: 1 });
    assert.deepEqual(events, []);
  });

  it('an earlier save of this request has changed it, whose answer was lost: counted once', async () => {
    const { save, request, store, statements, events } = await open();
    statements.lose({ kind: 'update', fault: 'answer lost' });
    await assert.rejects(save(), { code: 'ECONNRESET' });
    delete request.ours;
    request.more = 1;
    await save();
    assert.deepEqual(await data(store, 'sid'), { user: 'ann', more: 1 });
    assert.deepEqual(events, []);
  });

  it('another request has signed out: dropped, event `dropped`, changed hands; so are all later saves', async () => {
    const { save, change, request, store, events } = await open();
    await change((session) => {
      delete session.user;
    });
    await save();
    request.ours = 2;
    await save();
    assert.deepEqual(await data(store, 'sid'), {});
    assert.deepEqual(events, [
      ['dropped', HANDLE, 'set', 'changed hands'],
      ['dropped', HANDLE, 'set', 'changed hands'],
    ]);
  });

  it('another request has signed somebody else in: dropped, with its cookie', async () => {
    const { save, change, request, store } = await open();
    await change((session) => {
      session.user = 'bob';
      session.cookie.maxAge = 90_000;
    });
    request.cookie.maxAge = 3_600_000;
    await save();
    const { cookie, ...others } = await loaded(store, 'sid');
    assert.deepEqual([others.user, others.ours, maxAgeOf(cookie)], ['bob', undefined, 90_000]);
  });

  it('this request signs somebody else in, and another has changed the session: ours alone, with its cookie', async () => {
    const { save, change, request, store, events } = await open();
    await change((session) => {
      session.theirs = 1;
      session.cookie.maxAge = 90_000;
    });
    request.user = 'bob';
    await save();
    const { cookie, ...others } = await loaded(store, 'sid');
    assert.deepEqual([others.user, others.ours, others.theirs, maxAgeOf(cookie)], ['bob', 1, undefined, 60_000]);
    assert.deepEqual(events, [['conflict', HANDLE, 2]]);
  });

  it('a visitor without a user signs in while another request fills the cart: both', async () => {
    const { store, other } = await open();
    await store.set('visitor', plain());
    const [signingIn, shopping] = [await loaded(store, 'visitor'), await loaded(other, 'visitor')];
    signingIn.user = 'ann';
    shopping.basket = ['tea'];
    await store.set('visitor', signingIn);
    await other.set('visitor', shopping);
    assert.deepEqual(await data(store, 'visitor'), { user: 'ann', basket: ['tea'] });
  });

  it('option `user` throws: the save fails with that error, and the row stays', async () => {
    const { store, other } = await open({
      user: (session: any) => {
        if (session.isBroken) throw new Error('of the app');
        return session.user;
      },
    });
    const [one, two] = [await loaded(store, 'sid'), await loaded(other, 'sid')];
    one.theirs = 1;
    two.isBroken = true;
    await store.set('sid', one);
    await assert.rejects(other.set('sid', two), { name: 'PgStoreError', message: 'PgStore.set: of the app' });
    assert.deepEqual(await data(store, 'sid'), { user: 'ann', theirs: 1 });
  });

  it('it cannot be read: fails with `UNREADABLE`, and stays as it is', async () => {
    const { save, table } = await open();
    const row = table.rows.get('sid');
    assert(row);
    row.data = 'no JSON';
    row.version = 1;
    await assert.rejects(save(), { code: 'UNREADABLE', message: /^PgStore\.set: the row cannot be read/ });
    assert.equal(row.data, 'no JSON');
  });
});
