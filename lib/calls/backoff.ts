/** Waits before a statement is sent again for a row that another transaction has locked. */

import { timeoutError } from '../errors.js';
import { sleep } from './timers.js';

/**
 * Waits before the next attempt at a locked row, each time longer, but at most 100 milliseconds. The store polls in
 * this way, because a statement that waits for a lock on the server would occupy a connection. After the first attempt
 * it does not wait at all, since that transaction may have ended while the statement ran.
 *
 * @param tries how many attempts have been made
 * @param deadline on the clock of `performance.now()`, in milliseconds
 * @throws PgStoreError `TIMEOUT` after the deadline
 */
export async function backOffFromLockedRow(tries: number, deadline: number): Promise<void> {
  if (performance.now() >= deadline) throw timeoutError();
  if (tries > 1) await sleep(Math.min(2 ** tries, 100));
}
