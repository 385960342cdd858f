/** `touch`: puts off a row's expiry. */

import type { TouchedRow } from '../session/row.js';
import { FEW_EXPECTED, type RowStatement, SEPARATOR_SQL } from './statement.js';
import { NEXT_DELETE_AFTER, type TableSql } from './table.js';

const ONE_ROW = `with i as materialized (
    select $1::text as sid, nullif($2::text, '') as cookie,
      nullif($3::text::float8, 'NaN'::float8) as cookie_expires, $4::text::integer as version,
      $5::text::boolean as overwrites_cookie, $6::text::float8 as expires_in
  )`;
const MANY_ROWS = `with i as materialized (
    select a.sid, a.cookie, nullif(a.cookie_expires, 'NaN'::float8) as cookie_expires, a.version, a.overwrites_cookie,
      a.expires_in
    from rows from (
      pg_catalog.unnest($1::text::text[]),
      pg_catalog.unnest(pg_catalog.string_to_array($2::text, ${SEPARATOR_SQL}, '')),
      pg_catalog.unnest($3::text::float8[]),
      pg_catalog.unnest($4::text::integer[]),
      pg_catalog.unnest($5::text::boolean[]),
      pg_catalog.unnest($6::text::float8[])
    ) as a (sid, cookie, cookie_expires, version, overwrites_cookie, expires_in)
    ${FEW_EXPECTED}
  )`;

/**
 * Touches rows. A row whose cookie another request has changed meanwhile is not touched, unless the touch overwrites
 * cookies. Such a touch gives the row a new version, so that a save which is based on the old cookie is merged with it.
 */
export function touchStatement({ name, isSharded, isLive, newExpiry }: TableSql): RowStatement<TouchedRow> {
  const body = `
  update ${name} s
  set cookie = l.cookie, cookie_expires = l.cookie_expires, version = l.version, updated_at = now(),
    expires_at = l.expires_at, delete_after = l.delete_after
  from (
    select i.sid, i.cookie::json as cookie, i.cookie_expires,
      case when i.overwrites_cookie then i.version else s.version end as version,
      e.expires_at,
      ${NEXT_DELETE_AFTER} as delete_after
    from i
    join ${name} s on ${isSharded ? 's.shard = $7::smallint and' : ''} s.sid = i.sid
    cross join lateral (select ${newExpiry} as expires_at) e
    where (i.overwrites_cookie or s.cookie::text is not distinct from i.cookie) and ${isLive}
    for no key update of s skip locked
  ) l
  where ${isSharded ? 's.shard = $7::smallint and' : ''} s.sid = l.sid
  returning s.sid`;
  return { one: ONE_ROW + body, many: MANY_ROWS + body, values: touchedRowValues, json: [1] };
}

function touchedRowValues(row: TouchedRow): readonly string[] {
  return [
    row.key,
    row.cookie ?? '',
    String(row.cookieExpires ?? Number.NaN),
    String(row.version),
    String(row.overwritesCookie),
    String(row.expires - Date.now()),
  ];
}
