/** The statements on single rows of a table or of a shard. Calls of the same statement are batched. */

import { Batcher, DEFAULT_LIMITS } from '../calls/batcher.js';
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
import { type RowStatement, run, write } from './statement.js';
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
    limits: DEFAULT_LIMITS,
  });
  return function send(item, deadline) {
    return batcher.send(item, deadline);
  };
}

export class PgRowStatements implements RowStatements {
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
  readonly #shard: number | undefined;
  readonly #move: RowStatement<ChangedRow>;
  readonly #checkSql: string;

  constructor(runner: StatementRunner, table: TableSql, reader: RowReader, shard: number | undefined) {
    this.#runner = runner;
    this.#shard = shard;
    this.#move = moveStatement(table);
    this.#checkSql = checkSql(table);

    const getTexts = getStatement(table);
    this.read = batched(runner, 'get', sizeOfKeys, (query, sessions) => get(query, getTexts, sessions, shard, reader));

    const set = setStatement(table);
    const insert = insertStatement(table);
    const replace = replaceStatement(table);
    this.insert = batched<NewRow, boolean>(runner, 'takeOver', sizeOfData, (query, rows) =>
      write(query, insert, rows, shard, keyOf),
    );
    this.replace = batched<NewRow, boolean>(runner, 'set', sizeOfData, async (query, rows) => {
      if (shard === undefined) return write(query, set, rows, shard, keyOf);
      const inserted = await write(query, insert, rows, shard, keyOf);
      return completed(rows, inserted, (others) => write(query, replace, others, shard, keyOf));
    });

    const update = updateStatement(table);
    this.#updateInPlace = batched<ChangedRow, boolean>(runner, 'set', sizeOfData, (query, rows) =>
      write(query, update, rows, shard, keyAndVersionOf),
    );

    const touch = touchStatement(table);
    this.touch = batched<TouchedRow, boolean>(runner, 'touch', sizeOfRow, (query, rows) =>
      write(query, touch, rows, shard, keyOf),
    );

    const destroy = destroyStatement(table);
    this.destroy = batched(runner, 'destroy', sizeOfKey, (query, keys) => write(query, destroy, keys, shard, itself));

    const bury = buryStatement(table);
    const buryAbsent = buryAbsentStatement(table);
    this.bury = batched(runner, 'destroy', sizeOfKey, async (query, keys) => {
      const buried = await write(query, bury, keys, shard, itself);
      return completed(keys, buried, (others) => write(query, buryAbsent, others, shard, itself));
    });

    const foundSql = destroyFoundSql(table);
    this.destroyNamed = batched<RowName, Deletion>(runner, 'destroy', sizeOfRow, (query, rows) =>
      destroyFound(query, foundSql, rows, shard),
    );
    const writtenSql = destroyWrittenSql(table);
    this.destroyWritten = batched<WrittenRow, Deletion>(runner, 'destroy', sizeOfRow, (query, rows) =>
      destroyWritten(query, writtenSql, rows, shard),
    );
  }

  update(row: ChangedRow, deadline: number): Promise<boolean> {
    return row.oldKey === row.key ? this.#updateInPlace(row, deadline) : this.#moveAlone(row, deadline);
  }

  check(rows: readonly WatchedRow[], soon: number, deadline: number): Promise<CheckedRow[]> {
    return this.#runner.run('watch', deadline, (query) => check(query, this.#checkSql, rows, soon, this.#shard));
  }

  /** Moves a row to another key, in a statement of its own (see `moveStatement`). */
  async #moveAlone(row: ChangedRow, deadline: number): Promise<boolean> {
    try {
      const moved = await this.#runner.run('set', deadline, (query) => run(query, this.#move, [row], this.#shard));
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
    this.#newStatements = (shard) => new PgRowStatements(runner, table, reader, shard);
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
