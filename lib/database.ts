/** How does a statement get its answer, whatever becomes of the connection? */

import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, createClient } from './client.js';
import { type Batch, watched } from './diagnostics.js';
import { codeOf, timedOut } from './errors.js';
import type { Options } from './options.js';
import { isBroken, passes, pause } from './retry.js';
import { ensureTable, requireTable } from './schema.js';
import type { Query } from './sessions-table.js';

export type OnRetry = (what: string, attempt: number, error: unknown) => void;

/** Undefined table, invalid schema: somebody dropped or renamed it while the store was running. */
const TABLE_IS_GONE = new Set(['42P01', '3F000']);

/** Runs statements on the app's client or one of its own: makes the table first, repeats what passes, gives up in time. */
export class Database {
  readonly #options: Options;
  readonly #onRetry: OnRetry;
  readonly #name: string;
  #client: Client;
  /** Clients whose connections were closed because one of them was silent: that is why their statements failed. */
  readonly #givenUp = new WeakSet<Client>();
  #tableIsThere: boolean;
  #looking: Promise<void> | undefined;

  constructor(options: Options, onRetry: OnRetry) {
    this.#options = options;
    this.#onRetry = onRetry;
    this.#name = `${options.schema}.${options.table}`;
    this.#client = createClient(options, (client) => this.#renew(client, 'after'));
    this.#tableIsThere = !options.createTable;
  }

  /**
   * Runs `work` with a query function, again after failures that pass by themselves: it must be safe to repeat.
   *
   * @param what names the work in `retry` events
   * @param deadline on the clock of `performance.now()`, in milliseconds; nothing is tried again after it
   */
  async run<T>(what: string, deadline: number, work: (query: Query) => Promise<T>, batch?: Batch): Promise<T> {
    const { retry } = this.#options;
    let remade = false;
    for (let attempt = 1; ; attempt++) {
      const client = this.#client;
      try {
        if (!this.#tableIsThere) await this.#answer(client, this.ensureTable());
        return await watched(this.#answer(client, work(client.query)), this.#name, what, batch);
      } catch (error) {
        if (this.#options.createTable && !remade && TABLE_IS_GONE.has(codeOf(error))) {
          this.#tableIsThere = false;
          remade = true;
          continue;
        }
        const wait = pause(attempt, retry);
        const isLast = attempt >= retry.attempts || performance.now() + wait >= deadline;
        if (isBroken(error)) this.#renew(client, 'after');
        if (isLast || !passes(error)) throw this.#givenUp.has(client) ? timedOut() : error;
        this.#onRetry(what, attempt, error);
        await sleep(wait);
      }
    }
  }

  /** Looks whether the table is there, makes it where it is not and may be made. A failed try is forgotten. */
  ensureTable(): Promise<void> {
    const { query, script } = this.#client;
    const { createTable } = this.#options;
    this.#looking ??= (createTable ? ensureTable(query, script, this.#options) : requireTable(query, this.#options))
      .then(() => {
        this.#tableIsThere = true;
      })
      .finally(() => {
        this.#looking = undefined;
      });
    return this.#looking;
  }

  close(): Promise<void> {
    return this.#client.end();
  }

  /** Gives up on an answer after `timeout`, and with it on the connections: on a silent network they never end by themselves. */
  #answer<T>(client: Client, answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        reject(timedOut());
        if (!this.#options.sql) this.#givenUp.add(client);
        this.#renew(client, 'at once');
      };
      const timer = setTimeout(giveUp, this.#options.timeout);
      answer.then(resolve, reject).finally(() => clearTimeout(timer));
    });
  }

  #renew(client: Client, when: 'after' | 'at once'): void {
    const isCurrent = client === this.#client;
    // One that was replaced before, and fell silent since.
    if (!isCurrent && when === 'after') return;
    const next = client.renew(when);
    if (!isCurrent) return;
    this.#client = next;
    this.#looking = undefined;
  }
}
