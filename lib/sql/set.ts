/** `set` of a session that was not loaded: inserts its row, or replaces the existing one. */

import type { NewRow } from '../session/row.js';
import { FEW_EXPECTED, type RowStatement, SEPARATOR_SQL } from './statement.js';
import { FIRST_DELETE_AFTER, NEXT_DELETE_AFTER, type TableSql } from './table.js';

/** The input rows `i` of the statements in this file, in the form for one row and in the form for many. */
const ONE_ROW = `with i as materialized (
    select $1::text as sid, $2::text as data, nullif($3::text, '') as cookie,
      nullif($4::text::float8, 'NaN'::float8) as cookie_expires,
      case when $5::text::boolean then $6::text end as user_id, $7::text::integer as version,
      $8::text::float8 as expires_in
  )`;
const MANY_ROWS = `with i as materialized (
    select a.sid, a.data, a.cookie, nullif(a.cookie_expires, 'NaN'::float8) as cookie_expires,
      case when a.has_user then a.user_id end as user_id, a.version, a.expires_in
    from rows from (
      pg_catalog.unnest($1::text::text[]),
      pg_catalog.unnest(pg_catalog.string_to_array($2::text, ${SEPARATOR_SQL})),
      pg_catalog.unnest(pg_catalog.string_to_array($3::text, ${SEPARATOR_SQL}, '')),
      pg_catalog.unnest($4::text::float8[]),
      pg_catalog.unnest($5::text::boolean[]),
      pg_catalog.unnest($6::text::text[]),
      pg_catalog.unnest($7::text::integer[]),
      pg_catalog.unnest($8::text::float8[])
    ) as a (sid, data, cookie, cookie_expires, has_user, user_id, version, expires_in)
    ${FEW_EXPECTED}
  )`;

function newRowValues(row: NewRow): readonly string[] {
  return [
    row.key,
    row.data,
    row.cookie ?? '',
    String(row.cookieExpires ?? Number.NaN),
    String(row.user !== null),
    row.user ?? '',
    String(row.version),
    // The milliseconds that are left when the statement is sent, so the time for which the call has waited counts.
    String(row.expires - Date.now()),
  ];
}

/**
 * The part that inserts. It waits if another transaction has just inserted the same key. It inserts in the order of the
 * keys, so while it waits it has inserted only smaller ones, and no two statements can wait for each other.
 */
function insertSql({ name, isSharded, firstExpiry }: TableSql): string {
  return `insert into ${name} as s
      (${isSharded ? 'shard,' : ''}
       sid, data, cookie, cookie_expires, user_id, version, expires_at, delete_after)
    select
      ${isSharded ? '$9::smallint,' : ''}
      i.sid, i.data::json, i.cookie::json, i.cookie_expires, i.user_id, i.version, e.expires_at,
      ${FIRST_DELETE_AFTER}
    from i
    cross join lateral (select ${firstExpiry} as expires_at) e
    where not exists (
      select from ${name} s
      where ${isSharded ? 's.shard = $9::smallint and' : ''} s.sid = i.sid
    )
    order by i.sid
    on conflict do nothing
    returning s.sid`;
}

/** The part that replaces existing rows. A session that replaces an expired row is a new one, and is created now. */
function replaceSql({ name, isSharded, isLive, firstExpiry, newExpiry }: TableSql, condition = ''): string {
  return `update ${name} s
    set data = l.data, cookie = l.cookie, cookie_expires = l.cookie_expires, user_id = l.user_id,
      version = l.version, created_at = l.created_at, updated_at = now(),
      expires_at = l.expires_at, delete_after = l.delete_after
    from (
      select i.sid, i.data::json as data, i.cookie::json as cookie, i.cookie_expires, i.user_id, i.version,
        case when ${isLive} then s.created_at else now() end as created_at,
        e.expires_at,
        ${NEXT_DELETE_AFTER} as delete_after
      from i
      join ${name} s on ${isSharded ? 's.shard = $9::smallint and' : ''} s.sid = i.sid
      cross join lateral (
        select case when ${isLive} then ${newExpiry} else ${firstExpiry} end as expires_at
      ) e
      ${condition}
      for no key update of s skip locked
    ) l
    where ${isSharded ? 's.shard = $9::smallint and' : ''} s.sid = l.sid
    returning s.sid`;
}

/** Inserts rows, except for keys that have a row. */
export function insertStatement(table: TableSql): RowStatement<NewRow> {
  const insert = insertSql(table);
  return { one: `${ONE_ROW} ${insert}`, many: `${MANY_ROWS} ${insert}`, values: newRowValues, json: [1, 2] };
}

/**
 * Replaces existing rows. Only stores with shards use it, because Citus does not support a statement that both inserts
 * and updates.
 */
export function replaceStatement(table: TableSql): RowStatement<NewRow> {
  const replace = replaceSql(table);
  return { one: `${ONE_ROW} ${replace}`, many: `${MANY_ROWS} ${replace}`, values: newRowValues, json: [1, 2] };
}

/**
 * Inserts rows, or replaces existing ones, in one statement.
 *
 * It inserts before it locks any row, so while an insert waits (see `insertSql`), the statement has locked nothing, and
 * a deadlock is impossible. PostgreSQL orders two statements in `with` only if one reads the other's rows, so the
 * second one has a condition that counts the rows of the first.
 */
export function setStatement(table: TableSql): RowStatement<NewRow> {
  const body = `, inserted as (
    ${insertSql(table)}
  ), replaced as (
    ${replaceSql(table, 'where (select count(*) from inserted) >= 0')}
  )
  select sid from inserted union all select sid from replaced`;
  return { one: ONE_ROW + body, many: MANY_ROWS + body, values: newRowValues, json: [1, 2] };
}
