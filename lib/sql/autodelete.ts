/** Autodelete: deletes expired rows of all prefixes. */

import type { TableSql } from './table.js';

/**
 * Deletes a page of the rows whose `delete_after` has passed. $1 is the `delete_after` at which the last page ended, so
 * that this one does not read the dead index entries of earlier pages. Locked rows are left to the next run. A row
 * whose expiry somebody has put off by hand has not expired, and stays.
 *
 * The first row of the result contains the number of rows of the page and the last `delete_after` in it. Each further
 * row is one that was deleted.
 */
export function deleteExpiredSql({ name, isSharded }: TableSql): string {
  return `with page as (
    select s.sid, s.delete_after, s.expires_at <= now() as has_expired
    from ${name} s
    where ${isSharded ? 's.shard = $3::smallint and' : ''}
      s.delete_after >= to_timestamp($1::text::float8) and s.delete_after <= now()
    order by s.delete_after limit $2::text::integer
    for update skip locked
  ), deleted as (
    delete from ${name} s
    using page p
    where ${isSharded ? 's.shard = $3::smallint and' : ''} s.sid = p.sid and p.has_expired
    returning s.sid, s.user_id, s.expires_at > to_timestamp(0::float8) as was_session
  )
  select count(*)::text, extract(epoch from max(p.delete_after))::text, null::text from page p
  union all
  select d.sid, d.user_id, d.was_session::text from deleted d`;
}

/**
 * Corrects the `delete_after` of rows whose expiry was put off by hand, so that autodelete does not find them again. $1
 * and $2 are the limits of a page, since somebody may have changed every row of a large table.
 */
export function postponeSql({ name, isSharded }: TableSql): string {
  return `update ${name} s
    set delete_after = l.expires_at
    from (
      select s.sid, s.expires_at
      from ${name} s
      where ${isSharded ? 's.shard = $3::smallint and' : ''}
        s.delete_after >= to_timestamp($1::text::float8) and s.delete_after <= to_timestamp($2::text::float8)
        and s.expires_at > now()
      for no key update skip locked
    ) l
    where ${isSharded ? 's.shard = $3::smallint and' : ''} s.sid = l.sid`;
}
