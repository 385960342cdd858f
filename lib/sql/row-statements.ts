/** The statements on single rows of a table or of a shard. Calls of the same statement are batched. */

import { Batcher } from '../calls/batcher.js';
import { isRowLevelError } from '../calls/retry.js';
import { codeOf } from '../errors.js';
import type {
  ChangedRow,
  CheckedRow,
  Deletion,
  NewRow,
  RowName,
  RowStatements,
  Send,
  StoredRow,
  TouchedRow,
  WatchedRow,
  WrittenRow,
} from '../session/row.js';
import { buryAbsentStatement, buryStatement, destroyStatement } from './destroy.js';
import { destroyFound, destroyFoundSql, destroyWritten, destroyWrittenSql } from './destroy-named.js';
import { get, getStatement } from './get.js';
import type { BoundQuery, StatementRunner } from './query.js';
import type { RowReader } from './row-text.js';
import { insertStatement, replaceStatement, setStatement } from './set.js';
import { run, write } from './statement.js';
import type { TableSql } from './table.js';
import { touchStatement } from './touch.js';
import { moveStatement, updateStatement } from './update.js';
import { check, checkSql } from './watch.js';

/**
 * Makes a function that batches the calls of one statement.
 *
 * @param kind the call that the statement is for, as events and diagnostics name it
 * @param bytes the approximate number of bytes that an item adds to the statement
 */
export function batched<Item, Result>(
  runner: StatementRunner,
  kind: string,
  bytes: (item: Item) => number,
  statement: (query: BoundQuery, items: Item[]) => Promise<Result[]>,
): Send<Item, Result> {
  const batcher = new Batcher<Item, Result>({
    execute: (items, deadline, waited) =>
      runner.run(kind, deadline, (query) => statement(query, items), { rows: items.length, waited }),
    bytes,
    shouldIsolate: isRowLevelError,
  });
  return function send(item, deadline) {
    return batcher.send(item, deadline);
  };
}

/** The texts of the statements. All shards of a table share them. */
class RowSql {
  readonly get;
  readonly set;
  readonly insert;
  readonly replace;
  readonly update;
  readonly move;
  readonly touch;
  readonly destroy;
  readonly bury;
  readonly buryAbsent;
  readonly destroyFound;
  readonly destroyWritten;
  readonly check;

  constructor(table: TableSql) {
    this.get = getStatement(table);
    this.set = setStatement(table);
    this.insert = insertStatement(table);
    this.replace = replaceStatement(table);
    this.update = updateStatement(table);
    this.move = moveStatement(table);
    this.touch = touchStatement(table);
    this.destroy = destroyStatement(table);
    this.bury = buryStatement(table);
    this.buryAbsent = buryAbsentStatement(table);
    this.destroyFound = destroyFoundSql(table);
    this.destroyWritten = destroyWrittenSql(table);
    this.check = checkSql(table);
  }
}

class PgRowStatements implements RowStatements {
  readonly read: Send<readonly string[], StoredRow | undefined>;
  readonly replace: Send<NewRow, boolean>;
  readonly insert: Send<NewRow, boolean>;
  readonly touch: Send<TouchedRow, boolean>;
  readonly destroy: Send<string, boolean>;
  readonly bury: Send<string, boolean>;
  readonly destroyNamed: Send<RowName, Deletion>;
  readonly destroyWritten: Send<WrittenRow, Deletion>;
  readonly #updateInPlace: Send<ChangedRow, boolean>;
  readonly #runner: StatementRunner;
  readonly #sql: RowSql;
  readonly #shard: number | undefined;

  constructor(runner: StatementRunner, sql: RowSql, reader: RowReader, shard: number | undefined) {
    this.#runner = runner;
    this.#sql = sql;
    this.#shard = shard;
    this.read = batched(runner, 'get', sizeOfKeys, (query, sessions) => get(query, sql.get, sessions, shard, reader));
    this.insert = batched<NewRow, boolean>(runner, 'takeOver', sizeOfData, (query, rows) =>
      write(query, sql.insert, rows, shard, keyOf),
    );
    this.replace = batched<NewRow, boolean>(runner, 'set', sizeOfData, async (query, rows) => {
      if (shard === undefined) return write(query, sql.set, rows, shard, keyOf);
      const inserted = await write(query, sql.insert, rows, shard, keyOf);
      return completed(rows, inserted, (others) => write(query, sql.replace, others, shard, keyOf));
    });
    this.#updateInPlace = batched<ChangedRow, boolean>(runner, 'set', sizeOfData, (query, rows) =>
      write(query, sql.update, rows, shard, keyAndVersionOf),
    );
    this.touch = batched<TouchedRow, boolean>(runner, 'touch', sizeOfRow, (query, rows) =>
      write(query, sql.touch, rows, shard, keyOf),
    );
    this.destroy = batched(runner, 'destroy', sizeOfKey, (query, keys) =>
      write(query, sql.destroy, keys, shard, itself),
    );
    this.bury = batched(runner, 'destroy', sizeOfKey, async (query, keys) => {
      const buried = await write(query, sql.bury, keys, shard, itself);
      return completed(keys, buried, (others) => write(query, sql.buryAbsent, others, shard, itself));
    });
    this.destroyNamed = batched<RowName, Deletion>(runner, 'destroy', sizeOfRow, (query, rows) =>
      destroyFound(query, sql.destroyFound, rows, shard),
    );
    this.destroyWritten = batched<WrittenRow, Deletion>(runner, 'destroy', sizeOfRow, (query, rows) =>
      destroyWritten(query, sql.destroyWritten, rows, shard),
    );
  }

  update(row: ChangedRow, deadline: number): Promise<boolean> {
    return row.oldKey === row.key ? this.#updateInPlace(row, deadline) : this.#moveAlone(row, deadline);
  }

  check(rows: readonly WatchedRow[], soon: number, deadline: number): Promise<CheckedRow[]> {
    return this.#runner.run('watch', deadline, (query) => check(query, this.#sql.check, rows, soon, this.#shard));
  }

  /** Moves a row to another key, in a statement of its own (see `moveStatement`). */
  async #moveAlone(row: ChangedRow, deadline: number): Promise<boolean> {
    try {
      const moved = await this.#runner.run('set', deadline, (query) => run(query, this.#sql.move, [row], this.#shard));
      return moved.length > 0;
    } catch (error) {
      // The primary key is violated (unique_violation): another process has stored the session under the new key.
      if (codeOf(error) === '23505') return false;
      throw error;
    }
  }
}

/** The statements on single rows of each shard. Those of a shard are created when they are first needed. */
export class RowStatementsByShard {
  readonly #byShard = new Map<number | undefined, RowStatements>();
  readonly #newStatements: (shard: number | undefined) => RowStatements;

  constructor(runner: StatementRunner, table: TableSql, reader: RowReader) {
    const sql = new RowSql(table);
    this.#newStatements = (shard) => new PgRowStatements(runner, sql, reader, shard);
  }

  /** The statements of a shard; `undefined` stands for a table without shards. */
  readonly onShard = (shard: number | undefined): RowStatements => {
    let statements = this.#byShard.get(shard);
    if (!statements) {
      statements = this.#newStatements(shard);
      this.#byShard.set(shard, statements);
    }
    return statements;
  };
}

/**
 * Runs a second statement for the items that a first statement has not written.
 *
 * @param isDone for each item, whether the first statement has written it
 * @returns for each item, whether either statement has written it
 */
async function completed<Item>(
  items: readonly Item[],
  isDone: readonly boolean[],
  second: (items: Item[]) => Promise<boolean[]>,
): Promise<boolean[]> {
  const others = items.filter((_, n) => !isDone[n]);
  const results = others.length > 0 ? await second(others) : [];
  let next = 0;
  return isDone.map((isFirst) => isFirst || results[next++] === true);
}

function keyOf({ key }: { readonly key: string }): string {
  return key;
}

function keyAndVersionOf({ key, version }: { readonly key: string; readonly version: number }): string {
  return `${key} ${version}`;
}

function itself(key: string): string {
  return key;
}

function sizeOfData({ data }: { readonly data: string }): number {
  return data.length;
}

function sizeOfRow({ key }: { readonly key: string }): number {
  return key.length;
}

function sizeOfKey(key: string): number {
  return key.length;
}

function sizeOfKeys(keys: readonly string[]): number {
  return keys.length * (keys[0]?.length ?? 0);
}
