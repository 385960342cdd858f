/** Batches calls, so that many calls share few statements. It knows neither SQL nor sessions. */

import { codeOf, timeoutError } from '../errors.js';
import { setImmediate } from './timers.js';

/** Limits of a batch, and of the number of batches in flight. */
export interface BatchLimits {
  /** The largest number of statements in flight. With two, the process prepares one while the server runs the other. */
  readonly maxInFlight: number;
  /**
   * How many items must wait before another statement is sent while one is in flight. Small statements cost more for
   * each item.
   */
  readonly minRows: number;
  /** The largest number of items in a batch. */
  readonly maxRows: number;
  /** The largest sum of the items' `bytes` in a batch. A larger item is sent alone. */
  readonly maxBytes: number;
}

/** The fastest limits of those that were measured on 2 cores (bench/README.md, "Choices that were measured"). */
export const DEFAULT_LIMITS: BatchLimits = { maxInFlight: 2, minRows: 32, maxRows: 256, maxBytes: 1_000_000 };

export interface BatcherOptions<Item, Result> {
  /**
   * Runs one batch. Resolves with one result for each item, in the order of the items.
   *
   * @param deadline the earliest of the items' deadlines
   * @param waited returns how many milliseconds the oldest item of the batch has waited
   */
  execute(items: Item[], deadline: number, waited: () => number): Promise<Result[]>;
  /** The approximate number of bytes that an item adds to the statement. */
  bytes(item: Item): number;
  /** Whether a single item may have caused the error. Then each half of the batch is sent separately. */
  shouldIsolate(error: unknown): boolean;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly bytes: number;
  /** When `send` was called. Like the deadline, it is in milliseconds on the clock of `performance.now()`. */
  readonly since: number;
  readonly deadline: number;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/**
 * Collects items while statements are in flight, and sends those that have collected as the next statement.
 *
 * There is no timer. If nothing is in flight, items are sent once the event loop has run the callbacks that are ready,
 * so a burst of calls shares a statement. If the last batch was a single item, the next item is sent at once, so
 * batching adds no delay to calls that come one at a time.
 */
export class Batcher<Item, Result> {
  readonly #options: BatcherOptions<Item, Result>;
  readonly #limits: BatchLimits;
  #queue: Waiting<Item, Result>[] = [];
  /** The index of the first item in the queue that has not been taken. */
  #head = 0;
  /** Parts of batches that failed. They are sent again, each separately, before newer items. */
  readonly #parts: Waiting<Item, Result>[][] = [];
  #inFlight = 0;
  #lastBatchSize = 0;
  #isScheduled = false;

  constructor(options: BatcherOptions<Item, Result>, limits: BatchLimits = DEFAULT_LIMITS) {
    this.#options = options;
    this.#limits = limits;
  }

  /** The number of items that have not been sent. */
  get waiting(): number {
    return this.#queue.length - this.#head + this.#parts.reduce((sum, part) => sum + part.length, 0);
  }

  /**
   * Sends an item with the next batch that has room for it.
   *
   * @param deadline on the clock of `performance.now()`, in milliseconds. An item that still waits then is not sent,
   * and fails with `TIMEOUT`.
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
   * Sends batches in the check phase of the event loop, which follows the poll phase, so that the calls of all requests
   * that arrived together share a batch. `process.nextTick` would send a batch after the callback of each socket.
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
      // The waiting items are divided among the free slots, so that the server runs one part while the next is
      // prepared.
      const share = Math.ceil(this.waiting / (maxInFlight - this.#inFlight));
      const batch = this.#takePart() ?? this.#take(Math.max(share, minRows));
      if (batch.length === 0) return;
      void this.#run(batch);
    }
  }

  /** Takes a part of a failed batch, without items whose deadline has passed. */
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
    // Unlike an index, `at` cannot find a property of a polluted `Object.prototype`.
    const oldest = () => this.#queue.at(this.#head);
    for (let first = oldest(); first && rejectIfLate(first, now); first = oldest()) this.#head++;
    // Under overload, which shows when an item has used up half of its time, the newest items are taken first: they can
    // still be answered in time. If the oldest were taken first, every answer would come too late.
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
    // The taken items are cut off once they are half of the array, so that each item is copied about once.
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
    // The batch has the earliest of its items' deadlines, so that no item is written after its call failed by
    // `TIMEOUT`.
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

  /** After a batch has timed out, rejects the items whose deadline is not after `until`, and sends the others again. */
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
