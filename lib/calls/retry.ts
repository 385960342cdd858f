/** Decides whether a statement is repeated after an error, and how long to wait before that. */

import { codeOf, timeoutError } from '../errors.js';
import { sleep } from './timers.js';

/** How transient errors are retried. */
export interface RetryOptions {
  /** The largest number of attempts, the first one included. Default 6. */
  readonly attempts: number;
  /**
   * Milliseconds before the second attempt. Before each further one they are doubled, and up to half is added at
   * random. Default 100, which is 3 to 5 s for all six attempts.
   */
  readonly delay: number;
}

/**
 * What an error says about the next attempt. `transient`: the same statement may succeed a moment later. `unfit`: it
 * may succeed on another connection, and this one is closed. `final`: it would fail again.
 */
export type Verdict = 'transient' | 'unfit' | 'final';

/**
 * Errors that are not final, by code: SQLSTATEs (PostgreSQL's Appendix A), codes of Postgres.js and of the store about
 * connections, and codes of the operating system. docs/errors.md has the same table.
 */
const PASSING: Readonly<Record<string, Verdict>> = {
  // Class 08 are connection exceptions. Poolers report 08P01 for a server that they cannot reach.
  '08000': 'transient',
  '08001': 'transient',
  '08003': 'transient',
  '08004': 'transient',
  '08006': 'transient',
  '08007': 'transient',
  '08P01': 'unfit',
  // Somebody has left a transaction open on the connection, and it has failed, or was ended because it was idle.
  '25P02': 'unfit',
  '25P03': 'unfit',
  // The server accepts no writes: after a failover, this connection still leads to the old primary.
  '25006': 'unfit',
  // Transactions that PostgreSQL asks clients to repeat, and one whose outcome is unknown.
  '40001': 'transient',
  '40003': 'transient',
  '40P01': 'transient',
  // Too many connections.
  '53300': 'transient',
  // The server shuts down, has crashed, or starts up; or it ended a session that was idle for too long.
  '57P01': 'transient',
  '57P02': 'transient',
  '57P03': 'transient',
  '57P05': 'unfit',
  // The connection broke, or could not be opened.
  CONNECTION_CLOSED: 'transient',
  CONNECTION_DESTROYED: 'transient',
  CONNECTION_ENDED: 'transient',
  CONNECT_TIMEOUT: 'transient',
  HOST_UNFIT: 'transient',
  // The app's own client is in the middle of a COPY.
  COPY_IN_PROGRESS: 'transient',
  ECONNABORTED: 'transient',
  ECONNREFUSED: 'transient',
  ECONNRESET: 'transient',
  ENOTCONN: 'transient',
  EPIPE: 'transient',
  ERR_SOCKET_CLOSED: 'transient',
  ERR_STREAM_DESTROYED: 'transient',
  ERR_STREAM_WRITE_AFTER_END: 'transient',
  // The host cannot be reached, or its name cannot be resolved.
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

/** The codes of errors that are not final, for the spec that compares them with docs/errors.md. */
export const PASSING_CODES = Object.keys(PASSING);

/**
 * Messages about lost connections that have the SQLSTATE XX000 of internal errors. A Citus coordinator reports the
 * first one about a worker that has restarted, and pgpool-II the second one while the server behind it is down.
 */
const LOST_BEHIND = /^(failure on connection marked as essential|failed to create a backend \d+ connection)/;

export function verdictOn(error: unknown): Verdict {
  const code = codeOf(error);
  if (Object.hasOwn(PASSING, code)) return PASSING[code] as Verdict;
  const isLostBehind = code === 'XX000' && LOST_BEHIND.test((error as Error).message);
  return isLostBehind ? 'transient' : 'final';
}

/** Whether the statement that failed with this error may be repeated. */
export function isTransient(error: unknown): boolean {
  return verdictOn(error) !== 'final';
}

/** Whether the connection from which the error came must not be used again. */
export function needsNewConnection(error: unknown): boolean {
  return verdictOn(error) === 'unfit';
}

/**
 * The milliseconds to wait after an attempt (1 for the first): doubled each time, and up to half as much longer at
 * random, so that processes which failed at the same time do not try again at the same time.
 */
export function backoffDelay(attempt: number, { delay }: RetryOptions, random = Math.random): number {
  return delay * 2 ** (attempt - 1) * (1 + random() / 2);
}

/** Counts the attempts at a task, and says how long to wait before the next one. */
export class Attempts {
  readonly #retry: RetryOptions;
  readonly #deadline: number;
  /** How many attempts have been made. */
  made = 0;

  /** @param deadline on the clock of `performance.now()`, in milliseconds; nothing is tried again after it */
  constructor(retry: RetryOptions, deadline: number) {
    this.#retry = retry;
    this.#deadline = deadline;
  }

  /** Notes that an attempt failed. @returns milliseconds until the next one; `undefined` if there is none */
  pauseAfter(error: unknown): number | undefined {
    this.made++;
    if (!isTransient(error) || this.made >= this.#retry.attempts) return undefined;
    const pause = backoffDelay(this.made, this.#retry);
    return performance.now() + pause < this.#deadline ? pause : undefined;
  }
}

/**
 * Runs `work`, and repeats it after transient errors, so it must be safe to repeat.
 *
 * @param deadline on the clock of `performance.now()`, in milliseconds. Nothing starts after it: a call that has failed
 * with `TIMEOUT` is not carried out later.
 * @throws PgStoreError `TIMEOUT` if the deadline has passed already, perhaps while the call waited for its turn
 */
export async function withRetries<T>(
  retry: RetryOptions,
  deadline: number,
  onRetry: (attempt: number, error: unknown) => void,
  work: () => Promise<T>,
): Promise<T> {
  const attempts = new Attempts(retry, deadline);
  for (;;) {
    if (performance.now() >= deadline) throw timeoutError();
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
 * Whether a statement for many rows may have failed because of one of these rows. That is not so if the statement could
 * not run at all: because of the connection, privileges, a missing table or column, or resources.
 */
export function isRowLevelError(error: unknown): boolean {
  const code = codeOf(error);
  if (isTransient(error) || code === 'TIMEOUT') return false;
  // Row-level security refuses a single row with 42501 too, which otherwise means a missing privilege.
  return !/^(0|25|26|28|3|42(?!501)|53|57P|58|F0)/.test(code);
}
