/** Keeps the samples of a run. */

import type { Sample } from './measure.js';

/** Samples by store, operation and number of calls in flight; each has one sample for each round. */
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
