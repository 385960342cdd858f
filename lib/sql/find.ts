/** Finds and lists rows: of a prefix, of users. */

import { LISTED_COLUMNS } from './row-text.js';
import type { TableSql } from './table.js';

/** A page of the unexpired rows of a key range, by key. */
export function pageSql({ name, isSharded, isLive }: TableSql): string {
  return `select ${LISTED_COLUMNS}${isSharded ? ', shard::text' : ''} from ${name} s
    where ${isSharded ? 's.shard = $4::smallint and' : ''}
      s.sid >= $1::text and s.sid < $2::text and ${isLive}
    order by s.sid limit $3::text::integer`;
}

export function countSql({ name, isLive }: TableSql): string {
  return `select count(*)::text from ${name} s where s.sid >= $1::text and s.sid < $2::text and ${isLive}`;
}

/** A user's unexpired rows of a key range, newest activity first. */
export function listOfUserSql({ name, isSharded, isLive }: TableSql): string {
  return `select ${LISTED_COLUMNS}${isSharded ? ', shard::text' : ''} from ${name} s
    where s.user_id = $3::text and s.sid >= $1::text and s.sid < $2::text and ${isLive}
    order by s.updated_at desc, s.sid limit $4::text::integer`;
}

/** The rows of several users in a key range, expired ones too, without their data. */
export function findOfUsersSql({ name, isSharded, isLive }: TableSql): string {
  return `select s.user_id, s.sid, extract(epoch from s.created_at)::text, extract(epoch from s.updated_at)::text,
      (not ${isLive})::text${isSharded ? ', s.shard::text' : ''}
    from ${name} s
    where s.user_id = any($3::text::text[]) and s.sid >= $1::text and s.sid < $2::text`;
}

/**
 * A page of the rows of a key range that were there at a moment, by key, without their data; no tombstones.
 *
 * A time that is still to come is that of a row which was created before the server's clock was set back. It is
 * compared with `clock_timestamp()`, not `now()`: that is the statement's start, and the statement sees what others
 * committed since.
 */
export function namesSql({ name, isSharded }: TableSql): string {
  return `select s.sid, extract(epoch from s.created_at)::text${isSharded ? ', s.shard::text' : ''} from ${name} s
    where ${isSharded ? 's.shard = $5::smallint and' : ''}
      s.sid >= $1::text and s.sid < $2::text
      and (extract(epoch from s.created_at) <= $4::text::numeric or s.created_at > clock_timestamp())
      and s.expires_at > to_timestamp(0::float8)
    order by s.sid limit $3::text::integer`;
}

export const NOW_SQL = 'select extract(epoch from now())::text';
