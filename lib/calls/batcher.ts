/** Batching: many calls become few statements. Knows neither SQL nor sessions. */

import { timeoutError } from '../errors.js';
import { setImmediate } from '../timers.js';

/** What bounds a batch, and how many batches may be under way at once. */
export interface BatchLimits {
  /** Statements in flight. With more, the process prepares the next one while the server works. */
  readonly maxInFlight: number;
  /**
   * Items that must wait before a statement leaves beside one in flight; small statements cost more
   * for each item.
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
   * @param waited milliseconds that the batch's first item has waited
   */
  execute(items: Item[], deadline: number, waited: () => number): Promise<Result[]>;
  /** Roughly how many bytes an item adds to the statement. */
  bytes(item: Item): number;
  /**
   * Whether a batch failed for a reason that may lie in a single item; then each goes again alone.
   */
  shouldIsolate(error: unknown): boolean;
  limits?: BatchLimits;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly bytes: number;
  readonly deadline: number;
  /** When half of its time is over. */
  readonly halfDeadline: number;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/**
 * Gathers items while statements are in flight and sends all that gathered as the next statement.
 *
 * No timer: with nothing in flight an item leaves once the event loop has run the callbacks that
 * are ready, so a lone call pays nothing for batching.
 */
export class Batcher<Item, Result> {
  readonly #options: BatcherOptions<Item, Result>;
  readonly #limits: BatchLimits;
  #queue: Waiting<Item, Result>[] = [];
  #head = 0;
  /** Items of a failed batch, each to be sent alone, before anything newer. */
  #isolated: Waiting<Item, Result>[] = [];
  #inFlight = 0;
  #isScheduled = false;

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = options;
    this.#limits = options.limits ?? DEFAULT_LIMITS;
  }

  /** How many items wait for a slot. */
  get waiting(): number {
    return this.#queue.length - this.#head + this.#isolated.length;
  }

  /**
   * @param deadline on the clock of `performance.now()`, in milliseconds: an item still waiting by
   *                 then is not sent.
   */
  send(item: Item, deadline: number): Promise<Result> {
    return new Promise((resolve, reject) => {
      const halfDeadline = (performance.now() + deadline) / 2;
      this.#queue.push({ item, bytes: this.#options.bytes(item), deadline, halfDeadline, resolve, reject });
      this.#schedule();
    });
  }

  /**
   * In the check phase, right after the poll phase: the calls of all requests that arrived together
   * go together. `process.nextTick` would send those of each socket's callback apart.
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
      // What waits is shared among the free slots: the server works on one part while the next is
      // being prepared.
      const share = Math.ceil(this.waiting / (maxInFlight - this.#inFlight));
      const batch = this.#take(Math.max(share, minRows));
      if (batch.length === 0) return;
      this.#inFlight++;
      void this.#run(batch).then(() => {
        this.#inFlight--;
        this.#schedule();
      });
    }
  }

  #take(most: number): Waiting<Item, Result>[] {
    const now = performance.now();
    while (this.#isolated.length > 0) {
      const isolated = this.#isolated.shift() as Waiting<Item, Result>;
      if (isolated.deadline > now) return [isolated];
      isolated.reject(timeoutError());
    }
    const oldest = () => this.#queue[this.#head];
    for (let first = oldest(); first && first.deadline <= now; first = oldest()) {
      this.#head++;
      first.reject(timeoutError());
    }
    // Overload: oldest first, every answer would come too late; newest first, those that can come
    // in time do.
    const newestFirst = (oldest()?.halfDeadline ?? Number.POSITIVE_INFINITY) <= now;
    const batch: Waiting<Item, Result>[] = [];
    const rows = Math.min(most, this.#limits.maxRows);
    let bytes = 0;
    while (this.#head < this.#queue.length && batch.length < rows) {
      const next = (newestFirst ? this.#queue.at(-1) : oldest()) as Waiting<Item, Result>;
      if (batch.length > 0 && bytes + next.bytes > this.#limits.maxBytes) break;
      if (newestFirst) this.#queue.pop();
      else this.#head++;
      if (next.deadline <= now) {
        next.reject(timeoutError());
        continue;
      }
      bytes += next.bytes;
      batch.push(next);
    }
    // Cut off what was taken once it is most of the array: each item is moved once on average.
    if (this.#head * 2 >= this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    return batch;
  }

  async #run(batch: Waiting<Item, Result>[]): Promise<void> {
    try {
      const deadline = Math.max(...batch.map((waiting) => waiting.deadline));
      const results = await this.#options.execute(
        batch.map((waiting) => waiting.item),
        deadline,
        () => performance.now() - Math.min(...batch.map(({ halfDeadline, deadline }) => 2 * halfDeadline - deadline)),
      );
      for (let i = 0; i < batch.length; i++) batch[i]?.resolve(results[i] as Result);
    } catch (error) {
      if (batch.length > 1 && this.#options.shouldIsolate(error)) this.#isolated.push(...batch);
      else for (const waiting of batch) waiting.reject(error);
    }
  }
}
