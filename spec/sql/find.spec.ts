/** Listings and searches see theirs, all of theirs, and nobody else's. */

import assert from 'node:assert/strict';
import type { ListedRow, RowName } from '../../lib/session/row.js';
import { SqlTable } from '../support/sql-table.js';

async function gathered<Row>(pages: AsyncIterable<Row[]>): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const page of pages) rows.push(...page);
  return rows;
}

const keysOf = (rows: readonly { key: string }[]) => rows.map(({ key }) => key);

describe('find', () => {
  it('lists any number of rows once each, by key, a page at a time', async () => {
    const table = await SqlTable.create();
    await table.fill('a', 1203);
    const statements = table.statements();
    const rows = await gathered(statements.pages('all'));
    assert.deepEqual(
      keysOf(rows),
      Array.from({ length: 1203 }, (_, n) => `a${String(n).padStart(4, '0')}`),
    );
    assert.equal(table.sent, 3);
    assert.equal(await statements.count(), 1203);
  });

  it('ends after a page that is just full', async () => {
    const table = await SqlTable.create();
    await table.fill('a', 500);
    assert.equal((await gathered(table.statements().pages('all'))).length, 500);
    await table.fill('b', 1500);
    const statements = table.statements();
    assert.equal((await gathered(statements.names(await statements.now()))).length, 2000);
  });

  it('tells a row’s times by the database’s clock', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await sql`insert into ${sql(name)} (sid, data, created_at, updated_at, expires_at, delete_after) values
      ('a', '{}', '2020-01-01T00:00:00.001Z', '2021-01-01T00:00:00.002Z', '2100-01-01T00:00:00.003Z', 'infinity')`;
    const [row] = await gathered(table.statements().pages('all'));
    assert.deepEqual(
      [row?.createdAt, row?.updatedAt, row?.expiresAt].map((ms) => new Date(ms as number).toISOString()),
      ['2020-01-01T00:00:00.001Z', '2021-01-01T00:00:00.002Z', '2100-01-01T00:00:00.003Z'],
    );
    assert(row && row.expiresInMs > 0 && row.endsInMs === Number.POSITIVE_INFINITY);
  });

  it('sees no expired row, nor one whose `maxLifetime` is over', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await sql`insert into ${sql(name)} (sid, data, user_id, created_at, expires_at, delete_after) values
      ('unexpired', '{}', 'ann', now(), now() + interval '1 hour', now()),
      ('expired', '{}', 'ann', now(), now(), now()),
      ('old', '{}', 'ann', now() - interval '1 hour', now() + interval '1 hour', now())`;
    const statements = table.statements(undefined, 3600);
    assert.deepEqual(keysOf(await gathered(statements.pages('all'))), ['unexpired']);
    assert.deepEqual(keysOf(await statements.listOfUser('ann', 1000)), ['unexpired']);
    assert.equal(await statements.count(), 1);
    const found = await statements.findOfUser('ann', Number.POSITIVE_INFINITY);
    assert.deepEqual(found.map(({ key, isExpired }) => [key, isExpired]).sort(), [
      ['expired', true],
      ['old', true],
      ['unexpired', false],
    ]);
  });

  it('keeps to its range', async () => {
    const table = await SqlTable.create();
    for (const prefix of ['a', 'b', 'c']) await table.fill(prefix, 3, 'ann');
    const statements = table.statements(['b', 'b\u{10FFFF}']);
    const ofB = ['b0000', 'b0001', 'b0002'];
    assert.deepEqual(keysOf(await gathered(statements.pages('all'))), ofB);
    assert.equal(await statements.count(), 3);
    assert.deepEqual(keysOf(await statements.listOfUser('ann', 1000)), ofB);
    assert.deepEqual(keysOf(await statements.findOfUser('ann', Number.POSITIVE_INFINITY)).sort(), ofB);
    assert.deepEqual(keysOf(await gathered(statements.names(await statements.now()))), ofB);
  });

  it('lists a user’s rows, newest activity first, no more than it is asked for', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await table.fill('a', 3, 'ann');
    await table.fill('b', 2, 'bob');
    await table.fill('c', 2);
    await sql`update ${sql(name)} set updated_at = now() + interval '1 minute' where sid = 'a0001'`;
    const statements = table.statements();
    assert.deepEqual(keysOf(await statements.listOfUser('ann', 1000)), ['a0001', 'a0000', 'a0002']);
    assert.deepEqual(keysOf(await statements.listOfUser('ann', 2)), ['a0001', 'a0000']);
  });

  it('finds the rows of many users in one statement, each for who asked for it', async () => {
    const table = await SqlTable.create();
    await table.fill('a', 3, 'ann');
    await table.fill('b', 2, 'b"o\\b,');
    await table.fill('n', 1, 'NULL');
    const statements = table.statements();
    const users = ['ann', 'b"o\\b,', 'nobody', 'ann', 'NULL', ''];
    const found = await Promise.all(users.map((user) => statements.findOfUser(user, Number.POSITIVE_INFINITY)));
    assert.deepEqual(
      found.map((rows) => rows.length),
      [3, 2, 0, 3, 1, 0],
    );
    assert.equal(table.sent, 1);
    for (const [n, rows] of found.entries()) assert(rows.every(({ user }) => user === users[n]));
  });

  it('names the rows that were there at a moment, to the microsecond, whatever the session’s time zone', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await table.fill('a', 3);
    await sql`update ${sql(name)} set created_at = now() - (1 + substr(sid, 2)::integer) * interval '1 hour'`;
    const statements = table.statements();
    const namesUntil = async (shift: string): Promise<RowName[]> => {
      const time = sql`created_at + ${shift}::interval`;
      const [found] = await sql`select extract(epoch from min(${time}))::text as time from ${sql(name)}`;
      return gathered(statements.names({ time: found?.time }));
    };
    assert.deepEqual(keysOf(await namesUntil('-1 microsecond')), []);
    assert.deepEqual(keysOf(await namesUntil('0')), ['a0002']);
    assert.equal((await gathered(statements.names(await statements.now()))).length, 3);
  });

  it('names rows from before the server’s clock was set back as older ones, and expired ones too', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await table.fill('a', 3);
    const statements = table.statements();
    const moment = await statements.now();
    await sql`update ${sql(name)} set created_at = now() + interval '1 hour' where sid = 'a0001'`;
    await sql`update ${sql(name)} set expires_at = now() where sid = 'a0002'`;
    assert.equal((await gathered(statements.names(moment))).length, 3);
  });

  it('reads rows that were written by hand: with the columns that have no default, and no others', async () => {
    const table = await SqlTable.create();
    await table.fill('a', 1);
    const [row] = (await gathered(table.statements().pages('all'))) as [ListedRow];
    const { expiresInMs, createdAt, updatedAt, expiresAt, ...others } = row;
    assert.deepEqual(others, {
      key: 'a0000',
      data: '{}',
      cookie: null,
      cookieExpires: null,
      version: 1,
      shard: undefined,
      endsInMs: Number.POSITIVE_INFINITY,
    });
    assert(expiresInMs > 3_500_000 && createdAt === updatedAt && expiresAt > createdAt);
  });
});
