/** Deadlines of calls and statements: one timer watches all of them. */

import { timeoutError } from '../errors.js';
import { clearTimeout, setImmediate, setTimeout } from './timers.js';

/** A moment, and what is done when it has come. */
export interface Deadline {
  /** Milliseconds on the clock of `performance.now()`. */
  readonly time: number;
  /** Its index in the list of those that are watched, or -1 when it no longer is. */
  place: number;
  readonly onLate: () => void;
}

/**
 * Watches any number of deadlines with one timer, so that a call which ends in time, as nearly all do, sets and clears
 * no timer of its own.
 */
export class Deadlines {
  /** An array, not a Set: V8's Set keeps deleted entries reachable until it is rebuilt. */
  readonly #watched: Deadline[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** When the timer fires, on the clock of `performance.now()`. */
  #timerTime = Number.POSITIVE_INFINITY;

  /** @param time on the clock of `performance.now()`, in milliseconds; Infinity is never late */
  watch(time: number, onLate: () => void): Deadline {
    const deadline = { time, place: this.#watched.length, onLate };
    this.#watched.push(deadline);
    if (time < this.#timerTime) this.#setTimer(time);
    return deadline;
  }

  /** Ends the watch. @returns whether it was still watched: false where it was late or has been ended before */
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

  /** Resolves or rejects as `answer` does; rejects with what `late` returns once the time has come. */
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
   * After the event loop has stood still, answers may wait in sockets that it has not read yet: timers come before
   * sockets. So it reads them first.
   */
  #lookAfterPoll(): void {
    setImmediate(() => setImmediate(() => this.#look()));
  }

  #look(): void {
    // The timer counts as well: an app's tests may have put a clock in place of this one that stands still.
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
