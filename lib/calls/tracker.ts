/** Calls under way: each is answered once, within the timeout, by callback or promise. */

import { nextTick } from 'node:process';
import { PgStoreError, timeoutError, toPgStoreError } from '../errors.js';
import { clearTimeout, setTimeout } from '../timers.js';

/** `error` is null or undefined after success, as with any Node callback. */
export type Callback<T> = (error?: any, result?: T) => void;

interface Call {
  readonly deadline: number;
  /** Its place in the list of calls under way; below zero once answered. */
  place: number;
  fail(error: unknown): void;
}

/** The calls under way. */
export class OperationTracker {
  readonly #timeout: number;
  /**
   * In no order. Not a Set: what V8 keeps of one that changes all the time keeps answered calls
   * alive for long.
   */
  readonly #running: Call[] = [];
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #whenDone: (() => void) | undefined;

  /** @param timeout milliseconds that a call may take */
  constructor(timeout: number) {
    this.#timeout = timeout;
  }

  /** Of a call made now; milliseconds on the clock of `performance.now()`. */
  deadline(): number {
    return performance.now() + this.#timeout;
  }

  /**
   * Runs a call. With a callback it returns nothing and calls back later, never in the same tick;
   * what the callback throws is the app's own uncaught exception. Without one it returns a promise.
   *
   * @throws TypeError for a callback that is no function
   * @param work gets its deadline; the call fails then. Infinity: its statements have deadlines of
   *   their own
   */
  run<T>(
    name: string,
    callback: Callback<T> | undefined,
    work: (deadline: number) => Promise<T>,
    deadline = this.deadline(),
  ): Promise<T> | undefined {
    if (callback) {
      if (typeof callback !== 'function') {
        throw new TypeError(`PgStore.${name}: expected a function as callback, got ${typeof callback}`);
      }
      const succeed = (result: T) => nextTick(callback, null, result);
      this.#start(name, deadline, work, succeed, (error) => nextTick(callback, error));
      return undefined;
    }
    const answer = new Promise<T>((resolve, reject) => this.#start(name, deadline, work, resolve, reject));
    // Nobody may be awaiting it, as with `req.session.destroy()` without a callback: a failed call
    // never ends the process.
    answer.catch(() => {});
    return answer;
  }

  /** Refuses new calls, and resolves when those under way have been answered. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#running.length > 0) await new Promise<void>((resolve) => (this.#whenDone = resolve));
    clearTimeout(this.#timer);
  }

  #start<T>(
    name: string,
    deadline: number,
    work: (deadline: number) => Promise<T>,
    succeed: (result: T) => void,
    fail: (error: Error) => void,
  ): void {
    if (this.#closed) {
      fail(toPgStoreError(name, new PgStoreError('the store is closed', 'CLOSED')));
      return;
    }
    const place = this.#running.length;
    const call: Call = { deadline, place, fail: (error) => this.#end(call) && fail(toPgStoreError(name, error)) };
    this.#running.push(call);
    if (!this.#timer && deadline !== Number.POSITIVE_INFINITY) this.#watch(deadline);
    work(deadline).then((result) => this.#end(call) && succeed(result), call.fail);
  }

  /** Whether the call was still to be answered. */
  #end(call: Call): boolean {
    const { place } = call;
    if (place < 0) return false;
    call.place = -1;
    const last = this.#running.pop() as Call;
    if (last !== call) {
      this.#running[place] = last;
      last.place = place;
    }
    if (this.#running.length === 0) this.#whenDone?.();
    return true;
  }

  #watch(deadline: number): void {
    // A little late rather than all the time, where very many calls end one after the other.
    const wait = Math.max(1, this.#timeout / 1000, deadline - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const now = performance.now();
      for (const call of this.#running.filter(({ deadline }) => deadline <= now)) call.fail(timeoutError());
      const next = this.#running.reduce((least, { deadline }) => Math.min(least, deadline), Number.POSITIVE_INFINITY);
      if (next !== Number.POSITIVE_INFINITY) this.#watch(next);
    }, wait);
    this.#timer.unref();
  }
}
