/** Calls back when a watched session has ended, whoever ended it. */

import { Interval, onlyShorter } from '../calls/interval.js';
import type { KeyedReadWriteLock } from '../calls/order.js';
import { nextTick, nextTurn, setImmediate } from '../calls/timers.js';
import { codeOf } from '../errors.js';
import type { Emit } from '../events.js';
import type { CheckedRow, Statements, WatchedRow } from './row.js';
import type { RowKeys, SessionIds } from './session-id.js';

/** Why a watched session has ended. */
export type SessionEnd = 'destroyed' | 'expired';

/** The store in option `previous`, as far as it takes part. */
interface PreviousSource {
  takeOver(sid: string, deadline: number): Promise<boolean>;
}

/** Runs a statement as a call of the store, which waits for it when it closes. */
type Call = <T>(work: (deadline: number) => Promise<T>) => Promise<T>;

/** Row keys in one statement. With more of them PostgreSQL would rather read the whole table. */
const PAGE = 1000;

/** How many callbacks are called in a turn of the event loop. */
const CALLBACKS_IN_A_TURN = 100;

/**
 * A check learns the expiry of rows that expire within so many seconds, and two intervals: longer than until the next
 * check, so if the row is gone by then, it is known whether the session had expired.
 */
const SOON = 60;

/** A session that somebody watches. */
interface Watch {
  readonly sid: string;
  readonly keys: RowKeys;
  readonly shard: number | undefined;
  readonly onEnd: (reason: SessionEnd) => void;
  /** The key under which its row was last seen; `undefined`: it is looked for under each of its keys. */
  key: string | undefined;
  /** When the session was created, as the row says; `undefined` until it was seen for the first time. */
  createdAt: string | undefined;
  /** When it expires, on the clock of `performance.now()`, if the last check found that this is soon; else Infinity. */
  expiresAt: number;
  /** `false` before its first check may run: until the calls on the session ID have ended that were under way. */
  isReady: boolean;
  /** Whether the store in option `previous` was asked for it. */
  wasTakenOver: boolean;
  /** It was stopped, or its end has been noticed. */
  isOver: boolean;
  isStopped: boolean;
}

/** The watches of a shard that wait for a check, and whether one is running. */
interface Checks {
  readonly due: Set<Watch>;
  isRunning: boolean;
  /** How many checks in a row have failed. */
  failures: number;
}

/**
 * One timer checks all watched sessions, in statements of many rows. It polls, and does not `LISTEN`: a lost connection
 * loses nothing, poolers and Citus do not matter, and no writer pays for `NOTIFY`, which takes a lock of the whole
 * cluster at each commit.
 *
 * A session is known by the time of its creation: one that was destroyed and created again between two checks has
 * ended.
 */
export class SessionWatches {
  readonly #statements: Statements;
  readonly #ids: SessionIds;
  readonly #order: KeyedReadWriteLock;
  readonly #previous: PreviousSource | undefined;
  readonly #call: Call;
  readonly #emit: Emit;
  readonly #seconds: number;
  /** By each of the session's row keys. */
  readonly #watches = new Map<string, Watch[]>();
  readonly #checks = new Map<number | undefined, Checks>();
  /** Whose end was noticed, and who has not been called back yet. */
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
    call: Call,
    emit: Emit,
  ) {
    this.#statements = statements;
    this.#ids = ids;
    this.#order = order;
    this.#previous = previous;
    this.#seconds = seconds;
    this.#call = call;
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
      key: undefined,
      createdAt: undefined,
      expiresAt: Number.POSITIVE_INFINITY,
      isReady: false,
      wasTakenOver: this.#previous === undefined,
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

  /** The watches that the session ID has now, for `end`. */
  on(sid: string): readonly Watch[] {
    return this.#watches.size === 0 ? [] : [...(this.#watches.get(this.#ids.rowKeysFor(sid)[0]) ?? [])];
  }

  /** The session of these watches was destroyed. */
  end(watches: readonly Watch[]): void {
    for (const watch of watches) this.#end(watch, 'destroyed');
  }

  /** The row under this key was deleted: its watches are checked at once. */
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

  /** What is being saved when `watch` is called is there by the first check. */
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

  /** Shards are checked side by side, since one of them may be on a server that does not answer. */
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
    // What becomes due in one turn of the event loop goes together.
    await nextTurn();
    try {
      while (checks.due.size > 0) await this.#checkPage(takePage(checks.due), shard);
      checks.failures = 0;
    } catch (error) {
      // They are checked again at the next interval, and what has ended meanwhile is reported then.
      checks.due.clear();
      checks.failures++;
      if (codeOf(error) !== 'CLOSED') this.#emit('retry', 'watch', checks.failures, error as Error);
    }
    checks.isRunning = false;
  }

  async #checkPage(page: readonly Watch[], shard: number | undefined): Promise<void> {
    const rows = rowsOf(page);
    const soon = SOON + 2 * this.#seconds;
    const checked = await this.#call((deadline) => this.#statements.onShard(shard).check(rows, soon, deadline));
    const found = new Map(checked.map((row) => [row.key, row]));
    for (const watch of page) if (!watch.isOver) this.#look(watch, found);
  }

  /**
   * @param found the rows that are missing, are not as they were, or expire soon; all others are as they were
   */
  #look(watch: Watch, found: ReadonlyMap<string, CheckedRow>): void {
    const isThere = (key: string) => found.get(key)?.createdAt !== undefined || !found.has(key);
    const key = keysOf(watch).find(isThere);
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

  /** The row is not where it was looked for. */
  #lookElsewhere(watch: Watch): void {
    if (watch.key !== undefined && watch.keys.length > 1) {
      // Perhaps it has moved to the key of a newer secret. One statement sees it under the old key or the new one.
      watch.key = undefined;
      this.#checkSoon(watch);
    } else if (watch.createdAt === undefined && !watch.wasTakenOver) {
      void this.#takeOver(watch);
    } else this.#endOfRow(watch);
  }

  /**
   * The session may still be in the store in option `previous`. If that does not answer, the next check asks it again.
   */
  async #takeOver(watch: Watch): Promise<void> {
    watch.isReady = false;
    try {
      await this.#call((deadline) =>
        this.#order.read(watch.sid, async () => this.#previous?.takeOver(watch.sid, deadline)),
      );
      watch.wasTakenOver = true;
      this.#checkSoon(watch);
    } catch (error) {
      if (codeOf(error) !== 'CLOSED') this.#emit('retry', 'watch', 1, error as Error);
    }
    watch.isReady = true;
  }

  /**
   * The row is not there any more, or is another session's: after the expiry that was seen last, the session has
   * expired.
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

  /** What a callback throws is the app's own uncaught exception; the others are called all the same. */
  #callBack(): void {
    const now = this.#ended.slice(0, CALLBACKS_IN_A_TURN);
    this.#ended = this.#ended.slice(CALLBACKS_IN_A_TURN);
    for (const { watch, reason } of now) nextTick(() => watch.isStopped || watch.onEnd(reason));
    if (this.#ended.length > 0) setImmediate(() => this.#callBack());
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

/** Takes as many watches as fit into a statement. */
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

/** The rows to check, each once, however many watch it. */
function rowsOf(page: readonly Watch[]): WatchedRow[] {
  const rows = new Map<string, WatchedRow>();
  for (const watch of page) {
    for (const key of keysOf(watch)) {
      const other = rows.get(key);
      // Watches that know different sessions under one key all have to hear which one is there.
      const createdAt = other && other.createdAt !== watch.createdAt ? undefined : watch.createdAt;
      rows.set(key, { key, createdAt });
    }
  }
  return [...rows.values()];
}
