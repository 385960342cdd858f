/** Measures calls: rate, latency, the process's CPU; medians and quartiles of rounds. */

export interface Sample {
  /** Calls a second. */
  readonly rate: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  /** Microseconds of the process's CPU a call. */
  readonly cpu: number;
  /** p99 of the app's event loop delay, in milliseconds; not a number for calls without an app. */
  readonly delay: number;
}

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

/** Interpolated between the two nearest values. */
export function quantile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const [below, above] = [sorted[Math.floor(at)] ?? Number.NaN, sorted[Math.ceil(at)] ?? Number.NaN];
  return below + (above - below) * (at % 1);
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

/** The rounds' ratios: a machine that is slower for one round slows both sides of that round. */
export function ratios(ours: Sample[], theirs: Sample[], figure: keyof Sample = 'rate'): Spread {
  return spreadOf(ours.map((sample, round) => sample[figure] / theirs[round][figure]));
}
