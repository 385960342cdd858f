/** `stats`: what is in the table. */

import type { Options } from '../options.js';
import { SessionIds } from '../session/session-id.js';
import { type BoundQuery, qualified } from '../sql/query.js';

/** The output of `stats`. */
export interface Stats {
  readonly unexpired: unknown;
  readonly expired: unknown;
  /** How many users have unexpired sessions. */
  readonly users: unknown;
  /** When the oldest unexpired session was created. */
  readonly oldest: unknown;
  /** Of the table and its indexes, whatever the prefix. */
  readonly bytes: unknown;
  /** As PostgreSQL's statistics have them. */
  readonly deadTuples: unknown;
  /** The users with the most unexpired sessions. */
  readonly top: readonly { readonly user: unknown; readonly sessions: unknown }[];
}

/**
 * Reads the whole table. Tombstones are neither expired nor unexpired sessions.
 *
 * Every type matches exactly, so that nothing which others have put into a schema of the search path is a better match:
 * an administrator runs this (CVE-2018-1058).
 */
export async function stats(query: BoundQuery, options: Options): Promise<Stats> {
  const table = qualified(options);
  const range = [...new SessionIds(options).range];
  const [[unexpired, expired, oldest] = []] = await query(
    `select count(*) filter (where expires_at > now())::float8,
      count(*) filter (where expires_at <= now() and expires_at > to_timestamp(0::float8))::float8,
      to_char(
        pg_catalog.timezone('UTC'::text, min(created_at) filter (where expires_at > now())),
        'YYYY-MM-DD"T"HH24:MI:SS"Z"'::text
      )
    from ${table} where sid >= $1::text and sid < $2::text`,
    range,
  );
  const top = await query(
    `with users as (
      select user_id, count(*)::float8 as sessions
      from ${table}
      where user_id is not null and expires_at > now() and sid >= $1::text and sid < $2::text
      group by user_id
    )
    select user_id, sessions, (select count(*)::float8 from users) from users order by 2 desc, 1 limit 10`,
    range,
  );
  // The tree is empty for a table without partitions.
  const [[bytes, deadTuples] = []] = await query(
    `select sum(pg_catalog.pg_total_relation_size(part.relid))::float8,
      sum(pg_catalog.pg_stat_get_dead_tuples(part.relid::oid))::float8
    from (
      select relid from pg_catalog.pg_partition_tree($1::text::regclass)
      union
      select $1::text::regclass
    ) as part (relid)`,
    [table],
  );
  return {
    unexpired,
    expired,
    users: top.at(0)?.[2] ?? 0,
    oldest,
    bytes,
    deadTuples,
    top: top.map(([user, sessions]) => ({ user, sessions })),
  };
}
