/** The SQL for single sessions: one method, one statement. Knows no Express. */

import { codeOf } from '../errors.js';
import {
  type ChangedRow,
  CLOCKS_AGREE_MS,
  type NewRow,
  type StoredRow,
  TOMBSTONE,
  type TouchedRow,
} from '../session/row.js';
import { arrayLiteral, type BoundQuery as Query, qualified, type Row, type TableName, type Value } from './query.js';
import { run, SEPARATOR, SEPARATOR_SQL, type StatementForms, scalarsOf, statement } from './statement-forms.js';

/**
 * The statements on one table, their texts built once. Types match exactly and `unnest` has its
 * schema, so that nothing which others put into a schema of the search path is a better match
 * (CVE-2018-1058).
 *
 * A write takes its rows with `for update skip locked` and joins on what it got, so no statement
 * ever waits for a locked row. An insert alone waits, for a transaction that has just written the
 * same key: of the store's, none stays open. A statement inserts by key, and before it locks
 * anything: while it waits it holds only smaller keys, so none can be part of a deadlock
 * (PostgreSQL: Explicit Locking). A write joins by `sid`: a `ctid` repeats across partitions, and
 * gains nothing. Each statement has a form for one row, which plans and runs faster, and one for
 * many.
 */
export class SessionsTable {
  readonly #read: StatementForms;
  readonly #replace: StatementForms;
  readonly #update: StatementForms;
  readonly #touch: StatementForms;
  readonly #destroy: StatementForms;
  readonly #insert: StatementForms;
  readonly #isSharded: boolean;

  /** @param maxLifetime seconds */
  constructor(name: TableName, maxLifetime?: number) {
    const table = qualified(name);
    this.#isSharded = name.shards !== undefined;
    const [first, at, shardColumn, shardValue] = this.#isSharded
      ? [2, (alias: string) => `${alias}shard = $1::smallint and `, 'shard, ', '$1::smallint, ']
      : [1, () => '', '', ''];
    const life = lifeInterval(maxLifetime);
    const apart = `abs(${milliseconds('now()')} + i.expires_in - i.expires)`;
    // No `case`: Citus takes only immutable functions in that of an insert or update, as what
    // depends on the clock is not.
    const due = `(array[to_timestamp(i.expires / 1000::float8), now() + i.expires_in * interval '1 millisecond'])
      [1 + (${apart} > least(${CLOCKS_AGREE_MS}::float8, i.expires_in / 10::float8))::integer]`;
    const newExpiry = (created: string) =>
      life ? `least(${due}, ${created} + case when ${isSession('i.')} then ${life} end)` : due;
    const locked = (input: string, more = '', where = '') => `${input}, locked as (
    select i.*${more} from i join ${table} s on ${at('s.')}s.sid = i.sid ${where} for update of s skip locked
  )`;
    const keepsCookie = 'not i.cookie_changed and s.cookie::text is distinct from i.cookie';
    const newCookieAndExpiry = `, case when ${keepsCookie} then s.cookie else i.cookie::json end as new_cookie,
      case when i.expires is null or ${keepsCookie} then s.expires_at
        else ${life ? `least(${due}, s.created_at + ${life})` : due} end as expires_at`;
    const cookieAndExpiry = 'cookie = i.new_cookie, expires_at = i.expires_at, updated_at = now()';
    const end = life ? `least(s.expires_at, s.created_at + ${life})` : 's.expires_at';
    // An expired session is destroyed for every call, whether its row is still there or not.
    const isLive = `${end} > now() and ${isSession('s.')}`;

    const column = storedColumn(life);
    this.#read = {
      one: `select ${column} from ${table} where ${at('')}sid = $${first}::text`,
      many: `select ${column} from ${table} where ${at('')}sid = any($${first}::text::text[])`,
    };

    // What takes an expired row's place is a new session.
    const created = `case when ${isLive} then s.created_at else now() end`;
    const newRow = {
      sid: 'text',
      data: 'json',
      cookie: 'json',
      user_id: 'text',
      version: 'integer',
      ...expiryColumns,
    };
    const into = `insert into ${table} as s (${shardColumn}sid, data, cookie, user_id, version, expires_at)`;
    const values = `${shardValue}i.sid, i.data::json, i.cookie::json, i.user_id, i.version, ${newExpiry('now()')}`;
    const unlessThere = 'on conflict do nothing returning s.sid';
    const insert = `${into}
    select ${values}
    from i where not exists (select from ${table} s where ${at('s.')}s.sid = i.sid)
    order by i.sid
    ${unlessThere}`;
    const replace = `update ${table} s
    set data = i.data::json, cookie = i.cookie::json, user_id = i.user_id, version = i.version,
      created_at = i.created_at, updated_at = now(), expires_at = i.expires_at
    from locked i where ${at('s.')}s.sid = i.sid
    returning s.sid`;
    const inserting = statement(newRow, first, (input) => `${input} ${insert}`);
    // Citus routes `values` to the shard as they are, the result of a `select` by way of the
    // coordinator.
    const scalars = scalarsOf(newRow, first);
    const one = `${into} values (${values.replace(/\bi\.(\w+)/g, (_, column) => `(${scalars[column]})`)}) ${unlessThere}`;
    this.#insert = this.#isSharded ? { ...inserting, one } : inserting;
    const newTimes = `, ${created} as created_at, ${newExpiry(created)} as expires_at`;
    // Of statements in `with`, only one that reads another's rows surely runs after it.
    const afterInserts = 'where (select count(*) from inserted) >= 0';
    // Citus runs no statement that both updates and inserts.
    this.#replace = statement(newRow, first, (input) =>
      this.#isSharded
        ? `${locked(input, newTimes)} ${replace}`
        : `${locked(`${input}, inserted as (${insert})`, newTimes, afterInserts)}, replaced as (${replace})
  select * from inserted union all select * from replaced`,
    );

    this.#update = statement(
      {
        sid: 'text',
        new_sid: 'text',
        version: 'integer',
        new_version: 'integer',
        data: 'json',
        user_id: 'text',
        cookie: 'json',
        cookie_changed: 'boolean',
        ...expiryColumns,
      },
      first,
      (input) => `${locked(input, newCookieAndExpiry, `where ${isLive}`)}
  update ${table} s
  set sid = i.new_sid, data = i.data::json, user_id = i.user_id, version = i.new_version, ${cookieAndExpiry}
  from locked i where ${at('s.')}s.sid = i.sid and s.version = i.version
  returning i.sid`,
    );

    this.#touch = statement(
      { sid: 'text', cookie: 'json', cookie_changed: 'boolean', ...expiryColumns },
      first,
      (input) => `${locked(input, newCookieAndExpiry, `where ${isLive}`)}
  update ${table} s set ${cookieAndExpiry}
  from locked i where ${at('s.')}s.sid = i.sid
  returning s.sid`,
    );

    this.#destroy = statement(
      { sid: 'text' },
      first,
      (input) => `${locked(input)}
  delete from ${table} s using locked i where ${at('s.')}s.sid = i.sid
  returning s.sid`,
    );
  }

  /**
   * Each session's row under the first of its keys that has one; expired rows too, as long as they
   * are there. One statement sees one moment: a row that moves from key to key meanwhile is not
   * missed.
   */
  async read(query: Query, sessions: readonly (readonly string[])[]): Promise<(StoredRow | undefined)[]> {
    const keys = sessions.flat();
    if (keys.length === 1) {
      const [row] = await query(this.#read.one, keys);
      return [row && storedRow(row)];
    }
    const found = new Map<string | undefined, StoredRow>();
    for (const row of await query(this.#read.many, [arrayLiteral([...new Set(keys)])])) {
      const stored = storedRow(row);
      found.set(stored.key, stored);
    }
    return sessions.map((own) => found.get(own.find((key) => found.has(key))));
  }

  async replace(query: Query, rows: NewRow[]): Promise<boolean[]> {
    if (!this.#isSharded) return run(query, this.#replace, rows, newRowValues);
    const inserted = await this.insert(query, rows);
    const others = rows.filter((_, n) => !inserted[n]);
    const replaced = others.length > 0 ? await run(query, this.#replace, others, newRowValues) : [];
    return inserted.map((isInserted) => isInserted || replaced.shift() === true);
  }

  insert(query: Query, rows: NewRow[]): Promise<boolean[]> {
    return run(query, this.#insert, rows, newRowValues);
  }

  async update(query: Query, rows: ChangedRow[]): Promise<boolean[]> {
    const valuesOf = (row: ChangedRow) => [
      row.key,
      row.newKey,
      String(row.version),
      String(row.newVersion),
      row.data,
      row.user,
      row.cookie,
      String(row.cookieChanged),
      ...expiryValues(row.expires),
    ];
    try {
      return await run(query, this.#update, rows, valuesOf);
    } catch (error) {
      // 23505, unique violation: another process has put the session under the new key.
      if (rows.length === 1 && rows[0]?.key !== rows[0]?.newKey && codeOf(error) === '23505') return [false];
      throw error;
    }
  }

  touch(query: Query, rows: TouchedRow[]): Promise<boolean[]> {
    return run(query, this.#touch, rows, (row) => [
      row.key,
      row.cookie,
      String(row.cookieChanged),
      ...expiryValues(row.expires),
    ]);
  }

  destroy(query: Query, keys: string[]): Promise<boolean[]> {
    const rows = keys.map((key) => ({ key }));
    return run(query, this.#destroy, rows, ({ key }) => [key]);
  }
}

function newRowValues(row: NewRow): Value[] {
  return [row.key, row.data, row.cookie, row.user, String(row.newVersion), ...expiryValues(row.expires)];
}

/** An SQL expression for `maxLifetime` seconds. */
export function lifeInterval(maxLifetime: number | undefined): string | undefined {
  return maxLifetime === undefined ? undefined : `${maxLifetime}::float8 * interval '1 second'`;
}

/**
 * An SQL condition: the row is no tombstone. Few rows have no cookie, so it seldom looks at the
 * data.
 */
export function isSession(alias = ''): string {
  return `(${alias}cookie is not null or ${alias}data::text <> '${TOMBSTONE}')`;
}

const expiryColumns = { expires: 'float8', expires_in: 'float8' };

/**
 * An expiry as the moment that the app's clock has it, and as the milliseconds from now, when the
 * statement is sent: what the call waited before is taken off. The first counts where the
 * database's clock is near the app's, so that a cookie's `expires` is read as it was set; else the
 * second.
 */
function expiryValues(expires: number | null): Value[] {
  return expires === null ? [null, null] : [String(expires), String(expires - Date.now())];
}

/**
 * The column of which `storedRow` creates a row: one text, as each column costs the server and the
 * client more than what is in it.
 */
export function storedColumn(life: string | undefined): string {
  const end = life ? milliseconds(`created_at + ${life}`) : `'Infinity'`;
  const parts = ['version', milliseconds('expires_at'), milliseconds('now()'), end, 'cookie', 'data', 'sid'];
  return `pg_catalog.concat(${parts.join(`, ${SEPARATOR_SQL}, `)})`;
}

/** Of a time, since 1970. */
export function milliseconds(time: string): string {
  return `(pg_catalog.date_part('epoch', ${time}) * 1000::float8)`;
}

export function storedRow([column]: Row): StoredRow {
  const parts = (column as string).split(SEPARATOR);
  // Subtracted here: before PostgreSQL 17, a row whose expiry was set to `infinity` by hand would
  // fail the subtraction.
  const [version, expires, now, end] = [
    Number(parts[0]),
    Number(parts[1]),
    Number(parts[2]),
    Number(parts[3]),
  ] as const;
  const expiresAt = Math.min(expires, end);
  const cookie = parts[4] || null;
  const data = parts[5] as string;
  return {
    // The last one, since it may hold the separator.
    key: parts.length === 7 ? (parts[6] as string) : parts.slice(6).join(SEPARATOR),
    data,
    cookie,
    version,
    expiresAt,
    expiresInMs: data === TOMBSTONE && cookie === null ? 0 : expiresAt - now,
    remainingLifetimeMs: end - now,
  };
}
