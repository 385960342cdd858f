/** Tables for specs of single statements, which run without a store. */

import type { Sql } from 'postgres';
import type { ChangedRow, NewRow, StoredRow } from '../../lib/session/row.js';
import { get, getStatement } from '../../lib/sql/get.js';
import type { BoundQuery, StatementRunner } from '../../lib/sql/query.js';
import { RowReader } from '../../lib/sql/row-text.js';
import { createTableSql } from '../../lib/sql/schema.js';
import { insertStatement, replaceStatement, setStatement } from '../../lib/sql/set.js';
import { type RowStatement, write } from '../../lib/sql/statement.js';
import { PgStatements } from '../../lib/sql/statements.js';
import { type TableSql, tableSql } from '../../lib/sql/table.js';
import { touchStatement } from '../../lib/sql/touch.js';
import { moveStatement, updateStatement } from '../../lib/sql/update.js';
import { freshTable, sqlClient } from './postgres.js';

/** The range of all row keys. */
export const EVERYTHING = ['', '\u{10FFFF}'] as const;

/** A table of its own, and the statements on its rows, which are not batched. */
export class SqlTable {
  readonly sql: Sql;
  readonly name: string;
  readonly tableSql: TableSql;
  readonly query: BoundQuery;
  readonly reader: RowReader;
  /** How many statements were sent. */
  sent = 0;

  private constructor(sql: Sql, name: string, maxLifetime: number | undefined) {
    this.sql = sql;
    this.name = name;
    this.tableSql = tableSql({ schema: 'public', table: name }, maxLifetime);
    this.reader = new RowReader(maxLifetime);
    this.query = (text, values) => {
      this.sent++;
      return sql.unsafe(text, values).values() as any;
    };
  }

  /** @param maxLifetime seconds */
  static async create(maxLifetime?: number): Promise<SqlTable> {
    const sql = await sqlClient();
    const name = freshTable();
    await sql.unsafe(createTableSql({ schema: 'public', table: name })).simple();
    return new SqlTable(sql, name, maxLifetime);
  }

  set(rows: readonly NewRow[]): Promise<boolean[]> {
    return this.write(setStatement(this.tableSql), rows);
  }

  insert(rows: readonly NewRow[]): Promise<boolean[]> {
    return this.write(insertStatement(this.tableSql), rows);
  }

  replace(rows: readonly NewRow[]): Promise<boolean[]> {
    return this.write(replaceStatement(this.tableSql), rows);
  }

  update(rows: readonly ChangedRow[]): Promise<boolean[]> {
    return this.#change(updateStatement(this.tableSql), rows);
  }

  move(rows: readonly ChangedRow[]): Promise<boolean[]> {
    return this.#change(moveStatement(this.tableSql), rows);
  }

  touch(rows: Parameters<ReturnType<typeof touchStatement>['values']>[0][]): Promise<boolean[]> {
    return this.write(touchStatement(this.tableSql), rows);
  }

  write<Item extends { key: string }>(statement: RowStatement<Item>, rows: readonly Item[]): Promise<boolean[]> {
    return write(this.query, statement, rows, undefined, ({ key }) => key);
  }

  #change(statement: RowStatement<ChangedRow>, rows: readonly ChangedRow[]): Promise<boolean[]> {
    return write(this.query, statement, rows, undefined, ({ key, version }) => `${key} ${version}`);
  }

  /** Reads for each session the row under the first of its keys that has one. */
  read(sessions: readonly (readonly string[])[]): Promise<(StoredRow | undefined)[]> {
    return get(this.query, getStatement(this.tableSql), sessions, undefined, this.reader);
  }

  /** Reads the row under each key. */
  rows(keys: readonly string[]): Promise<(StoredRow | undefined)[]> {
    return this.read(keys.map((key) => [key]));
  }

  /** The statements on many rows, which are not batched. */
  statements(range: readonly [string, string] = EVERYTHING, maxLifetime?: number): PgStatements {
    const runner: StatementRunner = { run: (_kind, _deadline, work) => work(this.query) };
    const name = { schema: 'public', table: this.name };
    return new PgStatements(runner, name, range, maxLifetime, () => Number.POSITIVE_INFINITY);
  }

  /** Inserts unexpired rows by hand, with the keys `PREFIX0000`, `PREFIX0001`, … */
  async fill(prefix: string, count: number, user: string | null = null): Promise<void> {
    await this.sql`
      insert into ${this.sql(this.name)} (sid, data, user_id, expires_at, delete_after)
      select ${prefix}::text || lpad(n::text, 4, '0'), '{}', ${user}::text,
        now() + interval '1 hour', now() + interval '1 hour'
      from generate_series(0, ${count - 1}::integer) n`;
  }

  /** Runs `work` while another transaction has locked a row. */
  async whileLocked<T>(key: string, lock: string, work: () => Promise<T>): Promise<T> {
    return this.sql.begin(async (holding) => {
      await holding.unsafe(`select from ${this.name} where sid = $1 for ${lock}`, [key]);
      return work();
    }) as Promise<T>;
  }
}

/** A row that lives for a minute. */
export function row(key: string, more: Partial<NewRow> = {}): NewRow {
  const expires = Date.now() + 60_000;
  const columns = {
    key,
    data: '{"n":1}',
    cookie: '{"path":"/"}',
    cookieExpires: expires,
    user: null,
    version: 7,
    expires,
  };
  return { ...columns, ...more };
}

/** A change of a row with version 7. */
export function changedRow(key: string, more: Partial<ChangedRow> = {}): ChangedRow {
  const changed = { ...row(key), data: '{"n":2}', cookie: '{}', version: 8, oldKey: key, oldVersion: 7 };
  return { ...changed, movesExpiry: true, ...more };
}

/** The keys with which specs run both forms of a statement, the one for one row and the one for many. */
export const FORMS = [
  ['one row', ['a']],
  ['many rows', ['a', 'b', 'c']],
] as const satisfies readonly (readonly [string, readonly string[]])[];
