/** `stats`: what is in the table. */

import type { Sql } from 'postgres';
import { qualified } from '../database/query.js';
import { isSession } from '../database/sessions-table.js';
import type { Options } from '../options.js';
import { SessionIds } from '../session/session-id.js';

/**
 * `top`: the users with the most unexpired sessions; `oldest`: when the oldest of those was created; `bytes` with the
 * indexes, whatever the prefix; `deadTuples` as PostgreSQL's statistics have them.
 */
export async function stats(sql: Sql, options: Options): Promise<object> {
  const table = qualified(options);
  const range = new SessionIds(options).range;
  const query = (text: string, values: string[]) => sql.unsafe(text, values, { prepare: false });
  const isLive = `${isSession()} and expires_at > now()`;
  const inRange = 'sid >= $1::text and sid < $2::text';
  const [counts] = await query(
    `select count(*) filter (where ${isLive})::float8 as unexpired,
      count(*) filter (where expires_at <= now())::float8 as expired,
      count(distinct user_id) filter (where ${isLive})::float8 as users,
      to_char(min(created_at) filter (where ${isLive}) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as oldest
    from ${table} where ${inRange}`,
    range,
  );
  const top = await query(
    `select user_id as user, count(*)::float8 as sessions from ${table}
    where user_id is not null and ${isLive} and ${inRange}
    group by user_id order by sessions desc, user_id limit 10`,
    range,
  );
  // The tree is empty for a table without partitions.
  const [size] = await query(
    `select sum(pg_total_relation_size(relid))::float8 as bytes,
      sum(pg_stat_get_dead_tuples(relid))::float8 as "deadTuples"
    from (select relid from pg_partition_tree($1::text::regclass) union select $1::text::regclass) parts (relid)`,
    [table],
  );
  return { ...counts, ...size, top: [...top] };
}
