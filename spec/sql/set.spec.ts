/** `set` inserts rows or replaces those that are there, and waits for no row lock. */

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { FORMS, row, SqlTable } from '../support/sql-table.js';

for (const [form, keys] of FORMS) {
  describe(`set, ${form}`, () => {
    const all = <T>(value: T): T[] => keys.map(() => value);

    it('replaces what is there', async () => {
      const table = await SqlTable.create();
      const { sql, name } = table;
      await table.set(keys.map((key) => row(key)));
      const second = { data: '{"n":2}', cookie: null, cookieExpires: null, user: 'bob', version: 8 };
      assert.deepEqual(await table.set(keys.map((key) => row(key, second))), all(true));
      const rows = await sql`select data::text, cookie, cookie_expires, user_id, version from ${sql(name)}`;
      assert.deepEqual(
        rows.map((stored) => ({ ...stored })),
        all({ data: '{"n":2}', cookie: null, cookie_expires: null, user_id: 'bob', version: 8 }),
      );
    });

    it('starts the lifetime again only where the row had expired', async () => {
      const table = await SqlTable.create();
      const { sql, name } = table;
      await table.set([...keys.map((key) => row(key)), row('expired', { expires: Date.now() })]);
      await sql`update ${sql(name)} set created_at = 'epoch'`;
      await table.set(keys.map((key) => row(key)));
      await table.set([row('expired')]);
      const old = await sql`select sid from ${sql(name)} where created_at = 'epoch' order by sid`;
      assert.deepEqual(
        old.map(({ sid }) => sid),
        keys,
      );
    });

    it('takes the place of a tombstone as a new session', async () => {
      const table = await SqlTable.create();
      const { sql, name } = table;
      for (const key of keys) {
        await sql`insert into ${sql(name)} (sid, data, created_at, expires_at, delete_after)
          values (${key}, 'null', 'epoch', to_timestamp(0), now() + interval '400 days')`;
      }
      assert.deepEqual(await table.insert(keys.map((key) => row(key))), all(false), 'it keeps a session away');
      assert.deepEqual(await table.set(keys.map((key) => row(key))), all(true));
      const [wrong] =
        await sql`select from ${sql(name)} where expires_at < now() or created_at < now() - interval '1 min'
        or delete_after > expires_at + interval '6.001 s'`;
      assert.equal(wrong, undefined);
    });

    it('skips locked rows, and does not stall behind a foreign key’s lock', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key)));
      const again = keys.map((key) => row(key, { version: 8 }));
      for (const lock of ['update', 'no key update', 'share']) {
        assert.deepEqual(
          await table.whileLocked(keys[0], lock, () => table.set(again)),
          keys.map((_, n) => n > 0),
          lock,
        );
      }
      assert.deepEqual(await table.whileLocked(keys[0], 'key share', () => table.set(again)), all(true));
    });

    it('inserts alone where it should, and replaces alone where it should', async () => {
      const table = await SqlTable.create();
      const rows = keys.map((key) => row(key));
      assert.deepEqual(await table.replace(rows), all(false));
      assert.deepEqual(await table.insert(rows), all(true));
      assert.deepEqual(await table.insert(rows.map((one) => ({ ...one, version: 9 }))), all(false));
      assert.deepEqual(
        (await table.rows(keys)).map((stored) => stored?.version),
        all(7),
      );
      assert.deepEqual(await table.replace(rows.map((one) => ({ ...one, version: 9 }))), all(true));
      assert.deepEqual(
        (await table.rows(keys)).map((stored) => stored?.version),
        all(9),
      );
    });
  });
}

describe('set', () => {
  it('has rows of one statement in any mixture', async () => {
    const table = await SqlTable.create();
    await table.set([row('there')]);
    const rows = [
      row('new'),
      row('there', { cookie: '{}' }),
      row('Ä "\\{},'),
      row('', { user: 'NULL' }),
      row('null', { cookie: '[null]' }),
      row('without a cookie', { cookie: null, cookieExpires: null, user: '' }),
    ];
    assert((await table.set(rows)).every((isWritten) => isWritten));
    const found = await table.rows(rows.map(({ key }) => key));
    assert.deepEqual(
      found.map((stored) => [stored?.key, stored?.data, stored?.cookie, stored?.cookieExpires]),
      rows.map(({ key, data, cookie, cookieExpires }) => [key, data, cookie, cookieExpires]),
    );
    const { sql, name } = table;
    const users = await sql`select sid, user_id from ${sql(name)} where user_id is not null order by sid`;
    assert.deepEqual(
      users.map(({ sid, user_id }) => [sid, user_id]),
      [
        ['', 'NULL'],
        ['without a cookie', ''],
      ],
    );
  });

  it('inserts by key, and before it replaces: while an insert waits, nothing is held that the other may wait for', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await table.set([row('there')]);
    const insert = `insert into ${name} (sid, data, expires_at, delete_after) values ($1, '{}', now() + interval '1 min', now())`;
    let outcome: Promise<boolean[]> | undefined;
    await sql.begin(async (other) => {
      await other.unsafe(insert, ['a']);
      outcome = table.set([row('there', { version: 8 }), row('b'), row('a')]);
      const waiting = () => other`select from pg_locks where not granted and transactionid = pg_current_xact_id()::xid`;
      while ((await waiting()).length === 0) await sleep(10);
      // Where the statement held one of these, PostgreSQL would end this transaction: a deadlock.
      await other`update ${other(name)} set updated_at = now() where sid = 'there'`;
      await other.unsafe(insert, ['b']);
    });
    assert.deepEqual(await outcome, [true, false, false]);
    const [there] = await table.rows(['there']);
    assert.equal(there?.version, 8);
  });
});
