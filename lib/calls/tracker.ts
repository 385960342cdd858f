/** Answers each call exactly once, within its time limit, by callback or promise, and knows which are under way. */

import { PgStoreError, timeoutError, toPgStoreError } from '../errors.js';
import { deadlines } from './deadline.js';
import { nextTick } from './timers.js';

/** `error` is null or undefined after success, as with any Node callback. */
export type Callback<T> = (error?: any, result?: T) => void;

/**
 * The deadline of a call that sends many statements. Each of these has a deadline of its own, and the call has none.
 */
export const NO_DEADLINE = Number.POSITIVE_INFINITY;

/** Runs the calls of a store. */
export class CallTracker {
  readonly #timeout: number;
  #underWay = 0;
  #isClosed = false;
  #whenDone: (() => void) | undefined;

  /** @param timeout how many milliseconds a call may take */
  constructor(timeout: number) {
    this.#timeout = timeout;
  }

  /** The deadline of a call that starts now, in milliseconds on the clock of `performance.now()`. */
  deadline(): number {
    return performance.now() + this.#timeout;
  }

  /**
   * Runs a call. Without a callback it returns a promise. With one it returns nothing and calls back in a later tick,
   * so an error that the callback throws is an uncaught exception of the app.
   *
   * @param name the method, as errors name it
   * @param work gets the deadline, after which the call fails with `TIMEOUT`
   * @throws TypeError for a callback that is not a function
   */
  run<T>(
    name: string,
    callback: Callback<T> | undefined,
    work: (deadline: number) => Promise<T>,
    deadline = this.deadline(),
  ): Promise<T> | undefined {
    if (callback === undefined || callback === null) return this.promise(name, work, deadline);
    if (typeof callback !== 'function') {
      throw new TypeError(`PgStore.${name}: expected a function as callback, got ${typeof callback}`);
    }
    const succeed = (result: T) => nextTick(callback, null, result);
    this.#start(name, deadline, work, succeed, (error) => nextTick(callback, error));
    return undefined;
  }

  /** Runs a call that returns a promise. */
  promise<T>(name: string, work: (deadline: number) => Promise<T>, deadline = this.deadline()): Promise<T> {
    const answer = new Promise<T>((resolve, reject) => this.#start(name, deadline, work, resolve, reject));
    // Perhaps nobody awaits the promise, as with `req.session.destroy()` without a callback. A call that fails must not
    // end the process with an unhandled rejection.
    answer.catch(() => {});
    return answer;
  }

  /** Refuses new calls, and resolves when those under way have been answered. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#whenDone = resolve));
  }

  #start<T>(
    name: string,
    deadline: number,
    work: (deadline: number) => Promise<T>,
    succeed: (result: T) => void,
    fail: (error: Error) => void,
  ): void {
    if (this.#isClosed) {
      fail(toPgStoreError(name, new PgStoreError('the store is closed', 'CLOSED')));
      return;
    }
    let beLate!: () => void;
    // One timer watches the calls of all requests, and would call back in the async context of any of them. Through
    // this promise, the answer comes in the context of this call.
    const late = new Promise<void>((resolve) => {
      beLate = resolve;
    });
    const watched = deadlines.watch(deadline, beLate);
    void late.then(() => {
      fail(toPgStoreError(name, timeoutError()));
      this.#end();
    });
    this.#underWay++;
    work(deadline).then(
      (result) => {
        if (!deadlines.end(watched)) return;
        succeed(result);
        this.#end();
      },
      (error) => {
        if (!deadlines.end(watched)) return;
        fail(toPgStoreError(name, error));
        this.#end();
      },
    );
  }

  #end(): void {
    this.#underWay--;
    if (this.#underWay === 0) this.#whenDone?.();
  }
}

/**
 * Refuses a callback that was passed to a method which only returns a promise.
 *
 * @param given the arguments among which a callback may be
 * @throws TypeError
 */
export function refuseCallback(name: string, ...given: readonly unknown[]): void {
  if (given.some((argument) => typeof argument === 'function')) {
    throw new TypeError(`PgStore.${name}: takes no callback, it returns a promise`);
  }
}
