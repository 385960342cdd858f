/**
 * Sends requests from a process of its own: on each connection for sessions that no other
 * connection uses.
 */

import autocannon from 'autocannon';
import { sign } from 'cookie-signature';
import { SECRET, SESSIONS, sessionIdFrom, textSessionIdFrom } from '../stores/data.js';

export interface Load {
  port: number;
  path: string;
  connections: number;
  /** How long, or how many requests. */
  seconds?: number;
  requests?: number;
}

export interface LoadResult {
  requests: number;
  rate: number;
  p50: number;
  p99: number;
  failed: number;
}

process.on('message', async ({ port, path, connections, seconds, requests }: Load) => {
  let client = 0;
  let answers = 0;
  const perClient = Math.floor(SESSIONS / connections);
  const started = performance.now();
  const result = await autocannon({
    url: `http://127.0.0.1:${port}`,
    connections,
    ...(requests === undefined ? { duration: seconds } : { amount: requests }),
    setupClient: (connection) => {
      connection.on('response', () => {
        answers++;
      });
      const first = client++ * perClient;
      const sessionId = path === '/read-text' ? textSessionIdFrom : sessionIdFrom;
      connection.setRequests(
        Array.from({ length: perClient }, (_, n) => ({
          method: 'GET',
          path,
          headers: { cookie: cookieOf(sessionId(first + n)) },
        })),
      );
    },
  });
  const elapsed = (performance.now() - started) / 1000;
  const answer: LoadResult = {
    // Its own count leaves out what came after its last full second.
    requests: answers,
    rate: answers / elapsed,
    p50: result.latency.p50,
    p99: result.latency.p99,
    failed: result.errors + result.timeouts + result.non2xx,
  };
  process.send?.(answer);
});
process.on('disconnect', () => process.exit());

function cookieOf(sid: string): string {
  return `connect.sid=${encodeURIComponent(`s:${sign(sid, SECRET)}`)}`;
}
