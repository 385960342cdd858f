/** The command `stats`: counts what is in the table. */

import type { Options } from '../options.js';
import { SessionIds } from '../session/session-id.js';
import { type BoundQuery, qualified } from '../sql/query.js';

/** The output of `stats`. The values are those that PostgreSQL returns, and are printed as they are. */
export interface Stats {
  /** The number of unexpired sessions. */
  readonly unexpired: unknown;
  /** The number of expired sessions that autodelete has not deleted yet. */
  readonly expired: unknown;
  /** How many users have unexpired sessions. */
  readonly users: unknown;
  /** When the oldest unexpired session was created, in UTC (ISO 8601). */
  readonly oldest: unknown;
  /** The size of the table with its indexes, including the rows of other prefixes. */
  readonly bytes: unknown;
  /** The number of dead tuples in PostgreSQL's cumulative statistics. */
  readonly deadTuples: unknown;
  /** The users with the most unexpired sessions. */
  readonly top: readonly { readonly user: unknown; readonly sessions: unknown }[];
}

/**
 * Reads the whole table. Tombstones, which expired in 1970, count neither as expired nor as unexpired sessions.
 *
 * An administrator runs this, perhaps in a database where others may create functions. Every argument has exactly the
 * type that PostgreSQL's own function takes, so that no function of the same name in the search path is a better match
 * (CVE-2018-1058).
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
  // pg_partition_tree returns no rows for a table without partitions, so the table itself is added.
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
