/** Each statement does one thing, for one row as for many, and waits for no row lock. */

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import type { Sql } from 'postgres';
import type { NewRow } from '../../lib/session/row.js';
import { arrayLiteral, type BoundQuery as Query } from '../../lib/sql/query.js';
import { createTableSql } from '../../lib/sql/schema.js';
import { SessionsTable } from '../../lib/sql/sessions-table.js';
import { freshTable, sqlClient } from '../support/postgres.js';

const queryOn =
  (sql: Sql): Query =>
  (text, values) =>
    sql.unsafe(text, values).values() as any;

async function open(maxLifetime?: number) {
  const sql = await sqlClient();
  const name = { schema: 'public', table: freshTable() };
  await sql.unsafe(createTableSql(name)).simple();
  return { sql, name: name.table, query: queryOn(sql), table: new SessionsTable(name, maxLifetime) };
}

const row = (key: string, more: Partial<NewRow> = {}): NewRow => ({
  key,
  data: '{"n":1}',
  cookie: '{"path":"/"}',
  user: null,
  newVersion: 7,
  expires: Date.now() + 60_000,
  ...more,
});

/** Each case runs with the form for one row and with the form for many. */
for (const [form, keys] of [
  ['one row', ['a']],
  ['many rows', ['a', 'b', 'c']],
] as const) {
  describe(`sessions-table, ${form}`, () => {
    const all = <T>(value: T): T[] => keys.map(() => value);

    it('inserts rows and reads them', async () => {
      const { table, query } = await open();
      const expires = Date.now() + 60_000;
      const written = await table.replace(
        query,
        keys.map((key, n) => row(key, { user: 'ann', newVersion: 2147483647 - n, expires })),
      );
      assert.deepEqual(written, all(true));
      const found = await table.read(
        query,
        keys.map((key) => [key]),
      );
      for (const [n, key] of keys.entries()) {
        const { expiresInMs, expiresAt, ...stored } = found[n] as any;
        assert.deepEqual(stored, {
          key,
          data: '{"n":1}',
          cookie: '{"path":"/"}',
          version: 2147483647 - n,
          remainingLifetimeMs: Number.POSITIVE_INFINITY,
        });
        assert(expiresInMs > 0 && expiresInMs <= 60_000);
        assert.equal(Math.round(expiresAt), expires);
      }
      assert.deepEqual(
        await table.read(
          query,
          keys.map((key) => [`not ${key}`]),
        ),
        all(undefined),
      );
    });

    it('reads a row under the first of its keys that has one', async () => {
      const { table, query } = await open();
      await table.replace(query, [row('old'), ...keys.map((key) => row(key))]);
      const found = await table.read(
        query,
        keys.map((key) => ['new', key, 'old']),
      );
      assert.deepEqual(
        found.map((stored) => stored?.key),
        keys,
      );
    });

    it('replaces what is there', async () => {
      const { table, query, sql, name } = await open();
      await table.replace(
        query,
        keys.map((key) => row(key)),
      );
      const written = await table.replace(
        query,
        keys.map((key) => row(key, { data: '{"n":2}', cookie: '{}', user: 'bob', newVersion: 8 })),
      );
      assert.deepEqual(written, all(true));
      const rows = await sql`select data::text, cookie, user_id, version from ${sql(name)}`;
      assert.deepEqual(
        rows.map((stored) => ({ ...stored })),
        all({ data: '{"n":2}', cookie: {}, user_id: 'bob', version: 8 }),
      );
    });

    it('starts a replaced row’s lifetime again only where it had expired', async () => {
      const { table, query, sql, name } = await open();
      await table.replace(query, [...keys.map((key) => row(key)), row('expired', { expires: Date.now() })]);
      await sql`update ${sql(name)} set created_at = 'epoch'`;
      await table.replace(
        query,
        keys.map((key) => row(key)),
      );
      await table.replace(query, [row('expired')]);
      const old = await sql`select sid from ${sql(name)} where created_at = 'epoch' order by sid`;
      assert.deepEqual(
        old.map(({ sid }) => sid),
        keys,
      );
    });

    const change = {
      version: 7,
      newVersion: 8,
      data: '{"n":2}',
      user: null,
      cookie: '{}',
      cookieChanged: true,
      expires: Date.now() + 3_600_000,
    };

    it('updates rows that have the version', async () => {
      const { table, query } = await open();
      await table.replace(
        query,
        keys.map((key) => row(key)),
      );
      const updated = await table.update(
        query,
        keys.map((key) => ({ key, newKey: key, ...change })),
      );
      assert.deepEqual(updated, all(true));
      for (const stored of await table.read(
        query,
        keys.map((key) => [key]),
      ))
        assert.deepEqual([stored?.data, stored?.version], ['{"n":2}', 8]);
    });

    it('leaves rows alone that have another version, have expired, or are not there', async () => {
      for (const maxLifetime of [undefined, 3600]) {
        const { table, query, sql, name } = await open(maxLifetime);
        await table.replace(query, [row(keys[0])]);
        const stale = keys.map((key) => ({ key, newKey: key, ...change, version: 6 }));
        assert.deepEqual(await table.update(query, stale), all(false));
        if (maxLifetime) await sql`update ${sql(name)} set created_at = created_at - interval '1 hour'`;
        else await sql`update ${sql(name)} set expires_at = now()`;
        const current = keys.map((key) => ({ key, newKey: key, ...change }));
        assert.deepEqual(await table.update(query, current), all(false));
        assert.deepEqual(await table.touch(query, current), all(false));
        const [stored] = await table.read(query, [[keys[0]]]);
        assert.equal(stored?.data, '{"n":1}');
      }
    });

    it('moves rows to new keys', async () => {
      const { table, query } = await open();
      await table.replace(
        query,
        keys.map((key) => row(key)),
      );
      await table.update(
        query,
        keys.map((key) => ({ key, newKey: `new ${key}`, ...change })),
      );
      const found = await table.read(
        query,
        keys.map((key) => [key, `new ${key}`]),
      );
      assert.deepEqual(
        found.map((stored) => stored?.key),
        keys.map((key) => `new ${key}`),
      );
    });

    it('touches cookie and expiry, not the version, and never an expired row', async () => {
      const { table, query } = await open();
      await table.replace(
        query,
        keys.map((key) => row(key)),
      );
      const touch = keys.map((key) => ({
        key,
        cookie: '{"path":"/b"}',
        cookieChanged: true,
        expires: Date.now() + 90_000,
      }));
      assert.deepEqual(await table.touch(query, touch), all(true));
      for (const stored of await table.read(
        query,
        keys.map((key) => [key]),
      )) {
        assert.deepEqual([stored?.cookie, stored?.version], ['{"path":"/b"}', 7]);
        assert(stored && stored.expiresInMs > 60_000);
      }
      await table.replace(
        query,
        keys.map((key) => row(key, { expires: Date.now() })),
      );
      assert.deepEqual(await table.touch(query, touch), all(false));
      assert.deepEqual(
        await table.touch(
          query,
          keys.map((key) => ({ ...touch[0], key: `not ${key}` }) as any),
        ),
        all(false),
      );
    });

    it('leaves a cookie and its expiry alone that another request changed', async () => {
      const { table, query } = await open();
      await table.replace(
        query,
        keys.map((key) => row(key, { cookie: '{"theirs":1}', expires: Date.now() + 90_000 })),
      );
      await table.touch(
        query,
        keys.map((key) => ({ key, cookie: '{"seen":1}', cookieChanged: false, expires: Date.now() + 1000 })),
      );
      for (const stored of await table.read(
        query,
        keys.map((key) => [key]),
      )) {
        assert.equal(stored?.cookie, '{"theirs":1}');
        assert(stored.expiresInMs > 1000);
      }
    });

    it('leaves an expiry that may wait', async () => {
      const { table, query, sql, name } = await open();
      const cookie = '{"path":"/"}';
      await table.replace(
        query,
        keys.map((key) => row(key)),
      );
      const expiries = () => sql`select sid, expires_at::text from ${sql(name)} order by sid`;
      const before = await expiries();
      await table.touch(
        query,
        keys.map((key) => ({ key, cookie, cookieChanged: false, expires: null })),
      );
      assert.deepEqual([...(await expiries())], [...before]);
    });

    it('deletes rows', async () => {
      const { table, query } = await open();
      await table.replace(query, [...keys.map((key) => row(key)), row('other')]);
      assert.deepEqual(await table.destroy(query, [...keys]), all(true));
      assert.deepEqual(await table.destroy(query, [...keys]), all(false));
      const [other] = await table.read(query, [['other']]);
      assert(other);
    });

    it('waits for no locked row', async () => {
      const { table, query, sql, name } = await open();
      await table.replace(
        query,
        keys.map((key) => row(key)),
      );
      const written = keys.map((_, n) => n !== 0);
      const outcomes = await sql.begin(async (holding) => {
        await holding`select from ${holding(name)} where sid = ${keys[0]} for update`;
        return [
          await table.replace(
            query,
            keys.map((key) => row(key)),
          ),
          await table.touch(
            query,
            keys.map((key) => ({ key, cookie: '{}', cookieChanged: true, expires: Date.now() + 1000 })),
          ),
          await table.update(
            query,
            keys.map((key) => ({ key, newKey: key, ...change })),
          ),
          await table.destroy(query, [...keys]),
        ];
      });
      for (const outcome of outcomes) assert.deepEqual(outcome, written);
      const [stored] = await table.read(query, [[keys[0]]]);
      assert.equal(stored?.version, 7);
    });

    it('expires a row `maxLifetime` after its creation, whatever its `expires_at`', async () => {
      const { table, query, sql, name } = await open(1);
      await table.replace(
        query,
        keys.map((key) => row(key)),
      );
      for (const stored of await table.read(
        query,
        keys.map((key) => [key]),
      )) {
        assert(stored && stored.expiresInMs > 0 && stored.expiresInMs <= 1000 && stored.remainingLifetimeMs <= 1000);
      }
      await table.touch(
        query,
        keys.map((key) => ({ key, cookie: '{}', cookieChanged: true, expires: Date.now() + 9000 })),
      );
      const late = await sql`select from ${sql(name)} where expires_at > created_at + interval '1 second'`;
      assert.equal(late.length, 0);
    });
  });
}

describe('sessions-table', () => {
  it('has rows of one statement in any mixture', async () => {
    const { table, query } = await open();
    await table.replace(query, [row('there')]);
    const rows = [
      row('new'),
      row('there', { cookie: '{}' }),
      row('Ä "\\{},'),
      row('', { user: 'NULL' }),
      row('null', { cookie: '[null]' }),
    ];
    assert((await table.replace(query, rows)).every((isWritten) => isWritten));
    const found = await table.read(
      query,
      rows.map(({ key }) => [key]),
    );
    assert.deepEqual(
      found.map((stored) => [stored?.key, stored?.data, stored?.cookie]),
      rows.map(({ key, data, cookie }) => [key, data, cookie]),
    );
  });

  it('inserts by key, and before it replaces: while an insert waits, nothing is held that the other may wait for', async () => {
    const { table, query, sql, name } = await open();
    await table.replace(query, [row('there')]);
    const insert = `insert into ${name} (sid, data, expires_at) values ($1, '{}', now() + interval '1 minute')`;
    let outcome: Promise<boolean[]> | undefined;
    await sql.begin(async (other) => {
      await other.unsafe(insert, ['a']);
      outcome = table.replace(query, [row('there', { newVersion: 8 }), row('b'), row('a')]);
      const waiting = () => other`select from pg_locks where not granted and transactionid = pg_current_xact_id()::xid`;
      while ((await waiting()).length === 0) await sleep(10);
      // Where the statement held one of these, PostgreSQL would end this transaction: a deadlock.
      await other`update ${other(name)} set updated_at = now() where sid = 'there'`;
      await other.unsafe(insert, ['b']);
    });
    assert.deepEqual(await outcome, [true, false, false]);
    const [there] = await table.read(query, [['there']]);
    assert.equal(there?.version, 8);
  });

  it('keeps `expires_by` at or after `expires_at`, by at most a tenth of the lifetime, whatever is written', async () => {
    const expiresIn = fc.oneof(
      fc.double({ min: -1e4, max: 1e7, noNaN: true }),
      fc.constantFrom(0, 1, 86_400_000, 8e15, -8e12),
    );
    const write = fc.record({ how: fc.constantFrom('replace', 'update', 'touch'), expiresIn, isKept: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(write, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 8 }),
        fc.option(fc.double({ min: 0.001, max: 1e5, noNaN: true })),
        async (writes, maxLifetime) => {
          const { table, query, sql, name } = await open(maxLifetime ?? undefined);
          const keys = Array.from({ length: 3 }, (_, n) => `s${n}`);
          await table.replace(
            query,
            keys.map((key) => row(key)),
          );
          for (const batch of writes) {
            const found = await table.read(
              query,
              keys.map((key) => [key]),
            );
            for (const how of ['replace', 'update', 'touch'] as const) {
              const rows = batch.flatMap((write, n) => {
                if (write.how !== how) return [];
                const time = how !== 'replace' && write.isKept ? null : write.expiresIn;
                const version = found[n]?.version ?? 0;
                const more = {
                  cookie: '{}',
                  newKey: `s${n}`,
                  version,
                  newVersion: version + 1,
                  cookieChanged: !write.isKept,
                };
                const expires: any = time === null ? null : Date.now() + time;
                return [{ ...row(`s${n}`), ...more, expires }];
              });
              if (rows.length > 0) await table[how](query, rows);
            }
            const wrong = await sql`
              with steps as (
                select expires_at, updated_at, expires_by,
                  date_part('epoch', expires_by - expires_at) as step, date_part('epoch', expires_at - updated_at) as life
                from ${sql(name)}
              )
              select * from steps where expires_by < expires_at or step > greatest(life / 10, 0) + 0.001`;
            assert.deepEqual([...wrong], []);
          }
          await sql`drop table ${sql(name)}`;
        },
      ),
      { numRuns: 40 },
    );
  });

  it('changes `expires_by` seldom: updates stay heap-only', async () => {
    const { table, query, sql, name } = await open();
    const day = 86_400_000;
    await table.replace(query, [row('a', { expires: Date.now() + day, newVersion: 6 })]);
    const times = () => sql`select expires_at::text, expires_by::text from ${sql(name)}`;
    const [before] = await times();
    const change = { key: 'a', cookie: '{}', cookieChanged: true };
    for (const lifetime of [day, day - 7, day + 60_000])
      await table.touch(query, [{ ...change, expires: Date.now() + lifetime }]);
    const versions = { version: 6, newVersion: 7 };
    const save = { ...change, ...versions, newKey: 'a', data: '{"n":2}', user: null, expires: Date.now() + day };
    assert.deepEqual(await table.update(query, [save]), [true]);
    const [after] = await times();
    assert.notEqual(after?.expires_at, before?.expires_at);
    assert.equal(after?.expires_by, before?.expires_by);
  });

  it('takes any `expires_at` that is written by hand', async () => {
    const { sql, name } = await open();
    for (const [n, time] of ['infinity', '-infinity', '4713-01-01 BC', '250000-01-01', 'now'].entries()) {
      await sql.unsafe(`insert into ${name} (sid, data, expires_at) values ('${n}', '{}', '${time}')`);
    }
    await sql.unsafe(`update ${name} set created_at = 'infinity', updated_at = '-infinity' where sid = '4'`);
    const [found] = await sql`select count(*)::integer from ${sql(name)}
      where expires_by >= expires_at and isfinite(expires_by) = isfinite(expires_at)`;
    assert.equal(found?.count, 5);
  });

  it('stores JSON as it is, to the byte', async () => {
    const { table, query } = await open();
    const data = fc.jsonValue().map((value) => JSON.stringify({ value, '': '\0\ud800\x1f' }));
    await fc.assert(
      fc.asyncProperty(fc.array(data, { minLength: 1, maxLength: 5 }), async (texts) => {
        await table.replace(
          query,
          texts.map((text, n) => row(`s${n}`, { data: text, cookie: text })),
        );
        const found = await table.read(
          query,
          texts.map((_, n) => [`s${n}`]),
        );
        assert.deepEqual(
          found.map((stored) => [stored?.data, stored?.cookie]),
          texts.map((text) => [text, text]),
        );
      }),
      { numRuns: 50 },
    );
  });

  it('writes arrays as PostgreSQL reads them', async () => {
    const sql = await sqlClient();
    const element = fc.option(fc.string({ unit: 'binary' }).filter((text) => !text.includes('\0')));
    await fc.assert(
      fc.asyncProperty(fc.array(element), async (values) => {
        const [read] = await sql`select to_json(${arrayLiteral(values)}::text::text[])::text as json`;
        assert.deepEqual(JSON.parse(read?.json), values);
      }),
      { numRuns: 50 },
    );
  });
});
