/** Finds and lists the rows of a prefix, or of users. */

import { LISTED_COLUMNS } from './row-text.js';
import type { TableSql } from './table.js';

/** A page of the unexpired rows of a key range, in the order of their keys. */
export function pageSql({ name, isSharded, isLive }: TableSql): string {
  return `select ${LISTED_COLUMNS}${isSharded ? ', shard::text' : ''} from ${name} s
    where ${isSharded ? 's.shard = $4::smallint and' : ''}
      s.sid >= $1::text and s.sid < $2::text and ${isLive}
    order by s.sid limit $3::text::integer`;
}

export function countSql({ name, isLive }: TableSql): string {
  return `select count(*)::text from ${name} s where s.sid >= $1::text and s.sid < $2::text and ${isLive}`;
}

/** A user's unexpired rows of a key range, the most recently active first. */
export function listOfUserSql({ name, isSharded, isLive }: TableSql): string {
  return `select ${LISTED_COLUMNS}${isSharded ? ', shard::text' : ''} from ${name} s
    where s.user_id = $3::text and s.sid >= $1::text and s.sid < $2::text and ${isLive}
    order by s.updated_at desc, s.sid limit $4::text::integer`;
}

/** The rows of several users in a key range, including expired ones, without their data. */
export function findOfUsersSql({ name, isSharded, isLive }: TableSql): string {
  return `select s.user_id, s.sid, extract(epoch from s.created_at)::text, extract(epoch from s.updated_at)::text,
      (not ${isLive})::text${isSharded ? ', s.shard::text' : ''}
    from ${name} s
    where s.user_id = any($3::text::text[]) and s.sid >= $1::text and s.sid < $2::text`;
}

/**
 * A page of the rows of a key range that existed at a moment ($4), in the order of their keys, without data and without
 * tombstones.
 *
 * A row whose time of creation is in the future was created before the server's clock was set back, so it existed, too.
 * The time is compared with `clock_timestamp()`. `now()` is the start of the transaction, and the statement may see
 * rows that others have committed since then.
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
