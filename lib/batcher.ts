/** How do many calls become few statements? Pure: knows neither SQL nor sessions. */

import { timedOut } from './errors.js';

/** What bounds a batch, and how many batches may be under way at once. */
export interface BatchLimits {
  /** Statements in flight. More gather bigger queues on the server, fewer leave it idle. */
  readonly slots: number;
  /** Items in one batch. */
  readonly rows: number;
  /** Sum of the items' `bytes` in one batch; a single larger item goes alone. */
  readonly bytes: number;
}

/** Measured best on 2 cores; see docs/performance.md. */
export const DEFAULT_LIMITS: BatchLimits = { slots: 2, rows: 256, bytes: 1_000_000 };

export interface BatcherOptions<Item, Result> {
  /** Runs one batch. Resolves with one result for each item, in the items' order. */
  execute(items: Item[], deadline: number): Promise<Result[]>;
  /** Roughly how many bytes an item adds to the statement. */
  bytes(item: Item): number;
  /** Whether a batch failed for a reason that may lie in a single item; then each goes again alone. */
  mayBeOneItem(error: unknown): boolean;
  limits?: BatchLimits;
}

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly bytes: number;
  readonly deadline: number;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/**
 * Gathers items while statements are in flight and sends all that gathered as the next statement.
 *
 * No timer: with a free slot an item leaves in the same tick, so a lone call pays nothing for batching.
 */
export class Batcher<Item, Result> {
  readonly #options: BatcherOptions<Item, Result>;
  readonly #limits: BatchLimits;
  #queue: Waiting<Item, Result>[] = [];
  #head = 0;
  /** Items of a failed batch, each to be sent alone, before anything newer. */
  #suspects: Waiting<Item, Result>[] = [];
  #inFlight = 0;

  constructor(options: BatcherOptions<Item, Result>) {
    this.#options = options;
    this.#limits = options.limits ?? DEFAULT_LIMITS;
  }

  /** How many items wait for a slot. */
  get waiting(): number {
    return this.#queue.length - this.#head + this.#suspects.length;
  }

  /**
   * @param deadline on the clock of `performance.now()`, in milliseconds: an item still waiting by then is not sent.
   */
  send(item: Item, deadline: number): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ item, bytes: this.#options.bytes(item), deadline, resolve, reject });
      this.#fillSlots();
    });
  }

  #fillSlots(): void {
    while (this.#inFlight < this.#limits.slots) {
      const batch = this.#take();
      if (batch.length === 0) return;
      this.#inFlight++;
      void this.#run(batch).then(() => {
        this.#inFlight--;
        this.#fillSlots();
      });
    }
  }

  #take(): Waiting<Item, Result>[] {
    const now = performance.now();
    while (this.#suspects.length > 0) {
      const suspect = this.#suspects.shift() as Waiting<Item, Result>;
      if (suspect.deadline > now) return [suspect];
      suspect.reject(timedOut());
    }
    const batch: Waiting<Item, Result>[] = [];
    let bytes = 0;
    while (this.#head < this.#queue.length && batch.length < this.#limits.rows) {
      const next = this.#queue[this.#head] as Waiting<Item, Result>;
      if (batch.length > 0 && bytes + next.bytes > this.#limits.bytes) break;
      this.#head++;
      if (next.deadline <= now) {
        next.reject(timedOut());
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
      );
      for (let i = 0; i < batch.length; i++) batch[i]?.resolve(results[i] as Result);
    } catch (error) {
      if (batch.length > 1 && this.#options.mayBeOneItem(error)) this.#suspects.push(...batch);
      else for (const waiting of batch) waiting.reject(error);
    }
  }
}
