/**
 * A table of an earlier release keeps working, and today's table for processes that still run that
 * release.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { Sql } from 'postgres';
import { createTableSql } from '../../lib/sql/schema.js';
import { inFreshSchema, openStore } from '../support/postgres.js';
import { type KeptRow, RELEASES, UNRELEASED } from '../support/release.js';
import { data, loaded } from '../support/sessions.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

describe('upgrade', () => {
  const insert = async (sql: Sql, schema: string, { row }: KeptRow) => {
    await sql`insert into ${sql(schema)}.sessions
      (sid, data, cookie, cookie_expires, user_id, version, expires_at, delete_after) values
      (${row.sid}, ${row.data}::text::json, ${row.cookie}::text::json, ${row.cookie_expires}, ${row.user_id}, ${row.version},
        now() + interval '1 minute', now() + interval '66 seconds')`;
  };

  it('knows each release', () => {
    const changelog = fs.readFileSync(path.join(ROOT, 'CHANGELOG.md'), 'utf8');
    const released = [...changelog.matchAll(/^## \[(\d+\.\d+\.\d+)\]/gm)].map(([, version]) => version);
    assert.deepEqual(fs.readdirSync(RELEASES).sort(), [...released, UNRELEASED].sort());
  });

  for (const release of fs.readdirSync(RELEASES)) {
    const kept: KeptRow[] = JSON.parse(fs.readFileSync(path.join(RELEASES, release, 'rows.json'), 'utf8'));
    const schemaSql = fs.readFileSync(path.join(RELEASES, release, 'schema.sql'), 'utf8');

    for (const old of kept) {
      it(`from ${release}: its table and its row work on, with ${JSON.stringify(Object.keys(old.options))}`, () =>
        inFreshSchema(async (schema, sql) => {
          await sql.unsafe(schemaSql.replaceAll('public.', `${schema}.`));
          await insert(sql, schema, old);
          const store = await openStore({ ...old.options, schema, table: 'sessions', touchAfter: 0 });

          assert.deepEqual(await data(store, old.sid), old.session);
          assert.equal(await store.length(), 1);
          assert.equal((await store.sessionsOf('ann')).length, 1);

          const [one, two] = [await loaded(store, old.sid), await loaded(store, old.sid)];
          one.one = 1;
          two.nested.two = 2;
          await Promise.all([store.set(old.sid, one), store.set(old.sid, two)]);
          await store.touch(old.sid, await loaded(store, old.sid));
          const nested = { ...(old.session.nested as object), two: 2 };
          assert.deepEqual(await data(store, old.sid), { ...old.session, nested, one: 1 });

          await store.destroy(old.sid);
          assert.equal(await store.get(old.sid), null);
          assert.equal((await sql`select from ${sql(schema)}.sessions`).length, 0);
        }));
    }

    it(`to ${release}: today's table takes the rows that it writes`, () =>
      inFreshSchema(async (schema, sql) => {
        await sql.unsafe(createTableSql({ schema, table: 'sessions' }));
        for (const old of kept) await insert(sql, schema, old);
        assert.equal((await sql`select from ${sql(schema)}.sessions`).length, kept.length);
      }));
  }
});
