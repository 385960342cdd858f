/** Runs statements: creates the table first, retries transient errors. */

import { Attempts } from '../calls/retry.js';
import { Semaphore } from '../calls/semaphore.js';
import { sleep } from '../calls/timers.js';
import { codeOf, timeoutError } from '../errors.js';
import type { Options } from '../options.js';
import type { Batch, BoundQuery, StatementRunner } from '../sql/query.js';
import type { Client } from './client.js';
import { ensureTable } from './ensure-table.js';
import { PoolClient } from './node-postgres.js';
import { ConnectionPool } from './pool.js';
import { AppClient } from './postgres-js.js';
import { traceStatement } from './trace.js';

export type OnRetry = (what: string, attempt: number, error: unknown) => void;

/** Undefined table, invalid schema: dropped or renamed while the store was running. */
const UNDEFINED_TABLE = new Set(['42P01', '3F000']);

export class Database implements StatementRunner {
  readonly #options: Options;
  readonly #onRetry: OnRetry;
  readonly #name: string;
  readonly #client: Client;
  #tableExists = false;
  /**
   * Shards have queues of their own: together they must not have more statements in flight than
   * connections.
   */
  readonly #slots: Semaphore | undefined;
  #ensuring: Promise<void> | undefined;

  constructor(options: Options, onRetry: OnRetry) {
    this.#options = options;
    this.#onRetry = onRetry;
    this.#name = `${options.schema}.${options.table}`;
    this.#client = clientOf(options);
    if (options.shards) this.#slots = new Semaphore(options.maxConnections);
  }

  /**
   * Runs `work` with a query function, again after transient errors: it must be safe to repeat.
   *
   * @param what names the work in `retry` events
   * @param deadline milliseconds on the clock of `performance.now()`; nothing is tried again after
   *                 it
   */
  async run<T>(what: string, deadline: number, work: (query: BoundQuery) => Promise<T>, batch?: Batch): Promise<T> {
    // The table may have been waited for: what has failed with `TIMEOUT` is not done later.
    const query: BoundQuery = (text, values) =>
      performance.now() < deadline ? this.#client.query(text, values, deadline) : Promise.reject(timeoutError());
    let attempts: Attempts | undefined;
    let mayRecreate = this.#options.createTable;
    for (;;) {
      try {
        const running = this.#slots
          ? this.#inSlot(this.#slots, deadline, () => this.#start(query, work))
          : this.#start(query, work);
        return await traceStatement(running, this.#name, what, batch);
      } catch (error) {
        if (UNDEFINED_TABLE.has(codeOf(error))) {
          this.#tableExists = false;
          if (!mayRecreate) throw error;
          mayRecreate = false;
          continue;
        }
        attempts ??= new Attempts(this.#options.retry, deadline);
        const pause = attempts.pauseAfter(error);
        if (pause === undefined) throw error;
        this.#onRetry(what, attempts.made, error);
        await sleep(pause);
      }
    }
  }

  /** Connects, and creates or checks the table now, again after transient errors. */
  ready(deadline: number): Promise<void> {
    return this.run('ready', deadline, () => this.ensureTable());
  }

  /**
   * Checks that the table exists, and creates it where it is missing and option `createTable`
   * allows. A failed try is forgotten.
   */
  ensureTable(): Promise<void> {
    const deadline = performance.now() + this.#options.timeout;
    this.#ensuring ??= ensureTable(this.#client, this.#options, deadline)
      .then(() => {
        this.#tableExists = true;
      })
      .finally(() => {
        this.#ensuring = undefined;
      });
    return this.#ensuring;
  }

  close(): Promise<void> {
    return this.#client.end();
  }

  /** Without a promise of its own where the table is known to be there: nearly always. */
  #start<T>(query: BoundQuery, work: (query: BoundQuery) => Promise<T>): Promise<T> {
    return this.#tableExists ? work(query) : this.ensureTable().then(() => work(query));
  }

  async #inSlot<T>(slots: Semaphore, deadline: number, start: () => Promise<T>): Promise<T> {
    const release = await slots.acquire();
    try {
      if (performance.now() >= deadline) throw timeoutError();
      return await start();
    } finally {
      release();
    }
  }
}

function clientOf(options: Options): Client {
  const { pool, sql, postgres } = options;
  if (pool) return new PoolClient(pool, postgres.prepare !== false);
  return sql ? new AppClient(sql) : new ConnectionPool(options);
}
