/** Ends a server with the process that started it, however that process ends. */

import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';

/**
 * Starts a shell that outlives this process, sees its end by the end of a pipe, and then kills the
 * server: also after a `kill -9`, which runs no `exit` handler.
 */
export function endWithProcess(server: ChildProcess): void {
  // Where its program is missing, it has not been started.
  if (server.pid === undefined) return;
  const guard = spawn('sh', ['-c', 'cat; kill -KILL "$0"', String(server.pid)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  guard.unref();
  (guard.stdin as Socket).unref();
  server.once('exit', () => guard.kill());
}
