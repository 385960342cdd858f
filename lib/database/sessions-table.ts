/** The SQL for single sessions: one method, one statement. Knows no Express. */

import {
  type ChangedRow,
  CLOCKS_AGREE_MS,
  type NewRow,
  type StoredRow,
  TOMBSTONE,
  type TouchedRow,
} from '../session/row.js';
import { arrayLiteral, type Query, qualified, type Row, type TableName, type Value } from './query.js';

/**
 * The statements on one table, their texts built once. Types match exactly and `unnest` has its schema, so that nothing
 * which others put into a schema of the search path is a better match (CVE-2018-1058).
 *
 * A write takes its rows with `for update skip locked` and joins on what it got, so no statement ever waits for a row that
 * somebody holds, and none can be part of a deadlock (PostgreSQL: Explicit Locking). It joins by `sid`: a `ctid` repeats
 * across partitions, and gains nothing. Each statement has a form for one row, which plans and runs faster, and one for many.
 */
export class SessionsTable {
  readonly #read: StatementForms;
  readonly #replace: StatementForms;
  readonly #update: StatementForms;
  readonly #touch: StatementForms;
  readonly #destroy: StatementForms;
  readonly #insert: StatementForms;

  /** @param maxLifetime seconds */
  constructor(name: TableName, maxLifetime?: number) {
    const table = qualified(name);
    const life = lifeInterval(maxLifetime);
    const due = `case when abs(${milliseconds('now()')} + i.expires_in - i.expires) <= least(${CLOCKS_AGREE_MS}::float8, i.expires_in / 10::float8)
      then to_timestamp(i.expires / 1000::float8) else now() + i.expires_in * interval '1 millisecond' end`;
    const expiry = (created: string) => (life ? `least(${due}, ${created} + ${life})` : due);
    const newExpiry = (created: string) => `case when ${isSession('i.')} then ${expiry(created)} else ${due} end`;
    const locked = (input: string) => `${input}, locked as (
    select i.* from i join ${table} s on s.sid = i.sid for update of s skip locked
  )`;
    const keepsCookie = 'not i.cookie_changed and s.cookie::text is distinct from i.cookie';
    const cookieAndExpiry = `cookie = case when ${keepsCookie} then s.cookie else i.cookie::json end,
      expires_at = case when i.expires is null or ${keepsCookie} then s.expires_at else ${expiry('s.created_at')} end,
      updated_at = now()`;
    const end = life ? `least(s.expires_at, s.created_at + ${life})` : 's.expires_at';
    // An expired session is gone for every call, whether its row is still there or not.
    const isLive = `${end} > now() and ${isSession('s.')}`;

    const columns = storedColumns(life);
    this.#read = {
      one: `select ${columns} from ${table} where sid = $1::text`,
      many: `select ${columns} from ${table} where sid = any($1::text::text[])`,
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
    const insert = `insert into ${table} as s (sid, data, cookie, user_id, version, expires_at)
    select i.sid, i.data::json, i.cookie::json, i.user_id, i.version, ${newExpiry('now()')}
    from i where not exists (select from ${table} s where s.sid = i.sid)
    order by i.sid
    on conflict do nothing
    returning s.sid`;
    this.#insert = statement(newRow, (input) => `${input} ${insert}`);
    this.#replace = statement(
      newRow,
      (input) => `${locked(input)}, replaced as (
    update ${table} s
    set data = i.data::json, cookie = i.cookie::json, user_id = i.user_id, version = i.version,
      created_at = ${created}, updated_at = now(), expires_at = ${newExpiry(created)}
    from locked i where s.sid = i.sid
    returning s.sid
  ), inserted as (
    ${insert}
  )
  select * from replaced union all select * from inserted`,
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
      (input) => `${locked(input)}
  update ${table} s
  set sid = i.new_sid, data = i.data::json, user_id = i.user_id, version = i.new_version, ${cookieAndExpiry}
  from locked i where s.sid = i.sid and s.version = i.version and ${isLive}
  returning i.sid`,
    );

    this.#touch = statement(
      { sid: 'text', cookie: 'json', cookie_changed: 'boolean', ...expiryColumns },
      (input) => `${locked(input)}
  update ${table} s set ${cookieAndExpiry}
  from locked i where s.sid = i.sid and ${isLive}
  returning s.sid`,
    );

    this.#destroy = statement(
      { sid: 'text' },
      (input) => `${locked(input)}
  delete from ${table} s using locked i where s.sid = i.sid
  returning s.sid`,
    );
  }

  /**
   * Each session's row under the first of its keys that has one; expired rows too, as long as they are there. One statement
   * sees one moment: a row that moves from key to key meanwhile is not missed.
   */
  async read(query: Query, sessions: readonly (readonly string[])[]): Promise<(StoredRow | undefined)[]> {
    const keys = sessions.flat();
    if (keys.length === 1) {
      const [row] = await query(this.#read.one, keys);
      return [row && storedRow(row)];
    }
    const found = new Map<string, StoredRow>();
    for (const row of await query(this.#read.many, [arrayLiteral([...new Set(keys)])])) {
      found.set(row[0] as string, storedRow(row));
    }
    return sessions.map((own) => {
      const key = own.find((candidate) => found.has(candidate));
      return key === undefined ? undefined : found.get(key);
    });
  }

  replace(query: Query, rows: NewRow[]): Promise<boolean[]> {
    return run(query, this.#replace, rows, newRowValues);
  }

  insert(query: Query, rows: NewRow[]): Promise<boolean[]> {
    return run(query, this.#insert, rows, newRowValues);
  }

  update(query: Query, rows: ChangedRow[]): Promise<boolean[]> {
    return run(query, this.#update, rows, (row) => [
      row.key,
      row.newKey,
      String(row.version),
      String(row.newVersion),
      row.data,
      row.user,
      row.cookie,
      String(row.cookieChanged),
      ...expiryValues(row.expires),
    ]);
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
    return run(
      query,
      this.#destroy,
      keys.map((key) => ({ key })),
      (row) => [row.key],
    );
  }
}

/** One statement in two forms: for a single row, and for many. */
interface StatementForms {
  readonly one: string;
  readonly many: string;
  /** Which of the values are JSON. */
  readonly json?: readonly boolean[];
}

function newRowValues(row: NewRow): Value[] {
  return [row.key, row.data, row.cookie, row.user, String(row.newVersion), ...expiryValues(row.expires)];
}

/** Never part of JSON's text: JSON.stringify escapes control characters. */
const UNIT_SEPARATOR = '\x1f';

/**
 * Puts the input rows before a statement as `i`: scalars for one row, arrays for many. Everything travels as text. In an
 * array's text form each quote must be escaped, which for JSON is dear: its texts travel joined by a separator instead.
 *
 * @param input the columns' types; `json`: the text of JSON
 */
function statement(input: Record<string, string>, body: (input: string) => string): StatementForms {
  const columns = Object.entries(input);
  const scalars = columns.map(([name, type], n) => `$${n + 1}::text::${type === 'json' ? 'text' : type} as ${name}`);
  const arrays = columns.map(([, type], n) => {
    const array = type === 'json' ? `string_to_array($${n + 1}::text, e'\\x1f', '')` : `$${n + 1}::text::${type}[]`;
    return `pg_catalog.unnest(${array})`;
  });
  const names = columns.map(([name]) => name);
  return {
    json: columns.map(([, type]) => type === 'json'),
    // Not a value that the planner knows: of a partitioned table it would plan each call anew.
    one: body(`with i as materialized (select ${scalars.join(', ')})`),
    many: body(`with i as (select * from rows from (${arrays.join(', ')}) as i (${names.join(', ')}))`),
  };
}

async function run<T extends { readonly key: string }>(
  query: Query,
  pair: StatementForms,
  rows: readonly T[],
  valuesOf: (row: T) => Value[],
): Promise<boolean[]> {
  const [first] = rows;
  if (first && rows.length === 1) {
    const written = await query(pair.one, valuesOf(first));
    return [written.length > 0];
  }
  const values = rows.map(valuesOf);
  const columns = (values[0] ?? []).map((_, n) => {
    const column = values.map((row) => row[n] ?? null);
    return pair.json?.[n] ? column.join(UNIT_SEPARATOR) : arrayLiteral(column);
  });
  const written = new Set((await query(pair.many, columns)).map(([key]) => key));
  return rows.map((row) => written.has(row.key));
}

/** An SQL expression for `maxLifetime` seconds. */
export function lifeInterval(maxLifetime: number | undefined): string | undefined {
  return maxLifetime === undefined ? undefined : `${maxLifetime}::float8 * interval '1 second'`;
}

/** An SQL condition: the row is no tombstone. Few rows have no cookie, so it seldom looks at the data. */
export function isSession(alias = ''): string {
  return `(${alias}cookie is not null or ${alias}data::text <> '${TOMBSTONE}')`;
}

const expiryColumns = { expires: 'float8', expires_in: 'float8' };

/**
 * An expiry as the moment that the app's clock has it, and as the milliseconds from now, when the statement is sent: what
 * the call waited before is taken off. The first counts where the database's clock is near the app's, so that a cookie's
 * `expires` is read as it was set; else the second.
 */
function expiryValues(expires: number | null): Value[] {
  return expires === null ? [null, null] : [String(expires), String(expires - Date.now())];
}

/** The columns of which `storedRow` creates a row. */
export function storedColumns(life: string | undefined): string {
  const end = life ? milliseconds(`created_at + ${life}`) : `'infinity'::float8`;
  const times = `${milliseconds('expires_at')}::text, ${milliseconds('now()')}::text, ${end}::text`;
  return `sid, data::text, cookie::text, version::text, ${times}`;
}

/** Of a time, since 1970. */
export function milliseconds(time: string): string {
  return `(pg_catalog.date_part('epoch', ${time}) * 1000::float8)`;
}

export function storedRow(row: Row): StoredRow {
  // Subtracted here: before PostgreSQL 17, a row whose expiry somebody set to `infinity` would fail the subtraction.
  const [expires, now, end] = row.slice(4, 7).map(Number) as [number, number, number];
  const expiresAt = Math.min(expires, end);
  const isTombstone = row[1] === TOMBSTONE && (row[2] ?? null) === null;
  return {
    key: row[0] as string,
    data: row[1] as string,
    cookie: (row[2] ?? null) as string | null,
    version: Number(row[3]),
    expiresAt,
    expiresInMs: isTombstone ? 0 : expiresAt - now,
    remainingLifetimeMs: end - now,
  };
}
