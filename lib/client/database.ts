/** Runs statements on a client: creates the table first if it is missing, and repeats them after transient errors. */

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

/** Is called before a statement for the call `kind` is repeated, with the number of attempts that have failed. */
type OnRetry = (kind: string, attempt: number, error: unknown) => void;

/** The SQLSTATEs undefined_table and invalid_schema_name, for a table that was dropped while the store was running. */
const UNDEFINED_TABLE = new Set(['42P01', '3F000']);

/** Runs the statements of one store. */
export class Database implements StatementRunner {
  readonly #options: Options;
  readonly #onRetry: OnRetry;
  readonly #name: string;
  readonly #client: Client;
  /** Whether the table is known to exist. */
  #tableExists = false;
  /** Limits the statements in flight to the number of connections, because each shard has batches of its own. */
  readonly #slots: Semaphore | undefined;
  /** The running check of the table, which all statements share that wait for it. */
  #ensuring: Promise<void> | undefined;

  constructor(options: Options, onRetry: OnRetry) {
    this.#options = options;
    this.#onRetry = onRetry;
    this.#name = `${options.schema}.${options.table}`;
    this.#client = clientOf(options);
    if (options.shards) this.#slots = new Semaphore(options.maxConnections);
  }

  /**
   * Runs statements, and repeats them after transient errors. If the table was dropped, it is created again once.
   *
   * @param work runs the statements with the function that it gets; it must be safe to repeat
   */
  async run<T>(kind: string, deadline: number, work: (query: BoundQuery) => Promise<T>, batch?: Batch): Promise<T> {
    // The deadline may have passed while the table was looked for. A call that has failed with `TIMEOUT` is not carried
    // out later.
    const query: BoundQuery = (text, values) =>
      performance.now() < deadline ? this.#client.query(text, values, deadline) : Promise.reject(timeoutError());
    let attempts: Attempts | undefined;
    let mayRecreate = this.#options.createTable;
    for (;;) {
      try {
        const running = this.#slots
          ? this.#inSlot(this.#slots, deadline, () => this.#start(query, work))
          : this.#start(query, work);
        return await traceStatement(running, this.#name, kind, batch);
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
        this.#onRetry(kind, attempts.made, error);
        await sleep(pause);
      }
    }
  }

  /** Creates or checks the table now, and repeats that after transient errors. */
  ready(deadline: number): Promise<void> {
    return this.run('ready', deadline, () => this.#ensureTable());
  }

  /**
   * Checks the table, and creates it if it is missing and option `createTable` allows that. If it fails, the next
   * statement tries it again.
   */
  #ensureTable(): Promise<void> {
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

  /** Starts work once the table exists. If that is known already, as nearly always, it adds no promise to the call. */
  #start<T>(query: BoundQuery, work: (query: BoundQuery) => Promise<T>): Promise<T> {
    return this.#tableExists ? work(query) : this.#ensureTable().then(() => work(query));
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
