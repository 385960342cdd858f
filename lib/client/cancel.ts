/** Cancels the statement of a connection that has got no answer in time. */

import { deadlines } from '../calls/deadline.js';
import { type Host, Transport, type TransportSettings } from './transport.js';

/** The number that marks a cancel request (PostgreSQL: Message Formats, CancelRequest). */
const CANCEL_REQUEST_CODE = 80_877_102;

/** The largest number of milliseconds between a cancel request and the deadline. */
const LONGEST_CANCELLATION_MS = 500;

/**
 * For how many milliseconds the connection of a cancel request stays open after its deadline. PgBouncer up to 1.20 ends
 * itself if the client of a cancel request leaves before its server has answered (its issue #801).
 */
const LINGER_MS = 5000;

/**
 * When a statement that starts now is cancelled: when a tenth of its time is left, but at most
 * `LONGEST_CANCELLATION_MS` before its deadline. So the server can answer the cancel request in time.
 *
 * @param deadline on the clock of `performance.now()`, in milliseconds, as the result is
 */
export function cancelTime(deadline: number): number {
  const timeLeft = Math.max(0, deadline - performance.now());
  return deadline - Math.min(timeLeft / 10, LONGEST_CANCELLATION_MS);
}

/**
 * Sends a cancel request. PostgreSQL's protocol wants it on a connection of its own, which is secured like the one
 * whose statement is to be cancelled.
 *
 * @param key the process ID and the secret key of the backend that runs the statement
 * @param deadline on the clock of `performance.now()`, in milliseconds
 * @returns whether the server closed the connection of the request in time. It does so after it has signalled the
 * backend, so no signal comes later and hits another statement.
 */
export async function requestCancel(
  settings: TransportSettings,
  host: Host,
  key: Buffer,
  deadline: number,
): Promise<boolean> {
  try {
    const transport = await Transport.open(settings, host, deadline);
    const closed = new Promise<void>((resolve) => transport.onClosed(resolve));
    const header = Buffer.alloc(8);
    header.writeUInt32BE(header.length + key.length, 0);
    header.writeUInt32BE(CANCEL_REQUEST_CODE, 4);
    transport.socket.resume().write(Buffer.concat([header, key]));
    const isHandled = await deadlines.race(deadline, closed).then(
      () => true,
      () => false,
    );
    if (!isHandled) linger(transport);
    return isHandled;
  } catch {
    return false;
  }
}

/** Leaves it to the server to close a connection, for `LINGER_MS`. It does not keep the process alive. */
function linger(transport: Transport): void {
  transport.socket.unref();
  const watch = deadlines.watch(performance.now() + LINGER_MS, () => void transport.reset());
  transport.onClosed(() => deadlines.end(watch));
}

/**
 * Waits until the server has handled the cancel request and the statement has ended, so that the request cannot cancel
 * the next statement of the connection. The statement's own result does not matter: a commit that waits for a standby
 * succeeds when it is cancelled.
 *
 * @param request resolves with whether the server has handled the request
 * @returns whether both happened before the deadline
 */
export async function isCancelled(
  request: Promise<boolean>,
  statement: Promise<unknown>,
  deadline: number,
): Promise<boolean> {
  const ended = statement.catch(() => {});
  const both = Promise.all([request, ended]).then(([isHandled]) => isHandled);
  return deadlines.race(deadline, both).catch(() => false);
}
