/** An update changes a row that still has the version it is based on, and waits for no lock on it. */

import assert from 'node:assert/strict';
import { changedRow, FORMS, row, SqlTable } from '../support/sql-table.js';

for (const [form, keys] of FORMS) {
  describe(`update, ${form}`, () => {
    const all = <T>(value: T): T[] => keys.map(() => value);

    it('changes rows that have the version', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key, { user: 'ann' })));
      const changes = keys.map((key) =>
        changedRow(key, { user: 'bob', cookieExpires: 5, expires: Date.now() + 3_600_000 }),
      );
      assert.deepEqual(await table.update(changes), all(true));
      for (const stored of await table.rows(keys)) {
        assert.deepEqual(
          [stored?.data, stored?.cookie, stored?.cookieExpires, stored?.version],
          ['{"n":2}', '{}', 5, 8],
        );
        assert(stored && stored.expiresInMs > 3_000_000);
      }
      const { sql, name } = table;
      const users = await sql`select distinct user_id from ${sql(name)}`;
      assert.deepEqual([...users], [{ user_id: 'bob' }]);
    });

    it('does one of two changes of a row, and says which', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key)));
      const changes = keys.flatMap((key) => [8, 9].map((version) => changedRow(key, { version })));
      const done = await table.update(changes);
      const versions = changes.filter((_, n) => done[n]).map(({ version }) => version);
      assert.deepEqual(
        (await table.rows(keys)).map((stored) => stored?.version),
        versions,
      );
    });

    it('leaves expiry, cookie’s `expires` and `delete_after` as they are where it does not move them', async () => {
      const table = await SqlTable.create();
      const { sql, name } = table;
      await table.set(keys.map((key) => row(key)));
      const times = async () => [
        ...(await sql`select expires_at::text, delete_after::text, cookie_expires from ${sql(name)} order by sid`),
      ];
      const before = await times();
      const changes = keys.map((key) =>
        changedRow(key, { movesExpiry: false, cookieExpires: 5, expires: Date.now() + 9e6 }),
      );
      assert.deepEqual(await table.update(changes), all(true));
      assert.deepEqual(await times(), before);
      assert.deepEqual(
        (await table.rows(keys)).map((stored) => stored?.version),
        all(8),
      );
    });

    it('leaves rows alone that have another version, have expired, or are not there', async () => {
      for (const maxLifetime of [undefined, 3600]) {
        const table = await SqlTable.create(maxLifetime);
        const { sql, name } = table;
        await table.set([row(keys[0])]);
        assert.deepEqual(await table.update(keys.map((key) => changedRow(key, { oldVersion: 6 }))), all(false));
        if (maxLifetime) await sql`update ${sql(name)} set created_at = created_at - interval '1 hour'`;
        else await sql`update ${sql(name)} set expires_at = now()`;
        assert.deepEqual(await table.update(keys.map((key) => changedRow(key))), all(false));
        assert.deepEqual(await table.move(keys.map((key) => changedRow(key, { key: `new ${key}` }))), all(false));
        const [stored] = await table.rows([keys[0]]);
        assert.equal(stored?.data, '{"n":1}');
      }
    });

    it('skips locked rows, and does not stall behind a foreign key’s lock', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key)));
      const changes = keys.map((key) => changedRow(key, { version: 7 }));
      for (const lock of ['update', 'no key update', 'share']) {
        const written = await table.whileLocked(keys[0], lock, () => table.update(changes));
        assert.deepEqual(
          written,
          keys.map((_, n) => n > 0),
          lock,
        );
      }
      assert.deepEqual(await table.whileLocked(keys[0], 'key share', () => table.update(changes)), all(true));
    });

    it('moves rows to new keys, and skips any that is locked, by a foreign key too', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key)));
      const moves = keys.map((key) => changedRow(key, { key: `new ${key}` }));
      const moved = await table.whileLocked(keys[0], 'key share', () => table.move(moves));
      assert.deepEqual(
        moved,
        keys.map((_, n) => n > 0),
      );
      assert.deepEqual(await table.move(moves.slice(0, 1)), [true]);
      const found = await table.read(keys.map((key) => [key, `new ${key}`]));
      assert.deepEqual(
        found.map((stored) => stored?.key),
        keys.map((key) => `new ${key}`),
      );
    });
  });
}
