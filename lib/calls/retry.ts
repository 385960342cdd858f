/** What an error means for the call that met it, and the pause before the next attempt. */

import { codeOf } from '../errors.js';
import { sleep } from './timers.js';

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
 * What an error means. `transient`: the same statement may succeed a moment later. `unfit`: it may succeed on another
 * connection, and this one is dropped. `final`: it would fail again.
 */
export type Verdict = 'transient' | 'unfit' | 'final';

/**
 * Errors that pass, by code: SQLSTATEs of PostgreSQL's Appendix A, codes of Postgres.js and of the store for
 * connections, and of the operating system. Every other error is final. docs/errors.md has the same table.
 */
const PASSING: Readonly<Record<string, Verdict>> = {
  // Class 08, connection exceptions; poolers use 08P01 for a server that they cannot reach.
  '08000': 'transient',
  '08001': 'transient',
  '08003': 'transient',
  '08004': 'transient',
  '08006': 'transient',
  '08007': 'transient',
  '08P01': 'unfit',
  // A transaction that somebody has left open on the connection: it has failed, or it was ended for its idleness.
  '25P02': 'unfit',
  '25P03': 'unfit',
  // The server takes no writes: after a failover this connection still leads to the old primary.
  '25006': 'unfit',
  // Transactions that the server asks to repeat, and one whose end is unknown.
  '40001': 'transient',
  '40003': 'transient',
  '40P01': 'transient',
  // Too many connections.
  '53300': 'transient',
  // The server shuts down, has crashed, starts; the session was idle for too long.
  '57P01': 'transient',
  '57P02': 'transient',
  '57P03': 'transient',
  '57P05': 'unfit',
  // The connection broke, or there was none.
  CONNECTION_CLOSED: 'transient',
  CONNECTION_DESTROYED: 'transient',
  CONNECTION_ENDED: 'transient',
  CONNECT_TIMEOUT: 'transient',
  HOST_UNFIT: 'transient',
  // A client of the app's in the middle of a COPY.
  COPY_IN_PROGRESS: 'transient',
  ECONNABORTED: 'transient',
  ECONNREFUSED: 'transient',
  ECONNRESET: 'transient',
  ENOTCONN: 'transient',
  EPIPE: 'transient',
  ERR_SOCKET_CLOSED: 'transient',
  ERR_STREAM_DESTROYED: 'transient',
  ERR_STREAM_WRITE_AFTER_END: 'transient',
  // No way to the host, or no name of it.
  EAI_AGAIN: 'transient',
  EHOSTDOWN: 'transient',
  EHOSTUNREACH: 'transient',
  ENETDOWN: 'transient',
  ENETRESET: 'transient',
  ENETUNREACH: 'transient',
  ENOTFOUND: 'transient',
  ERR_SOCKET_CONNECTION_TIMEOUT: 'transient',
  ETIMEDOUT: 'transient',
  // A Unix socket's file is missing while its server is down, and its queue is full while it is busy.
  EAGAIN: 'transient',
  ENOENT: 'transient',
  // The process, or the machine, has no files, ports or buffers left for a moment.
  EADDRNOTAVAIL: 'transient',
  EMFILE: 'transient',
  ENFILE: 'transient',
  ENOBUFS: 'transient',
};

/** The codes that pass, for the spec that compares them with docs/errors.md. */
export const PASSING_CODES = Object.keys(PASSING);

/**
 * A Citus coordinator says the first of its connection to a worker that has restarted, pgpool-II the second while the
 * server behind it is down; both with SQLSTATE XX000, an internal error.
 */
const LOST_BEHIND = /^(failure on connection marked as essential|failed to create a backend \d+ connection)/;

export function verdictOn(error: unknown): Verdict {
  const code = codeOf(error);
  if (Object.hasOwn(PASSING, code)) return PASSING[code] as Verdict;
  const isLostBehind = code === 'XX000' && LOST_BEHIND.test((error as Error).message);
  return isLostBehind ? 'transient' : 'final';
}

/** Whether the statement may be repeated. */
export function isTransient(error: unknown): boolean {
  return verdictOn(error) !== 'final';
}

/** Whether the connection that it came from must not be used again. */
export function needsNewConnection(error: unknown): boolean {
  return verdictOn(error) === 'unfit';
}

/**
 * Milliseconds to wait after the given attempt (1 for the first): doubling, and up to half as much
 * again at random, so that processes which failed together do not come back together.
 */
export function backoffDelay(attempt: number, { delay }: RetryOptions, random = Math.random): number {
  return delay * 2 ** (attempt - 1) * (1 + random() / 2);
}

/** The attempts at one piece of work. */
export class Attempts {
  readonly #retry: RetryOptions;
  readonly #deadline: number;
  /** How many have been made. */
  made = 0;

  /** @param deadline on the clock of `performance.now()`, in milliseconds; nothing is tried again after it */
  constructor(retry: RetryOptions, deadline: number) {
    this.#retry = retry;
    this.#deadline = deadline;
  }

  /** Milliseconds until the next attempt after one that failed, or nothing where no other follows. */
  pauseAfter(error: unknown): number | undefined {
    this.made++;
    if (!isTransient(error) || this.made >= this.#retry.attempts) return undefined;
    const pause = backoffDelay(this.made, this.#retry);
    return performance.now() + pause < this.#deadline ? pause : undefined;
  }
}

/** Runs `work`, again after transient errors: it must be safe to repeat. The parameters are those of `Attempts`. */
export async function withRetries<T>(
  retry: RetryOptions,
  deadline: number,
  onRetry: (attempt: number, error: unknown) => void,
  work: () => Promise<T>,
): Promise<T> {
  const attempts = new Attempts(retry, deadline);
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const pause = attempts.pauseAfter(error);
      if (pause === undefined) throw error;
      onRetry(attempts.made, error);
      await sleep(pause);
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
