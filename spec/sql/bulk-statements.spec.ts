/** The statements on many rows see theirs, all of theirs, and nobody else's. */

import assert from 'node:assert/strict';
import type { Sql } from 'postgres';
import type { ListedRow } from '../../lib/session/row.js';
import { BulkStatements } from '../../lib/sql/bulk-statements.js';
import type { BoundQuery as Query } from '../../lib/sql/query.js';
import { createTableSql } from '../../lib/sql/schema.js';
import { freshTable, sqlClient } from '../support/postgres.js';

const everything: [string, string] = ['', '\u{10FFFF}'];
const all = { range: everything, user: undefined, except: [], until: 'Infinity' };

async function open(maxLifetime?: number) {
  const sql = await sqlClient();
  const name = { schema: 'public', table: freshTable() };
  await sql.unsafe(createTableSql(name)).simple();
  let statements = 0;
  const run: Query = (text, values) => {
    statements++;
    return sql.unsafe(text, values).values() as any;
  };
  return {
    sql,
    table: name.table,
    run,
    sets: new BulkStatements(name, 10_000, maxLifetime),
    statements: () => statements,
  };
}

/** Unexpired rows `PREFIX0000` and on. */
async function fill(sql: Sql, table: string, prefix: string, count: number, user: string | null = null): Promise<void> {
  await sql`
    insert into ${sql(table)} (sid, data, user_id, expires_at)
    select ${prefix}::text || lpad(n::text, 4, '0'), '{}', ${user}::text, now() + interval '1 hour'
    from generate_series(0, ${count - 1}::integer) n`;
}

async function rowsOf(pages: AsyncGenerator<ListedRow[]>): Promise<ListedRow[]> {
  const rows: ListedRow[] = [];
  for await (const page of pages) rows.push(...page);
  return rows;
}

describe('bulk-statements', () => {
  it('lists any number of rows once each, by key, a page at a time', async () => {
    const { sql, table, run, sets, statements } = await open();
    await fill(sql, table, 'a', 1203);
    const rows = await rowsOf(sets.pages(run, everything));
    assert.equal(rows.length, 1203);
    assert.deepEqual(
      rows.map(({ key }) => key),
      Array.from({ length: 1203 }, (_, n) => `a${String(n).padStart(4, '0')}`),
    );
    assert.equal(statements(), 3);
    assert.equal(await sets.count(run, everything), 1203);
  });

  it('ends after a page that is just full', async () => {
    const { sql, table, run, sets } = await open();
    await fill(sql, table, 'a', 500);
    assert.equal((await rowsOf(sets.pages(run, everything))).length, 500);
  });

  it('tells a row’s times by the database’s clock', async () => {
    const { sql, table, run, sets } = await open();
    await sql`insert into ${sql(table)} (sid, data, created_at, updated_at, expires_at)
      values ('a', '{}', '2020-01-01T00:00:00.001Z', '2021-01-01T00:00:00.002Z', '2100-01-01T00:00:00.003Z')`;
    const [row] = await rowsOf(sets.pages(run, everything));
    assert.deepEqual(
      [row?.createdAt, row?.updatedAt, row?.expiresAt].map((ms) => new Date(ms as number).toISOString()),
      ['2020-01-01T00:00:00.001Z', '2021-01-01T00:00:00.002Z', '2100-01-01T00:00:00.003Z'],
    );
    assert(row && row.expiresInMs > 0 && row.remainingLifetimeMs === Number.POSITIVE_INFINITY);
  });

  it('sees no expired row, nor one whose `maxLifetime` is over', async () => {
    const { sql, table, run, sets } = await open(3600);
    await sql`insert into ${sql(table)} (sid, data, user_id, created_at, expires_at) values
      ('unexpired', '{}', 'ann', now(), now() + interval '1 hour'),
      ('expired', '{}', 'ann', now(), now()),
      ('old', '{}', 'ann', now() - interval '1 hour', now() + interval '1 hour')`;
    const keys = (rows: ListedRow[]) => rows.map(({ key }) => key);
    assert.deepEqual(keys(await rowsOf(sets.pages(run, everything))), ['unexpired']);
    assert.deepEqual(keys(await sets.ofUser(run, 'ann', everything)), ['unexpired']);
    assert.equal(await sets.count(run, everything), 1);
  });

  it('keeps to its range', async () => {
    const { sql, table, run, sets } = await open();
    for (const prefix of ['a', 'b', 'c']) await fill(sql, table, prefix, 3, 'ann');
    const range: [string, string] = ['b', 'b\u{10FFFF}'];
    assert.equal((await rowsOf(sets.pages(run, range))).length, 3);
    assert.equal(await sets.count(run, range), 3);
    assert.equal((await sets.ofUser(run, 'ann', range)).length, 3);
    assert.equal(await sets.delete(run, { ...all, range }), 3);
    assert.deepEqual(
      (await rowsOf(sets.pages(run, everything))).map(({ key }) => key[0]),
      ['a', 'a', 'a', 'c', 'c', 'c'],
    );
  });

  it('deletes a range of any size', async () => {
    const { sql, table, run, sets } = await open();
    await fill(sql, table, 'a', 1203);
    assert.equal(await sets.delete(run, all), 1203);
    assert.equal(await sets.delete(run, all), 0);
  });

  it('deletes a range to the last row, also one that is locked for a while', async () => {
    const { sql, table, run, sets } = await open();
    await fill(sql, table, 'a', 3);
    let isDone = false;
    let deleting: Promise<unknown> = Promise.resolve();
    await sql.begin(async (holding) => {
      await holding`select from ${holding(table)} where sid = 'a0001' for update`;
      deleting = sets.delete(run, all).then(() => {
        isDone = true;
      });
      while ((await sets.count(run, everything)) > 1);
      assert.equal(isDone, false);
    });
    await deleting;
    assert.equal(await sets.count(run, everything), 0);
  });

  it('deletes only what was created by a time, to the microsecond, whatever the session’s time zone', async () => {
    const { sql, table, run, sets } = await open();
    await fill(sql, table, 'a', 3, 'ann');
    await sql`update ${sql(table)} set created_at = now() - (1 + substr(sid, 2)::integer) * interval '1 hour'`;
    for (const user of [undefined, 'ann']) {
      const until = async (shift: string) => {
        const time = sql`created_at + ${shift}::interval`;
        const [row] = await sql`select extract(epoch from min(${time}))::text as time from ${sql(table)}`;
        return row?.time;
      };
      assert.equal(await sets.delete(run, { ...all, user, until: await until('-1 microsecond') }), 0);
      assert.equal(await sets.delete(run, { ...all, user, until: await until('0') }), 1);
    }
    assert.equal(await sets.delete(run, { ...all, until: await sets.now(run) }), 1);
  });

  it('takes rows from before the server’s clock was set back for older ones', async () => {
    const { sql, table, run, sets } = await open();
    await fill(sql, table, 'a', 3);
    const until = await sets.now(run);
    await sql`update ${sql(table)} set created_at = now() + interval '1 hour' where sid = 'a0001'`;
    assert.equal(await sets.delete(run, { ...all, until }), 3);
  });

  it('leaves excepted keys, of a range and of a user', async () => {
    const { sql, table, run, sets } = await open();
    await fill(sql, table, 'a', 3, 'ann');
    await fill(sql, table, 'b', 3, 'bob');
    assert.equal(await sets.delete(run, { ...all, user: 'ann', except: ['a0001'] }), 2);
    assert.equal(await sets.delete(run, { ...all, except: ['a0001', 'b0002'] }), 2);
    assert.deepEqual(
      (await rowsOf(sets.pages(run, everything))).map(({ key }) => key),
      ['a0001', 'b0002'],
    );
  });

  it('deletes expired rows of any number, and stops when asked to', async () => {
    const { sql, table, run, sets } = await open();
    await fill(sql, table, 'a', 1203);
    await sql`update ${sql(table)} set expires_at = now() where sid >= 'a0002'`;
    assert.equal(await sets.deleteExpired(run, () => true), 500);
    assert.equal(await sets.deleteExpired(run, () => false), 701);
    assert.equal(await sets.count(run, everything), 2);
  });

  it('lists a user’s rows, newest activity first', async () => {
    const { sql, table, run, sets } = await open();
    await fill(sql, table, 'a', 3, 'ann');
    await fill(sql, table, 'b', 2, 'bob');
    await fill(sql, table, 'c', 2);
    await sql`update ${sql(table)} set updated_at = now() + interval '1 minute' where sid = 'a0001'`;
    assert.deepEqual(
      (await sets.ofUser(run, 'ann', everything)).map(({ key }) => key),
      ['a0001', 'a0000', 'a0002'],
    );
  });
});
