/** What the store needs of a PostgreSQL client. */

import type { Sql } from 'postgres';
import { deadlines } from '../calls/deadline.js';
import type { BoundQuery, Query, Row } from '../sql/query.js';

/**
 * A client: one of the app's, or the store's own connections.
 *
 * Each statement is answered by its deadline: with rows, an error of PostgreSQL or the network, or
 * `TIMEOUT`. A connection that broke or gave no answer is the client's to replace: its users only
 * repeat what failed with a transient error.
 */
export interface Client {
  readonly query: Query;
  /** Runs a script of statements without values, in one transaction. */
  script(text: string, deadline: number): Promise<unknown>;
  /** Ends the client, if the store created it, after what it still does. */
  end(): Promise<void>;
}

/** The app's own Postgres.js client: its connections are the app's affair. */
export function appClient(sql: Sql): Client {
  const { query, script } = statementsOf(sql);
  return {
    query: (text, values, deadline) => deadlines.race(deadline, query(text, values)),
    script: (text, deadline) => deadlines.race(deadline, script(text)),
    end: async () => {},
  };
}

/** What a Postgres.js client runs, without a time limit. */
export function statementsOf(sql: Sql): { query: BoundQuery; script(text: string): Promise<unknown> } {
  return {
    // `prepare` has an effect only where the client allows it; rows as arrays are free of the
    // client's name transforms. They are taken out of the client's own array: its promise would
    // keep them alive until the next major garbage collection.
    query: async (text, values) => (await sql.unsafe(text, values, { prepare: true }).values()).splice(0) as Row[],
    script: (text) => sql.unsafe(text).simple(),
  };
}
