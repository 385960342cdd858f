/** What the store needs of a PostgreSQL client. */

import type { Sql } from 'postgres';
import { timeoutError } from '../errors.js';
import type { Query, Row } from '../sql/query.js';
import { clearTimeout, setTimeout } from '../timers.js';

/**
 * A client: one of the app's, or the store's own connections.
 *
 * Each statement is answered within `timeout`: with rows, an error of PostgreSQL or the network, or
 * `TIMEOUT`. A connection that broke or gave no answer is the client's to replace: its users only
 * repeat what failed with a transient error.
 */
export interface Client {
  readonly query: Query;
  /** Runs a script of statements without values, in one transaction. */
  readonly script: (text: string) => Promise<unknown>;
  /** Ends the client, if the store created it, after what it still does. */
  end(): Promise<void>;
}

/** The app's own Postgres.js client: its connections are the app's affair. */
export function appClient(sql: Sql, timeout: number): Client {
  const { query, script } = statementsOf(sql);
  return {
    query: (text, values) => within(timeout, query(text, values)),
    script: (text) => within(timeout, script(text)),
    end: async () => {},
  };
}

/** What a Postgres.js client runs, without a time limit. */
export function statementsOf(sql: Sql): Pick<Client, 'query' | 'script'> {
  return {
    // `prepare` has an effect only where the client allows it; rows as arrays are free of the
    // client's name transforms. They are taken out of the client's own array: its promise would
    // keep them alive until the next major garbage collection.
    query: async (text, values) => (await sql.unsafe(text, values, { prepare: true }).values()).splice(0) as Row[],
    script: (text) => sql.unsafe(text).simple(),
  };
}

/** The answer, or the error that `late` returns once the time is over. */
export function within<T>(milliseconds: number, answer: Promise<T>, late: () => Error = timeoutError): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(late()), milliseconds);
    answer.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
