/** `import`: sessions of a connect-pg-simple table become sessions of this store. */

import { isRowLevelError } from '../calls/retry.js';
import { codeOf, PgStoreError } from '../errors.js';
import type { Options } from '../options.js';
import type { NewRow } from '../session/row.js';
import { RowCodec } from '../session/row-codec.js';
import { handleOf, sessionIds, validateSessionId } from '../session/session-id.js';
import { arrayLiteral, onShard, type BoundQuery as Query, qualified, type TableName } from '../sql/query.js';
import { isSession } from '../sql/sessions-table.js';

export interface ImportSettings {
  readonly from: TableName;
  /** Only sessions that the old app wrote since then. */
  readonly since: Date | undefined;
  /** Seconds that the old app's sessions live whose cookie has no expiry. */
  readonly ttl: number;
  readonly dryRun: boolean;
}

const BATCH = 500;
const COLUMNS = ['key', 'data', 'cookie', 'user', 'expires'] as const;
const NOW = `select to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`;

/** A session of the old table in the columns of the new one, as text. */
interface ImportedRow extends Pick<NewRow, 'key' | 'data' | 'cookie' | 'user'> {
  /** Those under which it may have a row, that to write first. */
  readonly keys: readonly string[];
  readonly shard: number | undefined;
  readonly expires: string;
}

/**
 * Copies page by page. Of the unexpired sessions of the old table (`unexpired`), `added` are new,
 * `refreshed` were imported before, changed by the old app since and not yet by the new one, and
 * the others stay as they are. Those that no session can be read from, or that PostgreSQL refuses,
 * are `skipped`.
 */
export async function importSessions(query: Query, options: Options, settings: ImportSettings) {
  const { from, since, dryRun } = settings;
  const target = qualified(options);
  const source = statements(qualified(from), target, settings.ttl, options.shards !== undefined);
  const writtenSince = since?.toISOString() ?? '-infinity';
  const ids = sessionIds(options);
  const codec = new RowCodec(options, () => {});

  const [[startedAt] = []] = await query(NOW, []);
  const [[isThere] = []] = await query('select to_regclass($1::text) is not null', [target]);
  // Only a dry run does without.
  const hasTarget = !dryRun || isThere;
  const skipped: { handle: string; why: string }[] = [];
  const counts = { unexpired: 0, added: 0, refreshed: 0 };

  function toRow(sid: string, sess: string, expires: string): ImportedRow[] {
    const keys = ids.rowKeysFor(sid);
    const [key] = keys;
    try {
      if (validateSessionId(sid)) throw new PgStoreError('the session ID is too long', 'INVALID_SID');
      const encoded = codec.encode(JSON.parse(sess));
      return [{ ...encoded, key, keys, shard: ids.shardOf(sid), user: codec.user(encoded), expires }];
    } catch (error) {
      // A message of JSON.parse quotes the text.
      const why = error instanceof PgStoreError ? error.message : 'no JSON that can be stored';
      skipped.push({ handle: handleOf(key), why });
      return [];
    }
  }

  /**
   * Under the key of the row that is there, also of an older secret: reads look under the newest
   * key first, and another row there would hide what the new app wrote. And with the same text as
   * is stored, where it holds the same: encrypting gives another one each time.
   */
  async function matched(rows: ImportedRow[]): Promise<ImportedRow[]> {
    if (options.encryptionKeys.length === 0 && options.secrets.length < 2) return rows;
    const found = hasTarget ? await query(source.stored, [arrayLiteral(rows.flatMap(({ keys }) => keys))]) : [];
    const stored = new Map(found as [string, string][]);
    return rows.map((row) => {
      const key = row.keys.find((one) => stored.has(one)) ?? row.key;
      const column = stored.get(key) ?? '';
      const data = holds(codec, { ...row, key }, column) ? column : codec.seal(key, row.data);
      return { ...row, key, data };
    });
  }

  /**
   * Where PostgreSQL refuses a row (a constraint of the new table, say), the others are copied all
   * the same.
   */
  async function copyAll(rows: ImportedRow[]): Promise<void> {
    const columns = COLUMNS.map((column) => arrayLiteral(rows.map((row) => row[column])));
    const onTarget = onShard(query, rows[0]?.shard);
    const count = async (text: string) => (hasTarget ? (await onTarget(text, columns)).length : 0);
    try {
      counts.added += dryRun ? rows.length - (await count(source.known)) : await count(source.add);
      counts.refreshed += await count(dryRun ? source.refreshable : source.refresh);
    } catch (error) {
      if (!isRowLevelError(error)) throw error;
      const [first] = rows;
      if (first && rows.length === 1) {
        skipped.push({ handle: handleOf(first.key), why: `PostgreSQL refused it (SQLSTATE ${codeOf(error)})` });
      } else for (const row of rows) await copyAll([row]);
    }
  }

  for (let after = '', size = BATCH; size === BATCH; ) {
    const page = await query(source.page, [after, writtenSince]);
    const rows = page.flatMap(([sid, sess, expires]) => toRow(String(sid), String(sess), String(expires)));
    const shards = new Map<number | undefined, ImportedRow[]>();
    for (const row of await matched(rows)) shards.set(row.shard, [...(shards.get(row.shard) ?? []), row]);
    for (const inShard of shards.values()) await copyAll(inShard);
    counts.unexpired += page.length;
    size = page.length;
    after = String(page.at(-1)?.[0]);
  }
  const kept = counts.unexpired - counts.added - counts.refreshed - skipped.length;
  return { dryRun, ...counts, kept, unreadable: skipped.length, skipped, startedAt: String(startedAt) };
}

function holds(codec: RowCodec, { key, data }: ImportedRow, column: string): boolean {
  try {
    return codec.open(key, column) === data;
  } catch {
    return false;
  }
}

function statements(old: string, target: string, ttl: number, isSharded: boolean) {
  // connect-pg-simple keeps no time of its own; each write put the expiry off by the session's
  // lifetime. That is read from the text: for `#>>`, one session with \u0000 in it is an error of
  // the whole statement.
  const maxAge = `substring(sess::text from '"cookie": *\\{[^{}]*"originalMaxAge": *([0-9]{1,12})')::float8`;
  const lifetime = `coalesce(${maxAge}, ${ttl * 1000}) * interval '1 millisecond'`;
  // Its column has no time zone: it is in that of the connection, for its app and here alike.
  const isWanted = `expire > now() and ($2::text = '-infinity' or
    expire::timestamptz - ${lifetime} >= $2::text::timestamptz - interval '1 second')`;
  const [first, at, shardColumn, shardValue] = isSharded
    ? [2, 's.shard = $1::smallint and ', 'shard, ', '$1::smallint, ']
    : [1, '', '', ''];
  const arrays = COLUMNS.map((_, n) => `$${first + n}::text::text[]`).join(', ');
  const input = `with i as (
    select sid, data, cookie, user_id, to_timestamp(expires::float8) as expires_at
    from unnest(${arrays}) as i (sid, data, cookie, user_id, expires)
  )`;
  const known = `i join ${target} s on ${at}s.sid = i.sid`;
  // The store writes `updated_at` with each save and touch, an import never: equal times mean that
  // only imports wrote it.
  const mayRefresh = `s.updated_at = s.created_at and ${isSession('s.')} and
    (s.data::text, s.cookie::text, s.expires_at) is distinct from (i.data, i.cookie, i.expires_at)`;
  return {
    page: `select sid, sess::text, extract(epoch from expire::timestamptz)::text from ${old}
      where sid > $1::text and ${isWanted} order by sid limit ${BATCH}`,
    stored: `select sid, data::text from ${target} where sid = any($1::text::text[])`,
    known: `${input} select s.sid from ${known}`,
    refreshable: `${input} select s.sid from ${known} where ${mayRefresh}`,
    add: `${input} insert into ${target} (${shardColumn}sid, data, cookie, user_id, expires_at)
      select ${shardValue}i.sid, i.data::json, i.cookie::json, i.user_id, i.expires_at from i order by i.sid
      on conflict do nothing returning sid`,
    refresh: `${input}, locked as (select i.* from ${known} where ${mayRefresh} for update of s skip locked)
      update ${target} s set data = l.data::json, cookie = l.cookie::json, user_id = l.user_id,
        expires_at = l.expires_at, version = s.version % 2147483647 + 1
      from locked l where ${at}s.sid = l.sid returning s.sid`,
  };
}
