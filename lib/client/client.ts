/** The interface of the PostgreSQL clients that the store can use. */

import type { Query } from '../sql/query.js';

/**
 * A PostgreSQL client: the app's own, or the store's connections.
 *
 * Each statement gets an answer before its deadline, which is in milliseconds on the clock of `performance.now()`: its
 * rows, an error of PostgreSQL or of the network, or the error `TIMEOUT`. The client replaces connections that broke or
 * do not answer, so its callers only have to repeat statements that failed with a transient error.
 */
export interface Client {
  readonly query: Query;
  /** Runs several statements without parameters, in one transaction. */
  script(text: string, deadline: number): Promise<unknown>;
  /** Ends the connections that the store opened, once their statements have been answered. */
  end(): Promise<void>;
}
