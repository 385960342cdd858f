/** Repeats a task at an interval. */

import { clearInterval, setInterval } from './timers.js';

/** Varies an interval at random, so that processes which were started together do not work at the same moments. */
type Jitter = (milliseconds: number) => number;

/** Makes the interval up to a quarter shorter or longer. */
export const shorterOrLonger: Jitter = (milliseconds) => milliseconds * (0.75 + Math.random() / 2);

/** Makes the interval up to a quarter shorter. */
export const onlyShorter: Jitter = (milliseconds) => milliseconds * (1 - Math.random() / 4);

/**
 * Runs a task at an interval, with `setInterval`. A turn is left out while the task is still running. The timer does
 * not keep the process alive.
 */
export class Interval {
  readonly #timer: NodeJS.Timeout | undefined;
  #isRunning = false;

  /** @param seconds between two starts; `jitter` varies them once, here. With `false` the task never runs. */
  constructor(seconds: number | false, task: () => Promise<void>, jitter: Jitter = shorterOrLonger) {
    if (seconds === false) return;
    this.#timer = setInterval(() => this.#run(task), jitter(seconds * 1000));
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #run(task: () => Promise<void>): Promise<void> {
    if (this.#isRunning) return;
    this.#isRunning = true;
    try {
      await task();
    } finally {
      this.#isRunning = false;
    }
  }
}
