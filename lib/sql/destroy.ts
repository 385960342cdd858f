/** `destroy`: deletes rows by their keys, or puts tombstones in their place. */

import { FEW_EXPECTED, type RowStatement } from './statement.js';
import type { TableSql } from './table.js';

const ONE_ROW = 'with i as materialized (select $1::text as sid)';
const MANY_ROWS = `with i as materialized (
    select a.sid from pg_catalog.unnest($1::text::text[]) as a (sid) ${FEW_EXPECTED}
  )`;

/**
 * A deletion locks with `for update`: `skip locked` then skips a row that a foreign key's key-share lock holds, too.
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
 * A tombstone is a row that has expired in 1970, so every statement ignores it. While it is there, the session is not
 * taken over again from the store in option `previous`. Autodelete deletes it after 400 days: no browser keeps a cookie
 * longer (RFC 6265bis).
 */
const TOMBSTONE = `data = 'null', cookie = null, cookie_expires = null, user_id = null,
    expires_at = to_timestamp(0::float8), delete_after = now() + interval '400 days'`;

/** Turns rows that are there into tombstones. */
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

/** Inserts tombstones where there is no row. */
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
