/** The statements of a store: those on many rows, and for each shard those on single rows. */

import type {
  ExpiredRow,
  KeyRange,
  ListedRow,
  Moment,
  RowName,
  RowStatements,
  Send,
  Statements,
  UserRow,
} from '../session/row.js';
import { deleteExpiredSql, postponeSql } from './autodelete.js';
import { countSql, findOfUsersSql, listOfUserSql, NOW_SQL, namesSql, pageSql } from './find.js';
import { arrayLiteral, type BoundQuery, type Row, type StatementRunner, type TableName } from './query.js';
import { batched, RowStatementsByShard } from './row-statements.js';
import { RowReader } from './row-text.js';
import { tableSql } from './table.js';

/**
 * The number of rows in a page of a listing or a deletion. A page takes some milliseconds, whatever the table's size.
 */
const PAGE = 500;
/** The number of rows in a page without data, which are small. */
const NAMES_PAGE = 2000;

/** The next possible key in the order of `collate "C"`. It ends in U+0001, because PostgreSQL's text has no U+0000. */
function nextKey(key: string): string {
  return `${key}\u0001`;
}

export class PgStatements implements Statements {
  readonly onShard: (shard: number | undefined) => RowStatements;
  readonly findOfUser: Send<string, UserRow[]>;
  readonly #runner: StatementRunner;
  readonly #range: KeyRange;
  readonly #deadline: () => number;
  readonly #reader: RowReader;
  readonly #pageSql: string;
  readonly #namesSql: string;
  readonly #countSql: string;
  readonly #listOfUserSql: string;
  readonly #findOfUsersSql: string;
  readonly #deleteExpiredSql: string;
  readonly #postponeSql: string;
  /** All shards; only `undefined` for a table without shards. */
  readonly #shards: readonly (number | undefined)[];

  /**
   * @param range the range of the row keys that begin with the store's prefix
   * @param maxLifetime the store's option, in seconds
   * @param deadline returns the deadline of a statement that starts now
   */
  constructor(
    runner: StatementRunner,
    name: TableName,
    range: KeyRange,
    maxLifetime: number | undefined,
    deadline: () => number,
  ) {
    this.#runner = runner;
    this.#range = range;
    this.#deadline = deadline;
    this.#reader = new RowReader(maxLifetime);
    const sql = tableSql(name, maxLifetime);
    this.onShard = new RowStatementsByShard(runner, sql, this.#reader).onShard;
    this.#pageSql = pageSql(sql);
    this.#namesSql = namesSql(sql);
    this.#countSql = countSql(sql);
    this.#listOfUserSql = listOfUserSql(sql);
    this.#findOfUsersSql = findOfUsersSql(sql);
    this.#deleteExpiredSql = deleteExpiredSql(sql);
    this.#postponeSql = postponeSql(sql);
    this.#shards = name.shards === undefined ? [undefined] : [...Array(name.shards).keys()];
    const size = (user: string) => user.length;
    this.findOfUser = batched(runner, 'destroySessionsOf', size, (query, users) => this.#findOfUsers(query, users));
  }

  async listOfUser(user: string, limit: number): Promise<ListedRow[]> {
    const rows = await this.#query('sessionsOf', this.#listOfUserSql, [...this.#range, user, String(limit)]);
    return rows.map((row) => this.#reader.listed(row));
  }

  pages(kind: string): AsyncGenerator<ListedRow[]> {
    return this.#pagesByKey(kind, this.#pageSql, PAGE, [], (row) => this.#reader.listed(row));
  }

  names({ time }: Moment): AsyncGenerator<RowName[]> {
    return this.#pagesByKey('clear', this.#namesSql, NAMES_PAGE, [time], ([key, createdAt], shard) => {
      return { key: key as string, createdAt: createdAt as string, user: undefined, shard };
    });
  }

  async count(): Promise<number> {
    const [[count] = []] = await this.#query('length', this.#countSql, [...this.#range]);
    return Number(count);
  }

  async now(): Promise<Moment> {
    const [[time] = []] = await this.#query('clear', NOW_SQL, []);
    return { time: String(time) };
  }

  async *deleteExpired(): AsyncGenerator<ExpiredRow[]> {
    for (const shard of this.#shards) {
      for (let from = '-Infinity'; ; ) {
        const values = [from, String(PAGE)];
        const [[found, last] = [], ...deleted] = await this.#query('autodelete', this.#deleteExpiredSql, values, shard);
        if (Number(found) > deleted.length) {
          await this.#query('autodelete', this.#postponeSql, [from, String(last)], shard);
        }
        yield deleted.map(([key, user, wasSession]) => {
          return { key: key as string, user: user as string | null, wasSession: wasSession === 'true' };
        });
        // If a trigger of the app's prevents the deletion of a page whose rows share a `delete_after`, that page would
        // be found again and again.
        const isStuck = deleted.length === 0 && last === from;
        if (Number(found) < PAGE || isStuck) break;
        from = String(last);
      }
    }
  }

  async #findOfUsers(query: BoundQuery, users: readonly string[]): Promise<UserRow[][]> {
    const found = new Map(users.map((user) => [user, [] as UserRow[]]));
    const values = [...this.#range, arrayLiteral([...found.keys()])];
    for (const [user, key, createdAt, updatedAt, isExpired, shard] of await query(this.#findOfUsersSql, values)) {
      found.get(user as string)?.push({
        key: key as string,
        user: user as string,
        createdAt: createdAt as string,
        updatedAt: Number(updatedAt),
        isExpired: isExpired === 'true',
        shard: shard === undefined ? undefined : Number(shard),
      });
    }
    return users.map((user) => found.get(user) ?? []);
  }

  /**
   * Reads the rows of the prefix page after page, ordered by shard and key.
   *
   * @param text a statement that takes the first key, the end of the range, the size of a page, and the values `more`
   */
  async *#pagesByKey<PageRow extends { readonly key: string }>(
    kind: string,
    text: string,
    size: number,
    more: readonly string[],
    read: (row: Row, shard: number | undefined) => PageRow,
  ): AsyncGenerator<PageRow[]> {
    const [first, end] = this.#range;
    for (const shard of this.#shards) {
      for (let from = first; ; ) {
        const rows = await this.#query(kind, text, [from, end, String(size), ...more], shard);
        const page = rows.map((row) => read(row, shard));
        if (page.length > 0) yield page;
        if (page.length < size) break;
        from = nextKey(page.at(-1)?.key as string);
      }
    }
  }

  /** Runs a statement that is not batched, with a deadline of its own. */
  #query(kind: string, text: string, values: readonly string[], shard?: number): Promise<Row[]> {
    const all = shard === undefined ? [...values] : [...values, String(shard)];
    return this.#runner.run(kind, this.#deadline(), (query) => query(text, all));
  }
}
