/** Shows the benchmark's progress on a terminal, in one line on standard error. */

import { Presets, SingleBar } from 'cli-progress';

export class Progress {
  readonly #bar = new SingleBar(
    { format: '{bar} {percentage}% | {part} | about {eta_formatted} left', clearOnComplete: true, hideCursor: true },
    Presets.shades_classic,
  );

  /** @param seconds how long the run will roughly take */
  constructor(seconds: number) {
    this.#bar.start(seconds, 0, { part: 'starting' });
  }

  at(part: string): void {
    this.#bar.update({ part });
  }

  /** @param seconds how many of the estimated seconds have passed since the last call */
  passed(seconds: number): void {
    this.#bar.increment(seconds);
  }

  stop(): void {
    this.#bar.stop();
  }
}
