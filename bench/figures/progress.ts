/** The benchmark's progress: one line on a terminal's standard error, nothing elsewhere. */

import { Presets, SingleBar } from 'cli-progress';

export class Progress {
  readonly #bar = new SingleBar(
    { format: '{bar} {percentage}% | {part} | about {eta_formatted} left', clearOnComplete: true, hideCursor: true },
    Presets.shades_classic,
  );

  /** @param seconds that the whole will take, roughly */
  constructor(seconds: number) {
    this.#bar.start(seconds, 0, { part: 'starting' });
  }

  at(part: string): void {
    this.#bar.update({ part });
  }

  /** @param seconds of the estimate that are behind us */
  passed(seconds: number): void {
    this.#bar.increment(seconds);
  }

  stop(): void {
    this.#bar.stop();
  }
}
