/** Rows are read as they were written, under the first of their keys. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { FORMS, row, SqlTable } from '../support/sql-table.js';

for (const [form, keys] of FORMS) {
  describe(`get, ${form}`, () => {
    const all = <T>(value: T): T[] => keys.map(() => value);

    it('reads what was written', async () => {
      const table = await SqlTable.create();
      const expires = Date.now() + 60_000;
      const rows = keys.map((key, n) =>
        row(key, { user: 'ann', version: 2147483647 - n, expires, cookieExpires: 5.25 }),
      );
      assert.deepEqual(await table.set(rows), all(true));
      for (const [n, found] of (await table.rows(keys)).entries()) {
        const { expiresInMs, ...stored } = found as any;
        assert.deepEqual(stored, {
          key: keys[n],
          data: '{"n":1}',
          cookie: '{"path":"/"}',
          cookieExpires: 5.25,
          version: 2147483647 - n,
          endsInMs: Number.POSITIVE_INFINITY,
        });
        assert(expiresInMs > 0 && expiresInMs <= 60_000);
      }
      assert.deepEqual(await table.rows(keys.map((key) => `not ${key}`)), all(undefined));
    });

    it('reads a row under the first of its keys that has one', async () => {
      const table = await SqlTable.create();
      await table.set([row('old'), ...keys.map((key) => row(key))]);
      const found = await table.read(keys.map((key) => ['new', key, 'old']));
      assert.deepEqual(
        found.map((stored) => stored?.key),
        keys,
      );
    });

    it('tells how long a row lives: until its `expires_at`, and at most `maxLifetime` from its creation', async () => {
      const table = await SqlTable.create(1);
      await table.set(keys.map((key) => row(key)));
      for (const stored of await table.rows(keys)) {
        assert(stored && stored.expiresInMs > 0 && stored.expiresInMs <= 1000 && stored.endsInMs <= 1000);
      }
      const { sql, name } = table;
      // As one that was written by hand, or before the option was set.
      await sql`update ${sql(name)} set expires_at = now() + interval '1 hour', created_at = now() - interval '2 s'`;
      for (const stored of await table.rows(keys)) assert(stored && stored.expiresInMs <= -1000);
    });

    it('reads expired rows and tombstones too, as what they are', async () => {
      const table = await SqlTable.create();
      const { sql, name } = table;
      await table.set(keys.map((key) => row(key, { expires: Date.now() - 5000 })));
      for (const stored of await table.rows(keys)) assert(stored && stored.expiresInMs <= -5000);
      await sql`update ${sql(name)} set expires_at = to_timestamp(0)`;
      for (const stored of await table.rows(keys)) assert(stored && stored.expiresInMs < -1.5e12);
    });
  });
}

describe('get', () => {
  it('gives back JSON as it was stored, to the byte, in any mixture of keys', async () => {
    const table = await SqlTable.create();
    const data = fc.jsonValue().map((value) => JSON.stringify({ value, '': '\0\ud800\x1f' }));
    await fc.assert(
      fc.asyncProperty(fc.array(data, { minLength: 1, maxLength: 5 }), async (texts) => {
        await table.set(texts.map((text, n) => row(`s${n}`, { data: text, cookie: text })));
        const found = await table.rows(texts.map((_, n) => `s${n}`));
        assert.deepEqual(
          found.map((stored) => [stored?.data, stored?.cookie]),
          texts.map((text) => [text, text]),
        );
      }),
      { numRuns: 50 },
    );
  });

  it('reads a key that has the separator of columns in it', async () => {
    const table = await SqlTable.create();
    await table.set([row('\x1fa\x1f'), row('b')]);
    assert.deepEqual(
      (await table.rows(['\x1fa\x1f', 'b', '\x1f'])).map((stored) => stored?.key),
      ['\x1fa\x1f', 'b', undefined],
    );
  });

  it('reads rows of any time that was written by hand', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    const times = ['infinity', '-infinity', '4713-01-01 BC', '250000-01-01', 'now'];
    for (const [n, time] of times.entries()) {
      await sql.unsafe(
        `insert into ${name} (sid, data, expires_at, delete_after) values ('${n}', '{}', '${time}', '${time}')`,
      );
    }
    await sql.unsafe(`update ${name} set created_at = 'infinity', updated_at = '-infinity' where sid = '4'`);
    const found = await table.rows(times.map((_, n) => `${n}`));
    assert.deepEqual(
      found.map((stored) => stored && stored.expiresInMs > 0),
      [true, false, false, true, false],
    );
  });
});
