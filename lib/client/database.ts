/** Runs statements: creates the table first, retries transient errors. */

import { withRetries } from '../calls/retry.js';
import { Semaphore } from '../calls/semaphore.js';
import { codeOf, timeoutError } from '../errors.js';
import type { Options } from '../options.js';
import type { Batch, BoundQuery, StatementRunner } from '../sql/query.js';
import { appClient, type Client } from './client.js';
import { ensureTable } from './ensure-table.js';
import { poolClient } from './node-postgres.js';
import { ConnectionPool } from './pool.js';
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
    const { pool, sql, postgres } = options;
    if (pool) this.#client = poolClient(pool, postgres.prepare !== false);
    else this.#client = sql ? appClient(sql) : new ConnectionPool(options);
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
    let recreated = false;
    const once = async (): Promise<T> => {
      const release = await this.#slots?.acquire();
      try {
        if (release && performance.now() >= deadline) throw timeoutError();
        const query: BoundQuery = (text, values) => this.#client.query(text, values, deadline);
        const done = this.#tableExists ? work(query) : this.ensureTable().then(() => work(query));
        return await traceStatement(done, this.#name, what, batch);
      } catch (error) {
        if (!UNDEFINED_TABLE.has(codeOf(error))) throw error;
        this.#tableExists = false;
        if (!this.#options.createTable || recreated) throw error;
        recreated = true;
      } finally {
        release?.();
      }
      return once();
    };
    return withRetries(this.#options.retry, deadline, (attempt, error) => this.#onRetry(what, attempt, error), once);
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
    this.#ensuring ??= ensureTable(this.#client, this.#options, performance.now() + this.#options.timeout)
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
}
