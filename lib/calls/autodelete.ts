/** The timer that deletes expired rows. */

/**
 * Calls a function at a steady interval, never while its last call is still running, and
 * never keeps the process alive.
 *
 * The period is varied by up to a quarter, once, so that processes started together do not tick
 * together.
 */
export class Autodelete {
  #timer: NodeJS.Timeout | undefined;
  #running = false;

  /** @param seconds between calls; `false`: none */
  constructor(seconds: number | false, run: () => Promise<void>, random = Math.random) {
    if (seconds === false) return;
    const period = seconds * 1000 * (0.75 + random() / 2);
    this.#timer = setInterval(() => {
      if (this.#running) return;
      this.#running = true;
      void run().finally(() => {
        this.#running = false;
      });
    }, period);
    this.#timer.unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
