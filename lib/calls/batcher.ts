/** Batching: many calls become few statements. Knows neither SQL nor sessions. */

import { codeOf, timeoutError } from '../errors.js';
import { setImmediate } from './timers.js';

/** What bounds a batch, and how many batches may be under way at once. */
export interface BatchLimits {
  /** Statements in flight. With more than one, the process prepares the next while the server works. */
  readonly maxInFlight: number;
  /**
   * How many items must wait before a statement leaves beside one in flight: small statements cost more for each item.
   */
  readonly minRows: number;
  /** Items in one batch. */
  readonly maxRows: number;
  /** Sum of the items' `bytes` in one batch; a single larger item goes alone. */
  readonly maxBytes: number;
}

/** Measured best on 2 cores; see docs/performance.md. */
export const DEFAULT_LIMITS: BatchLimits = { maxInFlight: 2, minRows: 32, maxRows: 256, maxBytes: 1_000_000 };

export interface BatcherOptions<Item, Result> {
  /**
   * Runs one batch. Resolves with one result for each item, in the items' order.
   *
   * @param deadline the earliest of the items' deadlines
   * @param waited gives how many milliseconds the batch's first item has waited
   */
  execute(items: Item[], deadline: number, waited: () => number): Promise<Result[]>;
  /** Roughly how many bytes an item adds to the statement. */
  bytes(item: Item): number;
  /** Whether a batch failed for a reason that may lie in a single item: then its halves are tried apart. */
  shouldIsolate(error: unknown): boolean;
  limits?: BatchLimits;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly bytes: number;
  /** When it was sent; like the deadline, in milliseconds on the clock of `performance.now()`. */
  readonly since: number;
  readonly deadline: number;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/**
 * Gathers items while statements are in flight, and sends all that have gathered as the next statement.
 *
 * No timer is involved. With nothing in flight, a burst of items leaves once the event loop has run the callbacks that
 * are ready; where the last batch was a single item, the next item leaves at once, so a lone call pays nothing for
 * batching.
 */
export class Batcher<Item, Result> {
  readonly #options: BatcherOptions<Item, Result>;
  readonly #limits: BatchLimits;
  #queue: Waiting<Item, Result>[] = [];
  /** Index of the first item in the queue that has not been taken. */
  #head = 0;
  /** Parts of failed batches, to be tried apart or again, before anything newer. */
  readonly #parts: Waiting<Item, Result>[][] = [];
  #inFlight = 0;
  #lastBatchSize = 0;
  #isScheduled = false;

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = options;
    this.#limits = options.limits ?? DEFAULT_LIMITS;
  }

  /** How many items wait for a place in a statement. */
  get waiting(): number {
    return this.#queue.length - this.#head + this.#parts.reduce((sum, part) => sum + part.length, 0);
  }

  /**
   * @param deadline on the clock of `performance.now()`, in milliseconds: an item that still waits then is not sent
   */
  send(item: Item, deadline: number): Promise<Result> {
    return new Promise((resolve, reject) => {
      const since = performance.now();
      this.#queue.push({ item, bytes: this.#options.bytes(item), since, deadline, resolve, reject });
      const isLone = this.#inFlight === 0 && this.#lastBatchSize === 1 && this.waiting === 1 && !this.#isScheduled;
      if (isLone) this.#fillSlots();
      else this.#schedule();
    });
  }

  /**
   * In the check phase, right after the poll phase: so the calls of all requests that arrived together go together.
   * `process.nextTick` would send those of each socket's callback apart.
   */
  #schedule(): void {
    if (this.#isScheduled || this.#inFlight >= this.#limits.maxInFlight) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#fillSlots();
    });
  }

  #fillSlots(): void {
    const { maxInFlight, minRows } = this.#limits;
    while (this.#inFlight < maxInFlight && (this.#inFlight === 0 || this.waiting >= minRows)) {
      // What waits is shared among the free slots: the server works on one part while the next is being prepared.
      const share = Math.ceil(this.waiting / (maxInFlight - this.#inFlight));
      const batch = this.#takePart() ?? this.#take(Math.max(share, minRows));
      if (batch.length === 0) return;
      void this.#run(batch);
    }
  }

  #takePart(): Waiting<Item, Result>[] | undefined {
    for (let part = this.#parts.shift(); part; part = this.#parts.shift()) {
      const now = performance.now();
      const inTime = part.filter((waiting) => !rejectIfLate(waiting, now));
      if (inTime.length > 0) return inTime;
    }
    return undefined;
  }

  #take(most: number): Waiting<Item, Result>[] {
    const now = performance.now();
    // `at` reads no index of `Object.prototype`, should somebody have put one there.
    const oldest = () => this.#queue.at(this.#head);
    for (let first = oldest(); first && rejectIfLate(first, now); first = oldest()) this.#head++;
    // Under overload, oldest first, every answer would come too late; newest first, those that can come in time do.
    const first = oldest();
    const isOverloaded = first !== undefined && now - first.since > first.deadline - now;
    const batch: Waiting<Item, Result>[] = [];
    const rows = Math.min(most, this.#limits.maxRows);
    let bytes = 0;
    while (this.#head < this.#queue.length && batch.length < rows) {
      const next = (isOverloaded ? this.#queue.at(-1) : oldest()) as Waiting<Item, Result>;
      if (batch.length > 0 && bytes + next.bytes > this.#limits.maxBytes) break;
      if (isOverloaded) this.#queue.pop();
      else this.#head++;
      if (rejectIfLate(next, now)) continue;
      bytes += next.bytes;
      batch.push(next);
    }
    // What was taken is cut off once it is most of the array: so each item is moved once on average.
    if (this.#head * 2 >= this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    return batch;
  }

  async #run(batch: Waiting<Item, Result>[]): Promise<void> {
    this.#inFlight++;
    this.#lastBatchSize = batch.length;
    const items = batch.map(({ item }) => item);
    // The earliest: what has failed with `TIMEOUT` is not done later for the sake of others.
    const deadline = batch.reduce(
      (earliest, waiting) => Math.min(earliest, waiting.deadline),
      Number.POSITIVE_INFINITY,
    );
    const sent = performance.now();
    const waited = () => performance.now() - Math.min(...batch.map(({ since }) => since));
    try {
      const results = await this.#options.execute(items, deadline, waited);
      for (const [n, waiting] of batch.entries()) waiting.resolve(results[n] as Result);
    } catch (error) {
      if (codeOf(error) === 'TIMEOUT') this.#sendAgain(batch, deadline + (deadline - sent) / 10, error);
      else this.#afterFailure(batch, error);
    }
    this.#inFlight--;
    if (this.waiting > 0) this.#schedule();
  }

  /** Sends those again that have time left when their batch is late; with hardly any left, an item is late too. */
  #sendAgain(batch: Waiting<Item, Result>[], until: number, error: unknown): void {
    for (const waiting of batch) if (waiting.deadline <= until) waiting.reject(error);
    const inTime = batch.filter((waiting) => waiting.deadline > until);
    if (inTime.length > 0) this.#parts.push(inTime);
  }

  #afterFailure(batch: Waiting<Item, Result>[], error: unknown): void {
    if (batch.length > 1 && this.#options.shouldIsolate(error)) {
      const middle = batch.length >> 1;
      this.#parts.push(batch.slice(0, middle), batch.slice(middle));
    } else {
      for (const waiting of batch) waiting.reject(error);
    }
  }
}

function rejectIfLate<Item, Result>({ deadline, reject }: Waiting<Item, Result>, now: number): boolean {
  if (deadline > now) return false;
  reject(timeoutError());
  return true;
}
