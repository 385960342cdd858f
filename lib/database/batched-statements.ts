/** One batcher per kind of statement and shard. */

import { Batcher } from '../calls/batcher.js';
import type { Send, Statements } from '../session/row.js';
import type { Database } from './database.js';
import { onShard, type Query } from './query.js';
import { isRowLevelError } from './retry.js';
import type { SessionsTable } from './sessions-table.js';

/** The statements of a shard; of a table without shards, those of `undefined`. */
export function batchedStatements(table: SessionsTable, database: Database): (shard?: number) => Statements {
  const shards = new Map<number | undefined, Statements>();
  return (shard) => {
    const statements = shards.get(shard) ?? statementsOf(table, database, shard);
    shards.set(shard, statements);
    return statements;
  };
}

function statementsOf(table: SessionsTable, database: Database, shard: number | undefined): Statements {
  function batched<Item, Result>(
    what: string,
    statement: (query: Query, items: Item[]) => Promise<Result[]>,
    bytes: (item: Item) => number,
  ): Send<Item, Result> {
    const batcher = new Batcher<Item, Result>({
      execute: (items, deadline, waited) =>
        database.run(what, deadline, (query) => statement(onShard(query, shard), items), {
          rows: items.length,
          waited,
        }),
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
