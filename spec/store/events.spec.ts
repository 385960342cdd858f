/** Events report what no callback can, with their types, and none of them can do harm. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { PgStore } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { closeStores, freshTable, openStore, sqlClient } from '../support/postgres.js';
import { load, plain } from '../support/sessions.js';

describe('events', () => {
  afterEach(closeStores);

  it('have types', async () => {
    const store = await openStore();
    const listen = (target: PgStore) => {
      target.on('autodelete', (rows, error) => rows.toFixed() + (error?.message ?? ''));
      target.once('retry', (what, attempt, error) => what.trim() + attempt.toFixed() + error.message);
      target.on('unreadable', (handle, why) => handle.trim() + why.trim());
      target.on('conflict', (handle, tries) => handle.trim() + tries.toFixed());
      target.on('dropped', (handle, call) => handle.trim() + (call satisfies 'set' | 'touch'));
      // @ts-expect-error: an autodelete tells numbers
      target.on('autodelete', (rows) => rows.trim());
      return target.eventNames().length;
    };
    assert.equal(listen(store), 5);
  });

  it('tell of a row that cannot be read, once for each read, by its handle', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    await store.set('broken', plain());
    const sql = await sqlClient();
    await sql`update ${sql(table)} set data = '[1]'`;
    const told = once(store, 'unreadable');
    assert.equal(await store.get('broken'), null);
    assert.deepEqual(await told, [handleOf('broken'), 'the data is not an object']);
    const again = once(store, 'unreadable');
    assert.deepEqual(await store.all(), []);
    await again;
  });

  it('report a merge and a discarded save', async () => {
    const store = await openStore();
    await store.set('a', plain());
    const [one, two, three] = [await load(store, 'a'), await load(store, 'a'), await load(store, 'a')];
    assert(one && two && three);
    one.x = 1;
    two.y = 2;
    three.z = 3;
    await store.set('a', one);
    const merged = once(store, 'conflict');
    await store.set('a', two);
    assert.deepEqual(await merged, [handleOf('a'), 2]);
    await store.destroy('a');
    const dropped = once(store, 'dropped');
    await store.set('a', three);
    assert.deepEqual(await dropped, [handleOf('a'), 'set', 'destroyed']);
  });

  it('are never those at which express-session or Node would act', async () => {
    const store = await openStore({
      uri: 'postgres://nobody@127.0.0.1:1/none',
      retry: { attempts: 2, delay: 0 },
      timeout: 5000,
    });
    const events: (string | symbol)[] = [];
    const { emit } = store;
    store.emit = (event, ...args) => {
      events.push(event);
      return emit.call(store, event, ...args);
    };
    store.on('retry', () => {});
    await assert.rejects(store.get('a'), { code: 'ECONNREFUSED' });
    await store.close();
    assert.deepEqual(events, ['retry']);
  });

  it('end no process: what a listener throws is a warning', async () => {
    const store = await openStore();
    await store.set('a', plain({ n: 1 }));
    const session = await load(store, 'a');
    assert(session);
    const warned = once(process, 'warning');
    store.on('dropped', () => {
      throw new Error('of the listener');
    });
    await store.destroy('a');
    session.n = 2;
    await store.set('a', session);
    const [warning] = await warned;
    assert.equal(warning.message, 'of the listener');
    await store.set('b', plain());
    assert.deepEqual(await store.ids(), ['b']);
  });

  it('tell of a statement that is tried again', async () => {
    const store = await openStore({ uri: 'postgres://nobody@127.0.0.1:1/none', retry: { attempts: 3, delay: 0 } });
    const told: unknown[] = [];
    store.on('retry', (what, attempt, error) => told.push([what, attempt, (error as any).code]));
    await assert.rejects(store.destroy('a'), { code: 'ECONNREFUSED', message: /^PgStore\.destroy: / });
    assert.deepEqual(told, [
      ['destroy', 1, 'ECONNREFUSED'],
      ['destroy', 2, 'ECONNREFUSED'],
    ]);
  });
});
