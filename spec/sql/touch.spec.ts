/** A touch puts off a row's expiry, and waits for no lock on it. */

import assert from 'node:assert/strict';
import { FORMS, row, SqlTable } from '../support/sql-table.js';

for (const [form, keys] of FORMS) {
  describe(`touch, ${form}`, () => {
    const all = <T>(value: T): T[] => keys.map(() => value);
    const touched = (key: string, more: object = {}) => {
      const expires = Date.now() + 90_000;
      const unchanged = { key, cookie: '{"path":"/"}', cookieExpires: expires, version: 8, overwritesCookie: false };
      return { ...unchanged, expires, ...more };
    };

    it('writes the expiry and the cookie’s `expires`; data, cookie and version stay', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key)));
      assert.deepEqual(await table.touch(keys.map((key) => touched(key, { cookieExpires: 5 }))), all(true));
      for (const stored of await table.rows(keys)) {
        assert.deepEqual(
          [stored?.data, stored?.cookie, stored?.cookieExpires, stored?.version],
          ['{"n":1}', '{"path":"/"}', 5, 7],
        );
        assert(stored && stored.expiresInMs > 60_000);
      }
    });

    it('leaves a cookie and its expiry alone that another request has changed', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key, { cookie: '{"theirs":1}' })));
      assert.deepEqual(await table.touch(keys.map((key) => touched(key))), all(false));
      assert.deepEqual(await table.touch(keys.map((key) => touched(key, { cookie: null }))), all(false));
      for (const stored of await table.rows(keys)) {
        assert.equal(stored?.cookie, '{"theirs":1}');
        assert(stored.expiresInMs <= 60_000);
      }
    });

    it('touches a session without a cookie', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key, { cookie: null, cookieExpires: null })));
      const touch = { cookie: null, cookieExpires: null };
      assert.deepEqual(await table.touch(keys.map((key) => touched(key, touch))), all(true));
      for (const stored of await table.rows(keys))
        assert.deepEqual([stored?.cookie, stored?.cookieExpires], [null, null]);
    });

    it('gives the row its cookie and a new version where it overwrites cookies', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key)));
      const overwrite = { cookie: '{"path":"/b"}', overwritesCookie: true };
      assert.deepEqual(await table.touch(keys.map((key) => touched(key, overwrite))), all(true));
      for (const stored of await table.rows(keys)) {
        assert.deepEqual([stored?.cookie, stored?.version], ['{"path":"/b"}', 8]);
      }
    });

    it('never touches a row that has expired, or creates one', async () => {
      for (const maxLifetime of [undefined, 3600]) {
        const table = await SqlTable.create(maxLifetime);
        const { sql, name } = table;
        await table.set(keys.map((key) => row(key)));
        if (maxLifetime) await sql`update ${sql(name)} set created_at = created_at - interval '1 hour'`;
        else await sql`update ${sql(name)} set expires_at = now()`;
        for (const overwritesCookie of [false, true]) {
          assert.deepEqual(await table.touch(keys.map((key) => touched(key, { overwritesCookie }))), all(false));
          assert.deepEqual(
            await table.touch(keys.map((key) => touched(`not ${key}`, { overwritesCookie }))),
            all(false),
          );
        }
      }
    });

    it('never puts off an expiry beyond `maxLifetime`', async () => {
      const table = await SqlTable.create(30);
      const { sql, name } = table;
      await table.set(keys.map((key) => row(key)));
      assert.deepEqual(await table.touch(keys.map((key) => touched(key))), all(true));
      const late = await sql`select from ${sql(name)} where expires_at > created_at + interval '30 seconds'`;
      assert.equal(late.length, 0);
    });

    it('skips locked rows, and does not stall behind a foreign key’s lock', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key)));
      const touches = keys.map((key) => touched(key));
      for (const lock of ['update', 'no key update', 'share']) {
        const written = await table.whileLocked(keys[0], lock, () => table.touch(touches));
        assert.deepEqual(
          written,
          keys.map((_, n) => n > 0),
          lock,
        );
      }
      assert.deepEqual(await table.whileLocked(keys[0], 'key share', () => table.touch(touches)), all(true));
    });
  });
}
