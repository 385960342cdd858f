/** Runs statements: creates the table first, retries transient errors, aborts at the timeout. */

import { setTimeout as sleep } from 'node:timers/promises';
import { type Batch, traceStatement } from '../diagnostics.js';
import { codeOf, timeoutError } from '../errors.js';
import type { Options } from '../options.js';
import { type Client, createClient } from './client.js';
import type { Query } from './query.js';
import { backoffDelay, isConnectionLoss, isTransient } from './retry.js';
import { ensureTable, requireTable } from './schema.js';

export type OnRetry = (what: string, attempt: number, error: unknown) => void;

/** Undefined table, invalid schema: somebody dropped or renamed it while the store was running. */
const UNDEFINED_TABLE = new Set(['42P01', '3F000']);

/** Runs statements on the app's client or one of its own: makes the table first, repeats what passes, gives up in time. */
export class Database {
  readonly #options: Options;
  readonly #onRetry: OnRetry;
  readonly #name: string;
  #client: Client;
  /** Clients whose connections were closed because one of them was silent: that is why their statements failed. */
  readonly #timedOutClients = new WeakSet<Client>();
  #tableExists: boolean;
  #ensuring: Promise<void> | undefined;

  constructor(options: Options, onRetry: OnRetry) {
    this.#options = options;
    this.#onRetry = onRetry;
    this.#name = `${options.schema}.${options.table}`;
    this.#client = createClient(options, (client) => this.#replace(client, 'graceful'));
    this.#tableExists = !options.createTable;
  }

  /**
   * Runs `work` with a query function, again after failures that pass by themselves: it must be safe to repeat.
   *
   * @param what names the work in `retry` events
   * @param deadline on the clock of `performance.now()`, in milliseconds; nothing is tried again after it
   */
  async run<T>(what: string, deadline: number, work: (query: Query) => Promise<T>, batch?: Batch): Promise<T> {
    const { retry } = this.#options;
    let recreated = false;
    for (let attempt = 1; ; attempt++) {
      const client = this.#client;
      try {
        if (!this.#tableExists) await this.#answer(client, this.ensureTable());
        return await traceStatement(this.#answer(client, work(client.query)), this.#name, what, batch);
      } catch (error) {
        if (this.#options.createTable && !recreated && UNDEFINED_TABLE.has(codeOf(error))) {
          this.#tableExists = false;
          recreated = true;
          continue;
        }
        const wait = backoffDelay(attempt, retry);
        const isLast = attempt >= retry.attempts || performance.now() + wait >= deadline;
        if (isConnectionLoss(error)) this.#replace(client, 'graceful');
        if (isLast || !isTransient(error)) throw this.#timedOutClients.has(client) ? timeoutError() : error;
        this.#onRetry(what, attempt, error);
        await sleep(wait);
      }
    }
  }

  /** Looks whether the table is there, makes it where it is not and may be made. A failed try is forgotten. */
  ensureTable(): Promise<void> {
    const { query, script } = this.#client;
    const { createTable } = this.#options;
    this.#ensuring ??= (createTable ? ensureTable(query, script, this.#options) : requireTable(query, this.#options))
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

  /** Gives up on an answer after `timeout`, and with it on the connections: on a silent network they never end by themselves. */
  #answer<T>(client: Client, answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        reject(timeoutError());
        if (!this.#options.sql) this.#timedOutClients.add(client);
        this.#replace(client, 'immediate');
      };
      const timer = setTimeout(abort, this.#options.timeout);
      answer.then(resolve, reject).finally(() => clearTimeout(timer));
    });
  }

  #replace(client: Client, when: 'graceful' | 'immediate'): void {
    const isCurrent = client === this.#client;
    // One that was replaced before, and fell silent since.
    if (!isCurrent && when === 'graceful') return;
    const next = client.replace(when);
    if (!isCurrent) return;
    this.#client = next;
    this.#ensuring = undefined;
  }
}
