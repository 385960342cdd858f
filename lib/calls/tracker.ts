/** Calls under way: each is answered once, within the timeout, by callback or promise. */

import { PgStoreError, timeoutError, toPgStoreError } from '../errors.js';
import { deadlines } from './deadline.js';
import { nextTick } from './timers.js';

/** `error` is null or undefined after success, as with any Node callback. */
export type Callback<T> = (error?: any, result?: T) => void;

/** A call of many statements: each of them has a deadline of its own, the call has none. */
export const NO_DEADLINE = Number.POSITIVE_INFINITY;

/** Runs the calls, and knows which are under way. */
export class CallTracker {
  readonly #timeout: number;
  #underWay = 0;
  #isClosed = false;
  #whenDone: (() => void) | undefined;

  /** @param timeout milliseconds that a call may take */
  constructor(timeout: number) {
    this.#timeout = timeout;
  }

  /** The deadline of a call that starts now, in milliseconds on the clock of `performance.now()`. */
  deadline(): number {
    return performance.now() + this.#timeout;
  }

  /**
   * Runs a call. With a callback it returns nothing and calls back later, never in the same tick; what the callback
   * throws is the app's own uncaught exception. Without one it returns a promise.
   *
   * @param work gets the call's deadline; the call fails then
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
    // Perhaps nobody awaits it, as with `req.session.destroy()` without a callback: a failed call never ends the
    // process.
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
    // A promise, so that the answer comes in the async context of this call: one timer watches the calls of all
    // requests.
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
 * Refuses callbacks of methods that return promises alone.
 *
 * @param given the arguments that may be one
 * @throws TypeError
 */
export function refuseCallback(name: string, ...given: readonly unknown[]): void {
  if (given.some((argument) => typeof argument === 'function')) {
    throw new TypeError(`PgStore.${name}: takes no callback, it returns a promise`);
  }
}
