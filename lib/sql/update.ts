/** `set` of a session that was loaded: changes its row, if it still has the version on which the change is based. */

import type { ChangedRow } from '../session/row.js';
import { FEW_EXPECTED, type RowStatement, SEPARATOR_SQL } from './statement.js';
import { NEXT_DELETE_AFTER, type TableSql } from './table.js';

const ONE_ROW = `with i as materialized (
    select $1::text as sid, $2::text as new_sid, $3::text::integer as version, $4::text::integer as new_version,
      $5::text as data, nullif($6::text, '') as cookie,
      nullif($7::text::float8, 'NaN'::float8) as cookie_expires,
      case when $8::text::boolean then $9::text end as user_id,
      $10::text::boolean as moves_expiry, $11::text::float8 as expires_in
  )`;
const MANY_ROWS = `with i as materialized (
    select a.sid, a.new_sid, a.version, a.new_version, a.data, a.cookie,
      nullif(a.cookie_expires, 'NaN'::float8) as cookie_expires,
      case when a.has_user then a.user_id end as user_id,
      a.moves_expiry, a.expires_in
    from rows from (
      pg_catalog.unnest($1::text::text[]),
      pg_catalog.unnest($2::text::text[]),
      pg_catalog.unnest($3::text::integer[]),
      pg_catalog.unnest($4::text::integer[]),
      pg_catalog.unnest(pg_catalog.string_to_array($5::text, ${SEPARATOR_SQL})),
      pg_catalog.unnest(pg_catalog.string_to_array($6::text, ${SEPARATOR_SQL}, '')),
      pg_catalog.unnest($7::text::float8[]),
      pg_catalog.unnest($8::text::boolean[]),
      pg_catalog.unnest($9::text::text[]),
      pg_catalog.unnest($10::text::boolean[]),
      pg_catalog.unnest($11::text::float8[])
    ) as a (sid, new_sid, version, new_version, data, cookie, cookie_expires, has_user, user_id, moves_expiry, expires_in)
    ${FEW_EXPECTED}
  )`;

/**
 * Changes rows whose key stays. Returns the versions too: two changes of one row may share a batch, and only one of
 * them is done.
 *
 * The rows are locked with `for no key update`, so that a foreign key of the app's which references the table, and
 * takes a key-share lock, holds up nothing. A locked row is skipped: no statement waits for it. The version is compared
 * outside of the subselect too, on the row as it is by then.
 */
export function updateStatement(table: TableSql): RowStatement<ChangedRow> {
  const body = changeSql(table, 'no key update');
  return { one: ONE_ROW + body, many: MANY_ROWS + body, values: changedRowValues, json: [4, 5] };
}

/**
 * Changes a row and moves it to another key, after a rotation of `secret`. A change of the key conflicts with key-share
 * locks, so the row is locked with `for update`: with `for no key update`, a row that only a key-share lock holds would
 * not be skipped, and the statement would wait. It also waits if another transaction has just inserted the new key, so
 * it never shares a statement with other rows.
 */
export function moveStatement(table: TableSql): RowStatement<ChangedRow> {
  const body = changeSql(table, 'update');
  return { one: ONE_ROW + body, many: MANY_ROWS + body, values: changedRowValues, json: [4, 5] };
}

/** @param lock the kind of row lock, `update` or `no key update`; only with `update` the key may change */
function changeSql({ name, isSharded, isLive, newExpiry }: TableSql, lock: string): string {
  return `
  update ${name} s
  set ${lock === 'update' ? 'sid = l.new_sid,' : ''}
    data = l.data, cookie = l.cookie, cookie_expires = l.cookie_expires, user_id = l.user_id,
    version = l.new_version, updated_at = now(), expires_at = l.expires_at, delete_after = l.delete_after
  from (
    select i.sid, i.new_sid, i.version, i.new_version, i.data::json as data, i.cookie::json as cookie, i.user_id,
      case when i.moves_expiry then i.cookie_expires else s.cookie_expires end as cookie_expires,
      e.expires_at,
      case when not i.moves_expiry then s.delete_after else
        ${NEXT_DELETE_AFTER}
      end as delete_after
    from i
    join ${name} s on ${isSharded ? 's.shard = $12::smallint and' : ''} s.sid = i.sid
    cross join lateral (
      select case when i.moves_expiry then ${newExpiry} else s.expires_at end as expires_at
    ) e
    where s.version = i.version and ${isLive}
    for ${lock} of s skip locked
  ) l
  where ${isSharded ? 's.shard = $12::smallint and' : ''} s.sid = l.sid and s.version = l.version
  returning l.new_sid, l.new_version::text`;
}

function changedRowValues(row: ChangedRow): readonly string[] {
  return [
    row.oldKey,
    row.key,
    String(row.oldVersion),
    String(row.version),
    row.data,
    row.cookie ?? '',
    String(row.cookieExpires ?? Number.NaN),
    String(row.user !== null),
    row.user ?? '',
    String(row.movesExpiry),
    String(row.expires - Date.now()),
  ];
}
