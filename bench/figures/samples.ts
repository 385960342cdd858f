/** What the rounds measured. */

import type { Sample } from './measure.js';

/** Samples by operation, calls in flight and store, one for each round. */
export class Samples {
  readonly #samples = new Map<string, Sample[]>();

  add(name: string, what: string, inFlight: number, sample: Sample): void {
    const key = JSON.stringify([name, what, inFlight]);
    const samples = this.#samples.get(key);
    if (samples) samples.push(sample);
    else this.#samples.set(key, [sample]);
  }

  of(name: string, what: string, inFlight: number): Sample[] {
    return this.#samples.get(JSON.stringify([name, what, inFlight])) ?? [];
  }
}
