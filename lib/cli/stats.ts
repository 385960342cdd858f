/** `stats`: what is in the table. */

import type { Options } from '../options.js';
import { sessionIds } from '../session/session-id.js';
import { type BoundQuery as Query, qualified } from '../sql/query.js';
import { isSession } from '../sql/sessions-table.js';

/**
 * `top`: the users with the most unexpired sessions; `oldest`: when the oldest of those was
 * created; `bytes` with the indexes, whatever the prefix; `deadTuples` as PostgreSQL's statistics
 * have them.
 */
export async function stats(query: Query, options: Options): Promise<object> {
  const table = qualified(options);
  const range = sessionIds(options).range;
  const isLive = `${isSession()} and expires_at > now()`;
  const inRange = 'sid >= $1::text and sid < $2::text';
  const [[unexpired, expired, oldest] = []] = await query(
    `select count(*) filter (where ${isLive})::float8,
      count(*) filter (where expires_at <= now())::float8,
      to_char(min(created_at) filter (where ${isLive}) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    from ${table} where ${inRange}`,
    range,
  );
  const top = await query(
    `with users as (
      select user_id, count(*)::float8 as sessions from ${table}
      where user_id is not null and ${isLive} and ${inRange} group by user_id
    )
    select user_id, sessions, (select count(*)::float8 from users) from users order by 2 desc, 1 limit 10`,
    range,
  );
  // The tree is empty for a table without partitions.
  const [[bytes, deadTuples] = []] = await query(
    `select sum(pg_total_relation_size(relid))::float8,
      sum(pg_stat_get_dead_tuples(relid))::float8
    from (select relid from pg_partition_tree($1::text::regclass) union select $1::text::regclass) parts (relid)`,
    [table],
  );
  return {
    unexpired,
    expired,
    users: top[0]?.[2] ?? 0,
    oldest,
    bytes,
    deadTuples,
    top: top.map(([user, sessions]) => ({ user, sessions })),
  };
}
