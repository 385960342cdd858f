/** Statements on a Postgres.js client, and the app's own client as a client of the store. */

import type { Sql } from 'postgres';
import { deadlines } from '../calls/deadline.js';
import { timeoutError } from '../errors.js';
import type { Query, Row, Value } from '../sql/query.js';
import type { Client } from './client.js';

/** Only where the client allows it. */
const PREPARED = { prepare: true } as const;

/**
 * Runs a statement without a time limit.
 *
 * Rows are arrays, so the client's name transforms do not matter. They are taken out of the client's own array, because
 * its promise would keep them in memory until the next major garbage collection.
 */
export function runQuery(sql: Sql, text: string, values: Value[]): Promise<Row[]> {
  return sql.unsafe(text, values, PREPARED).values().then(taken);
}

/** The rows in an array of their own. Spread is measured: `splice` takes 2 µs more on Postgres.js's kind of array. */
function taken(result: { length: number } & Iterable<unknown>): Row[] {
  const rows = [...result] as Row[];
  result.length = 0;
  return rows;
}

/** Runs statements without values, in one transaction, without a time limit. */
export function runScript(sql: Sql, text: string): Promise<unknown> {
  return sql.unsafe(text).simple();
}

/**
 * Option `sql`: a Postgres.js client that the app has. Its connections are the app's affair, so a statement that is
 * given up goes on; a cancel request could strike a statement of the app's that follows it. One that waits for a
 * connection is not sent any more.
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
      // Postgres.js sets the state when it sends the statement.
      if ((statement as { state?: unknown }).state === null) statement.cancel();
      return timeoutError();
    });
  };

  script(text: string, deadline: number): Promise<unknown> {
    return deadlines.race(deadline, runScript(this.#sql, text));
  }

  async end(): Promise<void> {}
}
