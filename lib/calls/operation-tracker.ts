/** Calls under way: each is answered once, within the timeout, by callback or promise. */

import { PgStoreError, timeoutError, toPgStoreError } from '../errors.js';

/** `error` is null or undefined after success, as with any Node callback. */
export type Callback<T> = (error?: any, result?: T) => void;

interface Call {
  /** Below zero once answered. */
  deadline: number;
  expire(): void;
}

/** The calls under way. */
export class OperationTracker {
  readonly #timeout: number;
  /** All have the same time, so the one that was added first is the one that is due first. */
  readonly #due = new Set<Call>();
  #running = 0;
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
   * Runs a call. With a callback it returns nothing and calls back later, never in the same tick; what the callback throws
   * is the app's own uncaught exception. Without one it returns a promise.
   *
   * @param work gets its deadline; the call fails then
   */
  run<T>(
    name: string,
    callback: Callback<T> | undefined,
    work: (deadline: number) => Promise<T>,
  ): Promise<T> | undefined {
    return toCallbackOrPromise(callback, this.#track(name, this.deadline(), work));
  }

  /** The same for a call of many statements: each of them has a deadline of its own, the call has none. */
  runWithoutDeadline<T>(
    name: string,
    callback: Callback<T> | undefined,
    work: () => Promise<T>,
  ): Promise<T> | undefined {
    return toCallbackOrPromise(callback, this.#track(name, Number.POSITIVE_INFINITY, work));
  }

  /** Refuses new calls, and resolves when those under way have been answered. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#running > 0) {
      await new Promise<void>((resolve) => {
        this.#whenDone = resolve;
      });
    }
    clearTimeout(this.#timer);
  }

  #track<T>(name: string, deadline: number, work: (deadline: number) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(toPgStoreError(name, new PgStoreError('the store is closed', 'CLOSED')));
      this.#running++;
      const call: Call = { deadline, expire: () => end(() => reject(toPgStoreError(name, timeoutError()))) };
      const end = (answer: () => void) => {
        if (call.deadline < 0) return;
        call.deadline = -1;
        this.#due.delete(call);
        answer();
        if (--this.#running === 0) this.#whenDone?.();
      };
      if (deadline !== Number.POSITIVE_INFINITY) {
        this.#due.add(call);
        if (!this.#timer) this.#watch(deadline);
      }
      work(deadline).then(
        (result) => end(() => resolve(result)),
        (error) => end(() => reject(toPgStoreError(name, error))),
      );
    });
  }

  #watch(deadline: number): void {
    const wait = Math.max(1, deadline - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      for (const call of this.#due) {
        if (call.deadline > performance.now()) return this.#watch(call.deadline);
        call.expire();
      }
    }, wait);
    this.#timer.unref();
  }
}

function toCallbackOrPromise<T>(callback: Callback<T> | undefined, answer: Promise<T>): Promise<T> | undefined {
  if (!callback) {
    // Nobody may be awaiting it, as with `req.session.destroy()` without a callback: a failed call never ends the process.
    answer.catch(() => {});
    return answer;
  }
  answer.then(
    (result) => process.nextTick(callback, null, result),
    (error) => process.nextTick(callback, error),
  );
  return undefined;
}
