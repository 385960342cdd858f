/** What the store needs of a PostgreSQL client. */

import type { Query } from '../sql/query.js';

/**
 * A client: one of the app's, or the store's own connections.
 *
 * Each statement is answered by its deadline, in milliseconds on the clock of `performance.now()`: with rows, an error
 * of PostgreSQL or the network, or `TIMEOUT`. A connection that broke or gave no answer is the client's to replace: its
 * users only repeat what failed with a transient error.
 */
export interface Client {
  readonly query: Query;
  /** Runs a script of statements without values, in one transaction. */
  script(text: string, deadline: number): Promise<unknown>;
  /** Ends the client, if the store created it, after what it still does. */
  end(): Promise<void>;
}
