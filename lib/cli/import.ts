/** `import`: sessions of a connect-pg-simple table become sessions of this store. */

import type { SessionData } from 'express-session';
import type { Sql } from 'postgres';
import { arrayLiteral, qualified, type TableName, type Value } from '../database/query.js';
import type { Options } from '../options.js';
import { Encryption } from '../session/encryption.js';
import { encode, seal } from '../session/session-codec.js';
import { SessionIds } from '../session/session-id.js';
import { userOf } from '../session/user.js';

export interface ImportSettings {
  readonly from: TableName;
  /** Only sessions that the old app wrote since then. */
  readonly since: Date | undefined;
  /** Seconds that the old app's sessions live whose cookie has no expiry. */
  readonly ttl: number;
  readonly dryRun: boolean;
}

const BATCH = 500;
const NOW = `select to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`;

/**
 * Copies page by page. Of the unexpired sessions of the old table (`unexpired`), `added` are new, `refreshed` were imported
 * before, changed by the old app since and not yet by the new one, and the others stay as they are.
 */
export async function importSessions(sql: Sql, options: Options, settings: ImportSettings) {
  const { from, since, dryRun } = settings;
  const target = qualified(options);
  const source = statements(qualified(from), target, settings.ttl);
  const query = (text: string, values: Value[]) => sql.unsafe(text, values, { prepare: false }).values();
  const writtenSince = since?.toISOString() ?? '-infinity';
  const toRow = encoder(options);

  const [[startedAt] = []] = await query(NOW, []);
  const [[hasTarget] = []] = await query('select to_regclass($1::text) is not null', [target]);
  const copy = dryRun ? (hasTarget ? source.compare : source.allNew) : source.copy;
  const result = { dryRun, unexpired: 0, added: 0, refreshed: 0, kept: 0, unreadable: 0, startedAt: String(startedAt) };
  for (let after = ''; ; ) {
    const page = await query(source.page, [after, writtenSince]);
    const rows = page.flatMap(([sid, sess, expires]) => {
      const row = toRow(String(sid), String(sess), String(expires));
      return row ? [row] : [];
    });
    const columns = [0, 1, 2, 3, 4].map((column) => arrayLiteral(rows.map((row) => row[column] ?? null)));
    const [[added, refreshed] = []] = await query(copy, columns);
    result.unexpired += page.length;
    result.added += Number(added);
    result.refreshed += Number(refreshed);
    result.kept += rows.length - Number(added) - Number(refreshed);
    result.unreadable += page.length - rows.length;
    if (page.length < BATCH) return result;
    after = String(page.at(-1)?.[0]);
  }
}

/** An old row's columns in the new table, or nothing where it holds no session. */
function encoder(options: Options): (sid: string, sess: string, expires: string) => Value[] | undefined {
  const ids = new SessionIds({ ...options, secrets: options.secrets });
  const [newest, ...older] = options.encryptionKeys;
  const encryption = newest === undefined ? undefined : new Encryption([newest, ...older]);
  return (sid, sess, expires) => {
    const session: unknown = JSON.parse(sess);
    if (typeof session !== 'object' || session === null || Array.isArray(session)) return undefined;
    const { data, cookie } = encode(session);
    const [key] = ids.rowKeysFor(sid);
    return [key, seal(encryption, key, data), cookie, userOf(session as SessionData, options.user), expires];
  };
}

function statements(old: string, target: string, ttl: number) {
  // connect-pg-simple keeps no time of its own; each write put the expiry off by the session's lifetime.
  const lifetime = `coalesce((sess #>> '{cookie,originalMaxAge}')::float8, ${ttl * 1000}) * interval '1 millisecond'`;
  // Its column has no time zone: it is in that of the connection, for its app and here alike.
  const isWanted = `expire > now() and ($2::text = '-infinity' or
    expire::timestamptz - ${lifetime} >= $2::text::timestamptz - interval '1 second')`;
  const input = `with i as (
    select sid, data, cookie, user_id, to_timestamp(expires::float8) as expires_at
    from unnest($1::text::text[], $2::text::text[], $3::text::text[], $4::text::text[], $5::text::text[])
      as i (sid, data, cookie, user_id, expires)
  )`;
  // The store writes `updated_at` with each save and touch, an import never: equal times mean that only imports wrote it.
  const mayRefresh = `s.updated_at = s.created_at and
    (s.data::text, s.cookie::text, s.expires_at) is distinct from (i.data, i.cookie, i.expires_at)`;
  return {
    page: `select sid, sess::text, extract(epoch from expire::timestamptz)::text from ${old}
      where sid > $1::text and ${isWanted} order by sid limit ${BATCH}`,
    allNew: `${input} select count(*)::integer, 0 from i`,
    compare: `${input} select count(*) filter (where s.sid is null)::integer,
      count(*) filter (where s.sid is not null and ${mayRefresh})::integer
      from i left join ${target} s on s.sid = i.sid`,
    copy: `${input}, locked as (
      select i.* from i join ${target} s on s.sid = i.sid where ${mayRefresh}
      for update of s skip locked
    ), refreshed as (
      update ${target} s set data = l.data::json, cookie = l.cookie::json, user_id = l.user_id,
        expires_at = l.expires_at, version = s.version % 2147483647 + 1
      from locked l where s.sid = l.sid returning s.sid
    ), added as (
      insert into ${target} (sid, data, cookie, user_id, expires_at)
      select i.sid, i.data::json, i.cookie::json, i.user_id, i.expires_at from i order by i.sid
      on conflict do nothing returning sid
    )
    select (select count(*) from added)::integer, (select count(*) from refreshed)::integer`,
  };
}
