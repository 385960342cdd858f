/** Measures the rate and latency of calls and the CPU that they take, and computes medians and quartiles of rounds. */

/** One measurement. */
export interface Sample {
  /** Calls a second. */
  readonly rate: number;
  /** Median and 99th percentile of the latency, in milliseconds. */
  readonly p50: number;
  readonly p99: number;
  /** CPU time of the process for each call, in microseconds. */
  readonly cpu: number;
  /** The 99th percentile of the app's event loop delay, in milliseconds; NaN for calls without an app. */
  readonly delay: number;
}

/** Makes the `n`th call, and calls `done` when it has been answered. */
export type Call = (n: number, done: (error?: unknown) => void) => void;

/** Keeps `inFlight` calls under way for a time; each answered call starts the next one. */
export function measure(call: Call, inFlight: number, milliseconds: number): Promise<Sample> {
  return new Promise((resolve, reject) => {
    const latencies: number[] = [];
    let next = 0;
    let running = inFlight;
    const cpu = process.cpuUsage();
    const start = performance.now();
    const end = start + milliseconds;
    const caller = () => {
      let asked = 0;
      const done = (error?: unknown) => {
        if (error) return reject(error);
        const now = performance.now();
        latencies.push(now - asked);
        if (now < end) ask(now);
        else if (--running === 0) finish(now);
      };
      const ask = (now: number) => {
        asked = now;
        call(next++, done);
      };
      ask(performance.now());
    };
    const finish = (now: number) => {
      const used = process.cpuUsage(cpu);
      resolve({
        rate: latencies.length / ((now - start) / 1000),
        ...percentiles(latencies),
        cpu: (used.user + used.system) / latencies.length,
        delay: Number.NaN,
      });
    };
    for (let n = 0; n < inFlight; n++) caller();
  });
}

export function percentiles(latencies: number[]): { p50: number; p99: number } {
  const sorted = Float64Array.from(latencies).sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99) };
}

/** The value below which a share of the values lies, interpolated between the two nearest values. */
export function quantile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const position = (sorted.length - 1) * share;
  const below = sorted[Math.floor(position)] ?? Number.NaN;
  const above = sorted[Math.ceil(position)] ?? Number.NaN;
  return below + (above - below) * (position % 1);
}

export function median(values: number[]): number {
  return quantile(values, 0.5);
}

/** A median with its first and third quartile. */
export interface Spread {
  readonly median: number;
  readonly quartiles: readonly [number, number];
}

export function spreadOf(values: number[]): Spread {
  return { median: median(values), quartiles: [quantile(values, 0.25), quantile(values, 0.75)] };
}

/**
 * The ratios of two stores' figures, computed round by round, since a machine that is slower for one round slows both
 * stores in that round.
 */
export function ratios(ours: Sample[], theirs: Sample[], figure: keyof Sample = 'rate'): Spread {
  return spreadOf(ours.map((sample, round) => sample[figure] / theirs[round][figure]));
}
