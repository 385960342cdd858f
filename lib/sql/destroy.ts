/** `destroy`: deletes rows by their keys, or puts tombstones in their place. */

import { FEW_EXPECTED, type RowStatement } from './statement.js';
import type { TableSql } from './table.js';

const ONE_ROW = 'with i as materialized (select $1::text as sid)';
const MANY_ROWS = `with i as materialized (
    select a.sid from pg_catalog.unnest($1::text::text[]) as a (sid) ${FEW_EXPECTED}
  )`;

/**
 * Deletes rows. They are locked with `for update`, so that `skip locked` also skips a row on which another table's
 * foreign key holds a key-share lock. The deletion would otherwise wait for that lock.
 */
export function destroyStatement({ name, isSharded }: TableSql): RowStatement<string> {
  const body = `
  delete from ${name} s
  using (
    select s.sid
    from i
    join ${name} s on ${isSharded ? 's.shard = $2::smallint and' : ''} s.sid = i.sid
    for update of s skip locked
  ) l
  where ${isSharded ? 's.shard = $2::smallint and' : ''} s.sid = l.sid
  returning s.sid`;
  return { one: ONE_ROW + body, many: MANY_ROWS + body, values: (key) => [key], json: [] };
}

/**
 * A tombstone is a row that expired in 1970, so every statement ignores it. While it exists, its session is not taken
 * over again from the store in option `previous`. Autodelete deletes it after 400 days, the longest time for which
 * browsers keep a cookie (RFC 6265bis).
 */
const TOMBSTONE = `data = 'null', cookie = null, cookie_expires = null, user_id = null,
    expires_at = to_timestamp(0::float8), delete_after = now() + interval '400 days'`;

/** Turns existing rows into tombstones. */
export function buryStatement({ name, isSharded }: TableSql): RowStatement<string> {
  const body = `
  update ${name} s
  set ${TOMBSTONE}
  from (
    select s.sid
    from i
    join ${name} s on ${isSharded ? 's.shard = $2::smallint and' : ''} s.sid = i.sid
    for no key update of s skip locked
  ) l
  where ${isSharded ? 's.shard = $2::smallint and' : ''} s.sid = l.sid
  returning s.sid`;
  return { one: ONE_ROW + body, many: MANY_ROWS + body, values: (key) => [key], json: [] };
}

/** Inserts tombstones for keys that have no row. */
export function buryAbsentStatement({ name, isSharded }: TableSql): RowStatement<string> {
  const body = `
  insert into ${name} as s (${isSharded ? 'shard,' : ''} sid, data, expires_at, delete_after)
  select ${isSharded ? '$2::smallint,' : ''}
    i.sid, 'null'::json, to_timestamp(0::float8), now() + interval '400 days'
  from i
  order by i.sid
  on conflict do nothing
  returning s.sid`;
  return { one: ONE_ROW + body, many: MANY_ROWS + body, values: (key) => [key], json: [] };
}
