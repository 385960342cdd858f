/** The same specs as on PostgreSQL, and a database server whose clock is another one. */

import assert from 'node:assert/strict';
import { describeClocks } from '../support/clock-specs.js';
import { MemoryTable } from '../support/memory-table.js';
import { memoryWorld, openMemoryStore } from '../support/memory-world.js';
import { loaded, plain } from '../support/sessions.js';

const HOUR = 3_600_000;

describeClocks(memoryWorld());

describe('after a failover to a server with another clock', () => {
  afterEach(memoryWorld().closeStores);

  for (const offset of [-HOUR, HOUR]) {
    it(`${offset < 0 ? 'an hour slow' : 'an hour fast'}: each call gives the session its lifetime by that clock`, async () => {
      const table = new MemoryTable();
      const { store } = openMemoryStore({ touchAfter: 0 }, table);
      const left = () => Number(table.rows.get('sid')?.expiresAt) - table.now();
      await store.set('sid', plain({ n: 1 }, 4 * HOUR));
      const request = await loaded(store, 'sid');
      table.clockOffset = offset;
      // Until it is written again, the row expires when it said.
      assert(Math.abs(left() - (4 * HOUR - offset)) < 60_000);
      const { cookie } = await loaded(store, 'sid');
      const shown = Number(cookie.expires) - Date.now();
      assert(Math.abs(shown - left()) < 60_000, 'the cookie says what is left');
      request.touch();
      await store.touch('sid', request);
      assert(Math.abs(left() - 4 * HOUR) < 60_000);
      request.n = 2;
      await store.set('sid', request);
      assert(Math.abs(left() - 4 * HOUR) < 60_000);
      await store.set('sid', plain({ n: 3 }, HOUR / 2));
      assert(Math.abs(left() - HOUR / 2) < 60_000);
      assert.equal(Number(((await store.get('sid')) as any).n), 3);
      const read = Date.parse(String((await store.get('sid'))?.cookie.expires)) - Date.now();
      assert(Math.abs(read - HOUR / 2) < 60_000);
    });
  }
});
