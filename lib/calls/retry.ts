/** Which errors are transient, and the backoff before the next attempt. */

import { codeOf } from '../errors.js';
import { sleep } from '../timers.js';

/** How transient errors are retried. */
export interface RetryOptions {
  /** Tries in all, the first included. Default 6. */
  readonly attempts: number;
  /**
   * Milliseconds before the second try, doubled for each further one. Default 100: 3 to 5 s in all.
   */
  readonly delay: number;
}

/**
 * SQLSTATEs of PostgreSQL's Appendix A: connection exceptions (class 08), server shutting down,
 * crashed or starting (57P01–57P03), too many connections, and transactions that the server asks to
 * repeat.
 */
const TRANSIENT_SQLSTATES = /^(08...|57P0[123]|53300|40001|40P01)$/;

const TRANSIENT_CODES = new Set([
  'CONNECTION_CLOSED',
  'CONNECTION_DESTROYED',
  'CONNECTION_ENDED',
  'CONNECT_TIMEOUT',
  'HOST_UNFIT',
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EAI_AGAIN',
  'ENOTFOUND',
  // A Unix socket's file is missing while its server is down.
  'ENOENT',
]);

/**
 * A Citus coordinator says the first of its connection to a worker that has restarted, pgpool-II the
 * second while the server behind it is down; both with SQLSTATE XX000, an internal error.
 */
const LOST_BEHIND = /^(failure on connection marked as essential|failed to create a backend \d+ connection)/;

export function isTransient(error: unknown): boolean {
  const code = codeOf(error);
  const isLostBehind = code === 'XX000' && LOST_BEHIND.test((error as Error).message);
  return TRANSIENT_CODES.has(code) || TRANSIENT_SQLSTATES.test(code) || isLostBehind;
}

/**
 * Milliseconds to wait after the given attempt (1 for the first): doubling, and up to half as much
 * again at random, so that processes which failed together do not come back together.
 */
export function backoffDelay(attempt: number, { delay }: RetryOptions, random = Math.random): number {
  return delay * 2 ** (attempt - 1) * (1 + random() / 2);
}

/**
 * Runs `work`, again after transient errors: it must be safe to repeat.
 *
 * @param deadline on the clock of `performance.now()`, in milliseconds; nothing is tried again
 *                 after it
 */
export async function withRetries<T>(
  retry: RetryOptions,
  deadline: number,
  onRetry: (attempt: number, error: unknown) => void,
  work: () => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      const wait = backoffDelay(attempt, retry);
      if (!isTransient(error) || attempt >= retry.attempts || performance.now() + wait >= deadline) throw error;
      onRetry(attempt, error);
      await sleep(wait);
    }
  }
}

/**
 * Whether a statement of many rows may have failed because of one of them. Not so where the
 * statement as such could not run: connection, rights, missing table or column, resources.
 */
export function isRowLevelError(error: unknown): boolean {
  const code = codeOf(error);
  if (isTransient(error) || code === 'TIMEOUT') return false;
  // 42501 is also a row that row-level security refuses.
  return !/^(0|25|26|28|3|42(?!501)|53|57P|58|F0)/.test(code);
}
