/** Asks a server to cancel the statement of a connection. */

import { deadlines } from '../calls/deadline.js';
import { type Host, Transport, type TransportSettings } from './transport.js';

/** The number that marks a cancel request (PostgreSQL: Message Formats, CancelRequest). */
const CANCEL_REQUEST_CODE = 80_877_102;

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
    await deadlines.race(deadline, closed).catch(() => transport.reset());
    return performance.now() < deadline;
  } catch {
    return false;
  }
}
