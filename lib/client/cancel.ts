/** Asks a server to cancel what a connection is doing. */

import { deadlines } from '../calls/deadline.js';
import { type Host, Transport, type TransportSettings } from './transport.js';

const CANCEL_REQUEST_CODE = 80_877_102;

/**
 * Sends a cancel request over a connection of its own, secured as the other one is, as PostgreSQL's protocol has it.
 *
 * @param key the process ID and the secret of the connection's backend
 * @param deadline on the clock of `performance.now()`, in milliseconds
 * @returns whether the server has closed the connection: then it has signalled the backend, and no signal comes later
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
