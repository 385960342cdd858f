/** How many calls a second, how long does one take, and what does it cost the process? */

export interface Sample {
  /** Calls a second. */
  readonly rate: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
  /** Microseconds of this process's CPU a call. */
  readonly cpu: number;
}

export type Call = (n: number, done: (error?: unknown) => void) => void;

/** Keeps `inFlight` calls under way for a time; each answered call makes the next one. */
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

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The median of each figure. */
export function medianSample(samples: Sample[]): Sample {
  const of = (figure: keyof Sample) => median(samples.map((sample) => sample[figure]));
  return { rate: of('rate'), p50: of('p50'), p99: of('p99'), cpu: of('cpu') };
}

/** The median of the rounds' ratios: a machine that is slower for one round slows both sides of that round. */
export function medianRatio(ours: Sample[], theirs: Sample[], figure: keyof Sample = 'rate'): number {
  return median(ours.map((sample, round) => sample[figure] / theirs[round][figure]));
}
