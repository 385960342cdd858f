/** One batcher per kind of statement. */

import { Batcher } from '../calls/batcher.js';
import type { Send, Statements } from '../session/row.js';
import type { Database } from './database.js';
import type { Query } from './query.js';
import { isRowLevelError } from './retry.js';
import type { SessionsTable } from './sessions-table.js';

export function batchedStatements(table: SessionsTable, database: Database): Statements {
  function batched<Item, Result>(
    what: string,
    statement: (query: Query, items: Item[]) => Promise<Result[]>,
    bytes: (item: Item) => number,
  ): Send<Item, Result> {
    const batcher = new Batcher<Item, Result>({
      execute: (items, deadline, waited) =>
        database.run(what, deadline, (query) => statement(query, items), { rows: items.length, waited }),
      bytes,
      shouldIsolate: isRowLevelError,
    });
    return (item, deadline) => batcher.send(item, deadline);
  }
  return {
    read: batched(
      'get',
      (query, sessions) => table.read(query, sessions),
      (keys) => keys.length * (keys[0]?.length ?? 0),
    ),
    replace: batched(
      'set',
      (query, rows) => table.replace(query, rows),
      (row) => row.data.length,
    ),
    update: batched(
      'set',
      (query, rows) => table.update(query, rows),
      (row) => row.data.length,
    ),
    touch: batched(
      'touch',
      (query, rows) => table.touch(query, rows),
      (row) => row.key.length,
    ),
    destroy: batched(
      'destroy',
      (query, keys) => table.destroy(query, keys),
      (key) => key.length,
    ),
    insert: batched(
      'takeOver',
      (query, rows) => table.insert(query, rows),
      (row) => row.data.length,
    ),
  };
}
