/** The timer that deletes expired rows. */

/**
 * Calls a function at a steady interval, never while its last call is still running, and
 * never keeps the process alive.
 *
 * The period is varied by up to a quarter, once, so that processes started together do not tick
 * together.
 *
 * @param seconds between calls; `false`: none
 * @returns a function that stops it
 */
export function startAutodelete(
  seconds: number | false,
  run: () => Promise<void>,
  random: () => number = Math.random,
): () => void {
  if (seconds === false) return () => {};
  let isRunning = false;
  const period = seconds * 1000 * (0.75 + random() / 2);
  const timer = setInterval(() => {
    if (isRunning) return;
    isRunning = true;
    void run().finally(() => {
      isRunning = false;
    });
  }, period);
  timer.unref();
  return () => clearInterval(timer);
}
