/** Puts a store under load during a fault, and counts the acknowledged writes that were lost. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import postgres from 'postgres';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { eventually } from './eventually.js';
import { load, plain } from './sessions.js';

/**
 * Writers on sessions, two for each session. Each writer loads its session, adds a key that no other writer adds, and
 * saves it, again and again.
 */
export class Load {
  /** Calls that were made. */
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
    // The sessions live so long that they do not expire while a busy machine is at work.
    const session = (n: number) => plain({ secret: `data-of-${n}` }, 3_600_000);
    for (let n = 0; n < writers / 2; n++) await store.set(`load-${n}`, session(n));
    for (let n = 0; n < writers; n++) load.#writers.push(load.#write(`load-${n >> 1}`, n));
    return load;
  }

  get acknowledged(): number {
    return this.#acknowledged.length;
  }

  /** Resolves once so many further writes have been acknowledged. */
  async progress(writes = 100): Promise<void> {
    const goal = this.acknowledged + writes;
    await eventually(() => this.acknowledged >= goal || this.#stopped);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#writers);
  }

  /** The number of acknowledged writes that are not in the table. */
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
      // A visitor pauses between requests. Without this pause, 32 writers would occupy a core.
      await sleep(5);
    }
  }
}

/** An absence of the server that default options survive, in milliseconds: half of the time for which calls retry. */
const BRIEF_MS = 1500;

/** A `retry` and a `timeout` that last longer than the start of a server takes on any machine. */
const LASTING = { retry: { attempts: 11 }, timeout: 150_000 };

/**
 * Runs a fault under 32 writers with default options. No call fails, and no acknowledged write is lost. If calls failed
 * because a slow machine took too long to bring the server back, the fault is run once more, with options that last
 * longer.
 *
 * @param open opens a store with these options on a table that does not exist yet
 * @param fault resolves with the longest time for which the server was away, in milliseconds
 * @param uri where the table can be read afterwards
 */
export async function assertSurvives(
  open: (table: string, options: PgStoreOptions) => Promise<PgStore>,
  fault: (load: Load, store: PgStore) => Promise<number>,
  uri: () => string,
): Promise<void> {
  const run = async (options: PgStoreOptions) => {
    const table = `load_${randomBytes(6).toString('hex')}`;
    const store = await open(table, options);
    const load = await Load.start(store);
    await load.progress();
    const away = await fault(load, store);
    await load.progress();
    await load.stop();
    assert.equal(await load.lost(uri(), table), 0);
    return { away, errors: load.errors };
  };
  const { away, errors } = await run({ timeout: 10_000 });
  assert.deepEqual(errors.length > 0 && away > BRIEF_MS ? (await run(LASTING)).errors : errors, []);
}

/** The milliseconds that the work took. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** Resolves once a call of the store has failed so many times. */
export function attempted(store: PgStore, times: number): Promise<void> {
  return new Promise((resolve) => {
    store.on('retry', (_what, attempt) => {
      if (attempt === times) resolve();
    });
  });
}

/** Everything that a log could show of an error, including its hidden properties and its causes. */
export function everythingOf(error: unknown): string {
  const parts = [inspect(error, { depth: 20, showHidden: true, getters: true })];
  for (let e = error as any, n = 0; typeof e === 'object' && e !== null && n < 10; e = e.cause, n++) {
    parts.push(
      ...Reflect.ownKeys(e).map((name) => `${String(name)}: ${inspect(e[name], { depth: 20, showHidden: true })}`),
    );
  }
  return parts.join('\n');
}
