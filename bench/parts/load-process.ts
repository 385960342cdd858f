/**
 * Sends requests to an app, from a process of its own. Each connection uses sessions that no other connection uses.
 */

import autocannon from 'autocannon';
import { sign } from 'cookie-signature';
import { SECRET, SESSIONS, sessionIdFrom, textSessionIdFrom } from '../stores/data.js';

export interface Load {
  port: number;
  path: string;
  connections: number;
  /** How long requests are sent; without effect if `requests` is given. */
  seconds?: number;
  /** How many requests are sent. */
  requests?: number;
}

export interface LoadResult {
  requests: number;
  /** Requests a second. */
  rate: number;
  /** Latency in milliseconds. */
  p50: number;
  p99: number;
  /** How many requests had no answer, or one with another status than 2xx. */
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
    // autocannon's own count leaves out the answers after its last full second.
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
