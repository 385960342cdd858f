/** The wait before a locked row is asked for again. */

import { timeoutError } from '../errors.js';
import { sleep } from './timers.js';

/**
 * Waits before a locked row is asked for again, ever longer, but at most 100 milliseconds: no statement waits for the
 * row on the server. The first time it does not wait at all, since the row may have been changed while the statement
 * ran.
 *
 * @param tries how often the row was asked for
 * @param deadline on the clock of `performance.now()`, in milliseconds
 * @throws PgStoreError `TIMEOUT` after the deadline
 */
export async function backOffFromLockedRow(tries: number, deadline: number): Promise<void> {
  if (performance.now() >= deadline) throw timeoutError();
  if (tries > 1) await sleep(Math.min(2 ** tries, 100));
}
