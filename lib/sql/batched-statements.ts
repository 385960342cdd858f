/** One batcher per kind of statement and shard. */

import { Batcher } from '../calls/batcher.js';
import { isRowLevelError } from '../calls/retry.js';
import type { Database } from '../client/database.js';
import type { Send, Statements } from '../session/row.js';
import { onShard, type BoundQuery as Query } from './query.js';
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
  const dataLength = ({ data }: { data: string }) => data.length;
  return {
    read: batched('get', table.read.bind(table), (keys) => keys.length * (keys[0]?.length ?? 0)),
    replace: batched('set', table.replace.bind(table), dataLength),
    update: batched('set', table.update.bind(table), dataLength),
    touch: batched('touch', table.touch.bind(table), ({ key }) => key.length),
    destroy: batched('destroy', table.destroy.bind(table), (key) => key.length),
    insert: batched('takeOver', table.insert.bind(table), dataLength),
  };
}
