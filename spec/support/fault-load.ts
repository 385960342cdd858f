/** Writers on shared sessions, and the count of acknowledged writes that a fault lost. */

import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import postgres from 'postgres';
import type { PgStore } from '../../lib/index.js';
import { eventually } from './eventually.js';
import { load, plain } from './sessions.js';

/**
 * Writers, two to a session: each loads it, adds a key that nobody else adds, and saves it, again
 * and again.
 */
export class Load {
  calls = 0;
  /** Calls that have not been answered. */
  waiting = 0;
  readonly errors: any[] = [];
  readonly #acknowledged: { sid: string; key: string }[] = [];
  readonly #store: PgStore;
  readonly #writers: Promise<void>[] = [];
  #stopped = false;

  private constructor(store: PgStore) {
    this.#store = store;
  }

  static async start(store: PgStore, writers = 32): Promise<Load> {
    const load = new Load(store);
    for (let n = 0; n < writers / 2; n++) await store.set(`load-${n}`, plain({ secret: `data-of-${n}` }));
    for (let n = 0; n < writers; n++) load.#writers.push(load.#write(`load-${n >> 1}`, n));
    return load;
  }

  get acknowledged(): number {
    return this.#acknowledged.length;
  }

  /** Resolves when so many more writes were acknowledged. */
  async progress(writes = 100): Promise<void> {
    const goal = this.acknowledged + writes;
    await eventually(() => this.acknowledged >= goal || this.#stopped);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#writers);
  }

  /** Acknowledged writes that are not in the table. */
  async lost(uri: string, table: string): Promise<number> {
    const sql = postgres(uri, { max: 1 });
    const rows = await sql`select sid, data::text as data from ${sql(table)}`;
    await sql.end();
    const found = new Map(rows.map(({ sid, data }) => [sid, JSON.parse(data)]));
    return this.#acknowledged.filter(({ sid, key }) => found.get(sid)?.[key] !== key).length;
  }

  async #call<T>(call: () => Promise<T>): Promise<T> {
    this.calls++;
    this.waiting++;
    try {
      return await call();
    } finally {
      this.waiting--;
    }
  }

  async #write(sid: string, writer: number): Promise<void> {
    for (let n = 0; !this.#stopped; n++) {
      const key = `${writer}-${n}`;
      try {
        const session = await this.#call(() => load(this.#store, sid));
        if (!session) throw new Error(`${sid} is gone`);
        session[key] = key;
        await this.#call(() => this.#store.set(sid, session));
        this.#acknowledged.push({ sid, key });
      } catch (error) {
        this.errors.push(error);
      }
      // Between the requests of a visitor. Without a pause 32 writers keep a core busy, and nothing
      // else gets done.
      await sleep(5);
    }
  }
}

/** All that a log could show of an error, its hidden properties and causes included. */
export function everythingOf(error: unknown): string {
  const parts = [inspect(error, { depth: 20, showHidden: true, getters: true })];
  for (let e = error as any, n = 0; typeof e === 'object' && e !== null && n < 10; e = e.cause, n++) {
    parts.push(
      ...Reflect.ownKeys(e).map((name) => `${String(name)}: ${inspect(e[name], { depth: 20, showHidden: true })}`),
    );
  }
  return parts.join('\n');
}
