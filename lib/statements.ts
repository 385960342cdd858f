/** Which batch does a statement go in? One batcher for each kind. */

import { Batcher } from './batcher.js';
import type { Database } from './database.js';
import { mayBeOneRow, passes } from './retry.js';
import type { ChangedRow, NewRow, Query, SessionsTable, StoredRow, TouchedRow, Written } from './sessions-table.js';

type Send<Item, Result> = (item: Item, deadline: number) => Promise<Result>;

export interface SentRow extends ChangedRow {
  /** An earlier try got no answer: nobody knows whether it took effect. */
  answerLost: boolean;
}

/** The statements on single rows, batched. Deadlines are on the clock of `performance.now()`, in milliseconds. */
export interface Statements {
  /** The row under the first of a session's keys that has one. */
  readonly read: Send<readonly string[], StoredRow | undefined>;
  readonly replace: Send<NewRow, Written>;
  readonly update: Send<SentRow, Written>;
  readonly touch: Send<TouchedRow, Written>;
  readonly destroy: Send<string, Written>;
}

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
      mayBeOneItem: mayBeOneRow,
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
      (query, rows: SentRow[]) =>
        table.update(query, rows).catch((error) => {
          if (passes(error)) for (const row of rows) row.answerLost = true;
          throw error;
        }),
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
  };
}
