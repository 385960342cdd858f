/** Deletions and tombstones, and deletions of exactly the rows that a call on many sessions has found. */

import assert from 'node:assert/strict';
import type { Deletion, RowName, WrittenRow } from '../../lib/session/row.js';
import { buryAbsentStatement, buryStatement, destroyStatement } from '../../lib/sql/destroy.js';
import { destroyFound, destroyFoundSql, destroyWritten, destroyWrittenSql } from '../../lib/sql/destroy-named.js';
import { write } from '../../lib/sql/statement.js';
import { FORMS, row, SqlTable } from '../support/sql-table.js';

const itself = (key: string) => key;

for (const [form, keys] of FORMS) {
  describe(`destroy, ${form}`, () => {
    const all = <T>(value: T): T[] => keys.map(() => value);
    const destroy = (table: SqlTable) => write(table.query, destroyStatement(table.tableSql), keys, undefined, itself);
    const bury = (table: SqlTable) => write(table.query, buryStatement(table.tableSql), keys, undefined, itself);
    const buryAbsent = (table: SqlTable) =>
      write(table.query, buryAbsentStatement(table.tableSql), keys, undefined, itself);

    it('deletes rows', async () => {
      const table = await SqlTable.create();
      await table.set([...keys.map((key) => row(key)), row('other')]);
      assert.deepEqual(await destroy(table), all(true));
      assert.deepEqual(await destroy(table), all(false));
      const [other] = await table.rows(['other']);
      assert(other);
    });

    it('skips a row that is locked, by a foreign key too', async () => {
      const table = await SqlTable.create();
      await table.set(keys.map((key) => row(key)));
      const others = keys.map((_, n) => n > 0);
      assert.deepEqual(await table.whileLocked(keys[0], 'key share', () => destroy(table)), others);
      assert.deepEqual(
        await destroy(table),
        keys.map((_, n) => n === 0),
      );
    });

    it('turns rows into tombstones, which nothing reads as sessions', async () => {
      const table = await SqlTable.create();
      const { sql, name } = table;
      await table.set(keys.map((key) => row(key, { user: 'ann' })));
      const others = keys.map((_, n) => n > 0);
      assert.deepEqual(await table.whileLocked(keys[0], 'update', () => bury(table)), others);
      assert.deepEqual(await bury(table), all(true));
      const rows =
        await sql`select data::text, cookie, cookie_expires, user_id, extract(epoch from expires_at)::integer as expires,
        round(extract(epoch from delete_after - now()) / 86400)::integer as days from ${sql(name)}`;
      assert.deepEqual(
        rows.map((stored) => ({ ...stored })),
        all({ data: 'null', cookie: null, cookie_expires: null, user_id: null, expires: 0, days: 400 }),
      );
      const statements = table.statements();
      assert.equal(await statements.count(), 0);
      for await (const _ of statements.pages('all')) assert.fail('a page of tombstones');
      for await (const _ of statements.names(await statements.now())) assert.fail('names of tombstones');
    });

    it('inserts tombstones where there is no row', async () => {
      const table = await SqlTable.create();
      assert.deepEqual(await bury(table), all(false));
      assert.deepEqual(await buryAbsent(table), all(true));
      assert.deepEqual(await buryAbsent(table), all(false));
      for (const stored of await table.rows(keys)) assert(stored && stored.expiresInMs < 0 && stored.data === 'null');
    });
  });
}

describe('destroy of what was found', () => {
  async function open() {
    const table = await SqlTable.create();
    const { sql, name } = table;
    return {
      table,
      sql,
      name,
      nameOf: async (key: string, user?: string): Promise<RowName> => {
        const [found] =
          await sql`select extract(epoch from created_at)::text as time from ${sql(name)} where sid = ${key}`;
        return { key, shard: undefined, createdAt: found?.time, user };
      },
      destroyFound: (rows: RowName[]) => destroyFound(table.query, destroyFoundSql(table.tableSql), rows, undefined),
      destroyWritten: (rows: WrittenRow[]) =>
        destroyWritten(table.query, destroyWrittenSql(table.tableSql), rows, undefined),
    };
  }

  it('deletes rows by key and time of creation, and says of each what became of it', async () => {
    const { table, nameOf, destroyFound } = await open();
    await table.set(['a', 'b', 'c', 'd'].map((key) => row(key)));
    const names = await Promise.all(['a', 'b', 'c'].map((key) => nameOf(key)));
    const missing = { ...(names[0] as RowName), key: 'not there' };
    const outcome = await table.whileLocked('b', 'key share', () => destroyFound([...names, missing]));
    assert.deepEqual(outcome, ['deleted', 'locked', 'deleted', 'gone'] satisfies Deletion[]);
    assert.deepEqual(await destroyFound(names), ['gone', 'deleted', 'gone']);
    const [kept] = await table.rows(['d']);
    assert(kept);
  });

  it('leaves a session that was created again under the same key', async () => {
    const { table, sql, name, nameOf, destroyFound } = await open();
    await table.set([row('a')]);
    const found = await nameOf('a');
    await sql`update ${sql(name)} set created_at = created_at + interval '1 microsecond'`;
    assert.deepEqual(await destroyFound([found]), ['gone']);
  });

  it('leaves a row that is no longer this user’s', async () => {
    const { table, sql, name, nameOf, destroyFound } = await open();
    await table.set([row('a', { user: 'ann' }), row('b', { user: 'bob' }), row('c')]);
    const names = await Promise.all(['a', 'b', 'c'].map((key) => nameOf(key, 'ann')));
    await sql`update ${sql(name)} set user_id = 'ann' where sid = 'b'`;
    await sql`update ${sql(name)} set user_id = null where sid = 'a'`;
    assert.deepEqual(await destroyFound(names), ['gone', 'deleted', 'gone']);
    assert.deepEqual(await destroyFound([await nameOf('c')]), ['deleted'], 'whoever’s it is');
  });

  it('counts a row for the first of the calls of a batch that name it', async () => {
    const { table, nameOf, destroyFound } = await open();
    await table.set([row('a', { user: 'ann' }), row('b', { user: 'ann' })]);
    const [a, b] = [await nameOf('a', 'ann'), await nameOf('b', 'ann')];
    assert.deepEqual(await destroyFound([a, b, a, a]), ['deleted', 'deleted', 'gone', 'gone']);
  });

  it('says `locked` of every call on a row that is', async () => {
    const { table, nameOf, destroyFound } = await open();
    await table.set([row('a')]);
    const a = await nameOf('a');
    assert.deepEqual(await table.whileLocked('a', 'update', () => destroyFound([a, a])), ['locked', 'locked']);
  });

  it('deletes what a save wrote by key and version, and no later version of it', async () => {
    const { table, destroyWritten } = await open();
    await table.set([row('a'), row('b'), row('c', { version: 9 })]);
    const written = ['a', 'b', 'c', 'd'].map((key) => ({ key, version: 7, user: null }));
    const outcome = await table.whileLocked('b', 'update', () => destroyWritten(written));
    assert.deepEqual(outcome, ['deleted', 'locked', 'gone', 'gone']);
    const kept = (await table.rows(['a', 'b', 'c'])).map((stored) => stored?.key);
    assert.deepEqual(kept, [undefined, 'b', 'c']);
  });
});
