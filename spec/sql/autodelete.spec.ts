/** Autodelete deletes what has expired, each row once, and reads no row again and again. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { ExpiredRow } from '../../lib/session/row.js';
import { deleteExpiredSql } from '../../lib/sql/autodelete.js';
import { changedRow, row, SqlTable } from '../support/sql-table.js';

const DAY = 86_400_000;

async function deleteExpired(table: SqlTable): Promise<ExpiredRow[]> {
  const rows: ExpiredRow[] = [];
  for await (const page of table.statements().deleteExpired()) rows.push(...page);
  return rows;
}

describe('autodelete', () => {
  it('deletes expired rows of any number, page by page, and says which', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await table.fill('a', 1203, 'ann');
    await sql`update ${sql(name)} set expires_at = now(), delete_after = now() where sid >= 'a0002'`;
    const pages: number[] = [];
    for await (const page of table.statements().deleteExpired()) {
      pages.push(page.length);
      assert(page.every(({ user, wasSession }) => user === 'ann' && wasSession));
    }
    assert.deepEqual(pages, [500, 500, 201]);
    assert.deepEqual(
      (await table.rows(['a0000', 'a0001', 'a0002'])).map((stored) => stored?.key),
      ['a0000', 'a0001', undefined],
    );
  });

  it('ends where a trigger of the app’s keeps more rows of one time than a page has', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await table.fill('a', 600);
    await sql`update ${sql(name)} set expires_at = now(), delete_after = now()`;
    await sql.unsafe(`create function ${name}_f() returns trigger language plpgsql as $$ begin return null; end $$`);
    await sql.unsafe(`create trigger t before delete on ${name} for each row execute function ${name}_f()`);
    try {
      assert.deepEqual(await deleteExpired(table), []);
    } finally {
      await sql.unsafe(`drop function ${name}_f cascade`);
    }
    assert.equal((await deleteExpired(table)).length, 600);
  });

  it('leaves a row that has expired until its `delete_after`, and locked rows to the next run', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await table.fill('a', 3);
    await sql`update ${sql(name)} set expires_at = now() - interval '1 s', delete_after = now() - interval '1 s'`;
    await sql`update ${sql(name)} set delete_after = now() + interval '1 hour' where sid = 'a0000'`;
    const deleted = await table.whileLocked('a0001', 'key share', () => deleteExpired(table));
    assert.deepEqual(
      deleted.map(({ key }) => key),
      ['a0002'],
    );
    assert.deepEqual(
      (await deleteExpired(table)).map(({ key }) => key),
      ['a0001'],
    );
  });

  it('never deletes a session that somebody has prolonged by hand, and finds it once: its `delete_after` is corrected', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await table.fill('a', 1203);
    await sql`update ${sql(name)} set delete_after = now() - interval '1 h' + substr(sid, 2)::integer * interval '1 s'`;
    // Most were prolonged.
    await sql`update ${sql(name)} set expires_at = now() - interval '2 s' where sid < 'a0003'`;
    const pages = table.statements().deleteExpired();
    const { value: deleted } = await pages.next();
    assert.deepEqual(deleted.map(({ key }: ExpiredRow) => key).sort(), ['a0000', 'a0001', 'a0002']);
    const corrected = await sql`select from ${sql(name)} where delete_after = expires_at`;
    assert.equal(corrected.length, 497, 'no statement corrects more than a page');
    for await (const page of pages) assert.deepEqual(page, []);
    const [left] =
      await sql`select count(*)::integer, count(*) filter (where delete_after = expires_at)::integer as corrected
      from ${sql(name)}`;
    assert.deepEqual({ ...left }, { count: 1200, corrected: 1200 });
    table.sent = 0;
    assert.deepEqual(await deleteExpired(table), []);
    assert.equal(table.sent, 1, 'it has nothing to do any more');
  });

  it('deletes tombstones after their `delete_after` alone, and says that they were no sessions', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await sql`insert into ${sql(name)} (sid, data, expires_at, delete_after) values
      ('young', 'null', to_timestamp(0), now() + interval '1 day'),
      ('old', 'null', to_timestamp(0), now() - interval '1 day')`;
    assert.deepEqual(await deleteExpired(table), [{ key: 'old', user: null, wasSession: false }]);
  });

  it('reads no more where there are 100,000 tombstones', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    /** What the statement reads: rows of the index, and blocks. */
    const work = async () => {
      await sql.unsafe(`vacuum analyze ${name}`);
      const [{ 'QUERY PLAN': plans }] = (await sql.unsafe(
        `explain (analyze, buffers, format json) ${deleteExpiredSql(table.tableSql)}`,
        ['-Infinity', '500'],
      )) as any;
      const plan = plans[0].Plan;
      return plan['Shared Hit Blocks'] + plan['Shared Read Blocks'];
    };
    await table.fill('a', 100);
    const before = await work();
    await sql`insert into ${sql(name)} (sid, data, expires_at, delete_after)
      select 't' || n, 'null', to_timestamp(0), now() + interval '399 days' + n * interval '1 s'
      from generate_series(1, 100000) n`;
    const after = await work();
    // The index of 100,000 rows has one level more.
    assert(after <= before + 3, `${before} blocks before, ${after} after`);
  });

  it('keeps `delete_after` between the expiry and a fifth of the lifetime later, whatever is written', async () => {
    const expiresIn = fc.oneof(
      fc.double({ min: -1e4, max: 1e7, noNaN: true }),
      fc.constantFrom(0, 1, DAY, 8e15, -8e12),
    );
    const write = fc.record({ how: fc.constantFrom('set', 'update', 'touch'), expiresIn, isKept: fc.boolean() });
    const keys = ['s0', 's1', 's2'];
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(write, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 8 }),
        fc.option(fc.double({ min: 0.001, max: 1e5, noNaN: true })),
        async (writes, maxLifetime) => {
          const table = await SqlTable.create(maxLifetime ?? undefined);
          const { sql, name } = table;
          await table.set(keys.map((key) => row(key)));
          /** The lifetimes that the rows were given last, in milliseconds. */
          const lifetimes = keys.map(() => 60_000);
          for (const batch of writes) {
            for (const [n, { how, expiresIn, isKept }] of batch.entries()) {
              const key = keys[n] as string;
              const [found] = await table.rows([key]);
              const version = found?.version ?? 0;
              const expires = Date.now() + expiresIn;
              const change = changedRow(key, {
                expires,
                oldVersion: version,
                version: version + 1,
                movesExpiry: !isKept,
              });
              let isMoved = true;
              if (how === 'set') await table.set([row(key, { expires })]);
              else if (how === 'update') isMoved = (await table.update([change]))[0] === true && !isKept;
              else isMoved = (await table.touch([{ ...change, overwritesCookie: true }]))[0] === true;
              if (isMoved) lifetimes[n] = Math.max(expiresIn, 0);
            }
            for (const [n, key] of keys.entries()) {
              const [stored] = await sql`
                select extract(epoch from delete_after - expires_at)::float8 as step from ${sql(name)} where sid = ${key}`;
              const most = Math.min((lifetimes[n] as number) / 5, 31_557_600_000) / 1000;
              assert(stored?.step >= 0 && stored?.step <= most + 0.001, `${stored?.step} s, at most ${most} s`);
            }
          }
          await sql`drop table ${sql(name)}`;
        },
      ),
      { numRuns: 40 },
    );
  });

  it('changes `delete_after` seldom: updates stay heap-only', async () => {
    const table = await SqlTable.create();
    const { sql, name } = table;
    await table.set([row('a', { expires: Date.now() + DAY })]);
    const times = () => sql`select expires_at::text, delete_after::text from ${sql(name)}`;
    const [before] = await times();
    const touch = { ...row('a'), overwritesCookie: true };
    for (const lifetime of [DAY, DAY - 7, DAY + 60_000]) {
      assert.deepEqual(await table.touch([{ ...touch, expires: Date.now() + lifetime }]), [true]);
    }
    assert.deepEqual(await table.update([changedRow('a', { expires: Date.now() + DAY })]), [true]);
    const [after] = await times();
    assert.notEqual(after?.expires_at, before?.expires_at);
    assert.equal(after?.delete_after, before?.delete_after);
    for (const lifetime of [DAY * 2, DAY / 2]) {
      const [{ delete_after: previous } = {}] = await times();
      await table.touch([{ ...touch, expires: Date.now() + lifetime }]);
      const [{ delete_after: next } = {}] = await times();
      assert.notEqual(next, previous, 'a much longer or shorter lifetime moves it');
    }
  });
});
