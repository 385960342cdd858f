/** Watches sessions, and calls back when one has ended, whoever ended it. */

import { AsyncResource } from 'node:async_hooks';
import { Interval, onlyShorter } from '../calls/interval.js';
import type { KeyedReadWriteLock } from '../calls/order.js';
import { nextTick, nextTurn, setImmediate } from '../calls/timers.js';
import { codeOf } from '../errors.js';
import type { Emit } from '../events.js';
import type { PreviousSessions } from './previous.js';
import type { SessionEnd } from './public-types.js';
import type { CheckedRow, Statements, WatchedRow } from './row.js';
import type { RowKeys, SessionIds } from './session-id.js';

/** The call of `PreviousSessions` that takes a session over. */
type PreviousSource = Pick<PreviousSessions, 'takeOver'>;

/** Runs work as a call of the store, so that `close()` waits for it. */
type RunAsCall = <T>(work: (deadline: number) => Promise<T>) => Promise<T>;

/** The largest number of row keys in a statement. With more of them PostgreSQL may read the whole table. */
const PAGE = 1000;

/** The largest number of callbacks in a turn of the event loop, so that many ends do not block it. */
const CALLBACKS_IN_A_TURN = 100;

/**
 * A check also returns rows that expire within so many seconds plus two intervals. That is longer than until the next
 * check. So if such a row is missing at the next check, the store knows whether its session had expired or was
 * destroyed.
 */
const SOON_SECONDS = 60;

/** A session that somebody watches. */
interface Watch {
  readonly sid: string;
  readonly keys: RowKeys;
  readonly shard: number | undefined;
  readonly onEnd: (reason: SessionEnd) => void;
  /**
   * The async context of the call of `watch`, in which `onEnd` runs. Checks run in the context of whichever call
   * started them, which may be another user's request.
   */
  readonly context: AsyncResource;
  /** The key under which the row was last seen; `undefined`: the row is looked for under each of the session's keys. */
  key: string | undefined;
  /** When the session was created, as in `RowName`; `undefined` until its row has been seen. */
  createdAt: string | undefined;
  /**
   * When the session expires, in milliseconds on the clock of `performance.now()`; Infinity unless the last check found
   * that it expires soon.
   */
  expiresAt: number;
  /** Whether checks may run. They have to wait for the calls on the session ID that were under way at the start. */
  isReady: boolean;
  /** Whether the store in option `previous` has answered whether it has the session, or there is no such store. */
  hasAskedPrevious: boolean;
  /** Whether the watch was stopped, or the session's end was noticed. */
  isOver: boolean;
  /** Whether the app, or `close()`, has stopped the watch, so that `onEnd` is not called. */
  isStopped: boolean;
}

/** The checks of a shard: the watches that are to be checked, and whether a check is running. */
interface Checks {
  readonly due: Set<Watch>;
  isRunning: boolean;
  /** How many consecutive checks have failed. */
  failures: number;
}

/**
 * The watched sessions of a store. One timer checks all of them, in statements of many rows. Polling has advantages
 * over `LISTEN`: a lost connection loses no event, poolers and Citus need no support for it, and writers need no
 * `NOTIFY`, which takes a lock on the whole database cluster at each commit.
 *
 * A session is identified by its time of creation. If it was destroyed and created again between two checks, it has
 * ended.
 */
export class SessionWatches {
  readonly #statements: Statements;
  readonly #ids: SessionIds;
  readonly #order: KeyedReadWriteLock;
  readonly #previous: PreviousSource | undefined;
  readonly #runAsCall: RunAsCall;
  readonly #emit: Emit;
  readonly #seconds: number;
  /** The watches by each of their session's row keys. */
  readonly #watches = new Map<string, Watch[]>();
  readonly #checks = new Map<number | undefined, Checks>();
  /** Watches whose session has ended and that have not been called back yet. */
  #ended: { readonly watch: Watch; readonly reason: SessionEnd }[] = [];
  #interval: Interval | undefined;
  #isClosed = false;

  /** @param seconds between two checks of a session */
  constructor(
    statements: Statements,
    ids: SessionIds,
    order: KeyedReadWriteLock,
    previous: PreviousSource | undefined,
    seconds: number,
    runAsCall: RunAsCall,
    emit: Emit,
  ) {
    this.#statements = statements;
    this.#ids = ids;
    this.#order = order;
    this.#previous = previous;
    this.#seconds = seconds;
    this.#runAsCall = runAsCall;
    this.#emit = emit;
  }

  /** @returns a function that ends the watch */
  watch(sid: string, onEnd: (reason: SessionEnd) => void): () => void {
    if (this.#isClosed) return () => {};
    const watch: Watch = {
      sid,
      keys: this.#ids.rowKeysFor(sid),
      shard: this.#ids.shardOf(sid),
      onEnd,
      // Not `AsyncResource.bind`, which takes 2.7 kB for each watch.
      context: new AsyncResource('express-pg-store.watch'),
      key: undefined,
      createdAt: undefined,
      expiresAt: Number.POSITIVE_INFINITY,
      isReady: false,
      hasAskedPrevious: this.#previous === undefined,
      isOver: false,
      isStopped: false,
    };
    this.#add(watch);
    this.#interval ??= new Interval(this.#seconds, async () => this.#checkAll(), onlyShorter);
    void this.#checkFirst(watch);
    return () => {
      watch.isStopped = true;
      this.#remove(watch);
    };
  }

  /** The present watches of a session ID, for a later call of `end`. */
  ofSession(sid: string): readonly Watch[] {
    return this.#watches.size === 0 ? [] : [...(this.#watches.get(this.#ids.rowKeysFor(sid)[0]) ?? [])];
  }

  /** Ends watches whose session was destroyed. */
  end(watches: readonly Watch[]): void {
    for (const watch of watches) this.#end(watch, 'destroyed');
  }

  /** Checks the watches of a row key at once, because the row was deleted. */
  checkKey(key: string): void {
    for (const watch of this.#watches.get(key) ?? []) if (watch.isReady) this.#checkSoon(watch);
  }

  /** Ends all watches without calling back. */
  close(): void {
    this.#isClosed = true;
    this.#interval?.stop();
    for (const watch of [...this.#watches.values()].flat()) watch.isOver = watch.isStopped = true;
    this.#watches.clear();
    this.#ended = [];
  }

  /** Checks a new watch for the first time, after the calls under way on its session ID, which may be saving it. */
  async #checkFirst(watch: Watch): Promise<void> {
    await this.#order.idle(watch.sid);
    watch.isReady = true;
    this.#checkSoon(watch);
  }

  #checkAll(): void {
    for (const [key, watches] of this.#watches) {
      for (const watch of watches) if (watch.isReady && key === watch.keys[0]) this.#checkSoon(watch);
    }
  }

  /**
   * Adds a watch to the next check of its shard. Shards are checked independently, because one of them may be on a
   * server that does not answer.
   */
  #checkSoon(watch: Watch): void {
    if (watch.isOver) return;
    let checks = this.#checks.get(watch.shard);
    if (!checks) {
      checks = { due: new Set(), isRunning: false, failures: 0 };
      this.#checks.set(watch.shard, checks);
    }
    checks.due.add(watch);
    if (!checks.isRunning) void this.#runChecks(checks, watch.shard);
  }

  async #runChecks(checks: Checks, shard: number | undefined): Promise<void> {
    checks.isRunning = true;
    // Watches that become due in the same turn of the event loop share a statement.
    await nextTurn();
    try {
      while (checks.due.size > 0) await this.#checkPage(takePage(checks.due), shard);
      checks.failures = 0;
    } catch (error) {
      // The watches are checked again at the next interval, and ends until then are reported then.
      checks.due.clear();
      checks.failures++;
      if (codeOf(error) !== 'CLOSED') this.#emit('retry', 'watch', checks.failures, error as Error);
    }
    checks.isRunning = false;
  }

  async #checkPage(page: readonly Watch[], shard: number | undefined): Promise<void> {
    if (page.length === 0) return;
    const rows = rowsOf(page);
    const soon = SOON_SECONDS + 2 * this.#seconds;
    const checked = await this.#runAsCall((deadline) => this.#statements.onShard(shard).check(rows, soon, deadline));
    const found = new Map(checked.map((row) => [row.key, row]));
    for (const watch of page) if (!watch.isOver) this.#look(watch, found);
  }

  /**
   * Decides from the rows whether the session of a watch has ended.
   *
   * @param found the rows that are missing, belong to another session, or expire soon. All other rows are unchanged.
   */
  #look(watch: Watch, found: ReadonlyMap<string, CheckedRow>): void {
    const hasRow = (key: string) => found.get(key)?.createdAt !== undefined || !found.has(key);
    const key = keysOf(watch).find(hasRow);
    if (key === undefined) {
      this.#lookElsewhere(watch);
      return;
    }
    watch.key = key;
    const row = found.get(key);
    watch.createdAt ??= row?.createdAt;
    if (row && row.createdAt !== watch.createdAt) this.#endOfRow(watch);
    else if (row && row.expiresInMs <= 0) this.#end(watch, 'expired');
    else watch.expiresAt = row ? performance.now() + row.expiresInMs : Number.POSITIVE_INFINITY;
  }

  /** Looks for the session elsewhere, because it has no row under the keys that were checked. */
  #lookElsewhere(watch: Watch): void {
    if (watch.key !== undefined && watch.keys.length > 1) {
      // Perhaps the row was moved to the key of a newer secret. The next statement looks for it under all keys.
      watch.key = undefined;
      this.#checkSoon(watch);
    } else if (watch.createdAt === undefined && !watch.hasAskedPrevious) {
      void this.#takeOver(watch);
    } else this.#endOfRow(watch);
  }

  /**
   * Takes the session over if it is still in the store in option `previous`. If that store does not answer, the next
   * check asks it again.
   */
  async #takeOver(watch: Watch): Promise<void> {
    watch.isReady = false;
    try {
      await this.#runAsCall((deadline) =>
        this.#order.read(watch.sid, async () => this.#previous?.takeOver(watch.sid, deadline)),
      );
      watch.hasAskedPrevious = true;
      this.#checkSoon(watch);
    } catch (error) {
      if (codeOf(error) !== 'CLOSED') this.#emit('retry', 'watch', 1, error as Error);
    }
    watch.isReady = true;
  }

  /**
   * Ends a watch whose row is missing or belongs to another session. If the last known expiry has passed, the session
   * has expired; otherwise it was destroyed.
   */
  #endOfRow(watch: Watch): void {
    this.#end(watch, performance.now() >= watch.expiresAt ? 'expired' : 'destroyed');
  }

  #end(watch: Watch, reason: SessionEnd): void {
    if (watch.isOver) return;
    this.#remove(watch);
    this.#ended.push({ watch, reason });
    if (this.#ended.length === 1) setImmediate(() => this.#callBack());
  }

  /**
   * Calls back. An error that a callback throws is an uncaught exception of the app, and does not prevent the others.
   */
  #callBack(): void {
    const now = this.#ended.slice(0, CALLBACKS_IN_A_TURN);
    this.#ended = this.#ended.slice(CALLBACKS_IN_A_TURN);
    for (const { watch, reason } of now) nextTick(() => this.#report(watch, reason));
    if (this.#ended.length > 0) setImmediate(() => this.#callBack());
  }

  #report({ isStopped, context, onEnd }: Watch, reason: SessionEnd): void {
    if (!isStopped && !this.#isClosed) context.runInAsyncScope(onEnd, undefined, reason);
  }

  #add(watch: Watch): void {
    for (const key of watch.keys) {
      const watches = this.#watches.get(key);
      if (watches) watches.push(watch);
      else this.#watches.set(key, [watch]);
    }
  }

  #remove(watch: Watch): void {
    if (watch.isOver) return;
    watch.isOver = true;
    for (const key of watch.keys) {
      const watches = this.#watches.get(key) ?? [];
      watches.splice(watches.indexOf(watch), 1);
      if (watches.length === 0) this.#watches.delete(key);
    }
    if (this.#watches.size > 0) return;
    this.#interval?.stop();
    this.#interval = undefined;
  }
}

/** Removes as many watches from `due` as fit into one statement. */
function takePage(due: Set<Watch>): Watch[] {
  const page: Watch[] = [];
  const keys = new Set<string>();
  for (const watch of due) {
    const more = keysOf(watch).filter((key) => !keys.has(key));
    if (page.length > 0 && keys.size + more.length > PAGE) break;
    for (const key of more) keys.add(key);
    due.delete(watch);
    if (!watch.isOver) page.push(watch);
  }
  return page;
}

/** The keys under which a check looks for the session. */
function keysOf(watch: Watch): readonly string[] {
  return watch.key === undefined ? watch.keys : [watch.key];
}

/** The rows to check. A row that several watches look for is contained once. */
function rowsOf(page: readonly Watch[]): WatchedRow[] {
  const rows = new Map<string, WatchedRow>();
  for (const watch of page) {
    for (const key of keysOf(watch)) {
      const other = rows.get(key);
      // If two watches know different sessions under this key, the check must return the row in any case.
      const createdAt = other && other.createdAt !== watch.createdAt ? undefined : watch.createdAt;
      rows.set(key, { key, createdAt });
    }
  }
  return [...rows.values()];
}
