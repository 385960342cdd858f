/** Runs statements on a Postgres.js client: on the store's own, or on the app's (option `sql`). */

import type { Sql } from 'postgres';
import { deadlines } from '../calls/deadline.js';
import { timeoutError } from '../errors.js';
import type { Query, Row, Value } from '../sql/query.js';
import type { Client } from './client.js';

/** Prepares a statement, unless the client's own option `prepare` is false. */
const PREPARED = { prepare: true } as const;

/**
 * Runs a statement without a time limit.
 *
 * Rows are arrays, so the client's transforms of column names do not matter. They are copied out of the client's array,
 * because its promise would keep them in memory until the next major garbage collection.
 */
export function runQuery(sql: Sql, text: string, values: Value[]): Promise<Row[]> {
  return sql.unsafe(text, values, PREPARED).values().then(taken);
}

/**
 * Moves the rows to an array of their own. The spread was measured: `splice` takes 2 µs more on the array class of
 * Postgres.js.
 */
function taken(result: { length: number } & Iterable<unknown>): Row[] {
  const rows = [...result] as Row[];
  result.length = 0;
  return rows;
}

/** Runs several statements without parameters, in one transaction and without a time limit. */
export function runScript(sql: Sql, text: string): Promise<unknown> {
  return sql.unsafe(text).simple();
}

/**
 * Option `sql`: the app's own Postgres.js client.
 *
 * A statement that timed out is not cancelled on the server, because the cancel request could cancel a statement of the
 * app's that follows it on the same connection. If it still waits for a connection, it is not sent.
 */
export class AppClient implements Client {
  readonly #sql: Sql;

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  readonly query: Query = (text, values, deadline) => {
    const statement = this.#sql.unsafe(text, values, PREPARED).values();
    const rows = statement.then(taken);
    return deadlines.race(deadline, rows, () => {
      // Postgres.js sets `state` when it sends a statement. Before that, `cancel` takes the statement off its queue.
      if ((statement as { state?: unknown }).state === null) statement.cancel();
      return timeoutError();
    });
  };

  script(text: string, deadline: number): Promise<unknown> {
    return deadlines.race(deadline, runScript(this.#sql, text));
  }

  /** Does nothing, because the client is the app's. */
  async end(): Promise<void> {}
}
