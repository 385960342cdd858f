/** Watches the deadlines of all calls and statements with a single timer. */

import { timeoutError } from '../errors.js';
import { clearTimeout, setImmediate, setTimeout } from './timers.js';

/** A moment in time, and a callback for when it has come. */
export interface Deadline {
  /** Milliseconds on the clock of `performance.now()`. */
  readonly time: number;
  /** The index in the list of watched deadlines; -1 once it is not watched any more. */
  place: number;
  readonly onLate: () => void;
}

/**
 * Watches any number of deadlines with one timer, so that a call which ends in time, as nearly all do, sets and clears
 * no timer of its own.
 */
export class Deadlines {
  /**
   * An array, not a Set: V8's Set keeps deleted entries reachable until it is rebuilt, so answered calls would stay in
   * memory.
   */
  readonly #watched: Deadline[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** When the timer fires, on the clock of `performance.now()`. */
  #timerTime = Number.POSITIVE_INFINITY;

  /**
   * Calls `onLate` once the time has come, unless the watch is ended before that.
   *
   * @param time on the clock of `performance.now()`, in milliseconds; with Infinity `onLate` is never called
   */
  watch(time: number, onLate: () => void): Deadline {
    const deadline = { time, place: this.#watched.length, onLate };
    this.#watched.push(deadline);
    if (time < this.#timerTime) this.#setTimer(time);
    return deadline;
  }

  /** Ends a watch. @returns `false` if `onLate` was called already, or the watch was ended before */
  end(deadline: Deadline): boolean {
    const { place } = deadline;
    if (place < 0) return false;
    deadline.place = -1;
    const last = this.#watched.pop() as Deadline;
    if (last !== deadline) {
      this.#watched[place] = last;
      last.place = place;
    }
    return true;
  }

  /** Settles as `answer` does. If the time comes first, it rejects with the error that `late` returns. */
  race<T>(time: number, answer: Promise<T>, late: () => Error = timeoutError): Promise<T> {
    return new Promise((resolve, reject) => {
      const deadline = this.watch(time, () => reject(late()));
      answer.then(
        (result) => {
          this.end(deadline);
          resolve(result);
        },
        (error) => {
          this.end(deadline);
          reject(error);
        },
      );
    });
  }

  #setTimer(time: number): void {
    clearTimeout(this.#timer);
    this.#timerTime = time;
    this.#timer = setTimeout(() => this.#lookAfterPoll(), Math.max(1, time - performance.now()));
    this.#timer.unref();
  }

  /**
   * Checks the deadlines only after the event loop has read its sockets. When the event loop was blocked, answers may
   * have arrived in time that it has not read yet, because timers run before sockets are read.
   */
  #lookAfterPoll(): void {
    setImmediate(() => setImmediate(() => this.#look()));
  }

  #look(): void {
    // The time of the timer is taken into account, because tests of an app may have replaced `performance.now` by a
    // clock that stands still.
    const now = Math.max(performance.now(), this.#timerTime);
    this.#timerTime = Number.POSITIVE_INFINITY;
    for (const deadline of this.#watched.filter(({ time }) => time <= now)) {
      if (this.end(deadline)) deadline.onLate();
    }
    const next = this.#watched.reduce((least, { time }) => Math.min(least, time), Number.POSITIVE_INFINITY);
    if (next < this.#timerTime) this.#setTimer(next);
  }
}

/** The deadlines of this process: all stores share one timer. */
export const deadlines = new Deadlines();
