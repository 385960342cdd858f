/** Option `previous`: takes over sessions of the store that the app used before, when they are first requested. */

import type { SessionData } from 'express-session';
import { deadlines } from '../calls/deadline.js';
import type { InOrder } from '../calls/order.js';
import { withRetries } from '../calls/retry.js';
import { sleep } from '../calls/timers.js';
import { ArgumentError, PgStoreError, toPgStoreError } from '../errors.js';
import type { Emit } from '../events.js';
import type { Options, PreviousStore, TakeOverOptions } from '../options.js';
import type { ConcurrentSessions } from './concurrency.js';
import { property } from './property.js';
import type { RowName } from './row.js';
import { handleOf, type SessionIds, validateSessionId } from './session-id.js';

type Answer = (error?: any, result?: unknown) => void;

/** How many sessions `takeOver` takes over at a time. */
const PAGE = 256;

/**
 * The result of taking over a session. `taken`: it was taken over. `left`: it has a row here already, and was left in
 * the previous store as well. `none`: there is no session.
 */
type Move = 'taken' | 'left' | 'none';

/**
 * The calls that concern both stores. The order of the writes ensures that no crash between two of them loses a session
 * or brings one back: a session is inserted here before it is destroyed there, and destroyed there before it is
 * destroyed here. A destroyed session leaves a tombstone here, because a process of the old app that still has the
 * session may save it there once more.
 */
export class PreviousSessions {
  readonly #store: PreviousStore;
  readonly #sessions: ConcurrentSessions;
  readonly #ids: SessionIds;
  readonly #options: Options;
  readonly #emit: Emit;
  /** Takeovers under way, by session ID, so that parallel requests take a session over once. */
  readonly #underWay = new Map<string, Promise<Move>>();

  constructor(store: PreviousStore, sessions: ConcurrentSessions, ids: SessionIds, options: Options, emit: Emit) {
    this.#store = store;
    this.#sessions = sessions;
    this.#ids = ids;
    this.#options = options;
    this.#emit = emit;
  }

  async load(sid: string, deadline: number): Promise<SessionData | null> {
    const session = await this.#sessions.load(sid, deadline);
    if (session !== null) return session;
    await this.takeOver(sid, deadline);
    // The row is read even if there was nothing to take over, because another process may have taken the session over.
    return this.#sessions.load(sid, deadline);
  }

  async destroy(sid: string, deadline: number): Promise<void> {
    await this.#destroyThere(sid, deadline);
    await this.#sessions.bury(this.#ids.rowKeysFor(sid), this.#ids.shardOf(sid), deadline);
  }

  /**
   * Destroys the session of a row in both stores. With option `hashIds` its ID is unknown, so it cannot be destroyed in
   * the previous store, and only the tombstone prevents it from being taken over again.
   */
  async destroyRow({ key, shard }: Pick<RowName, 'key' | 'shard'>): Promise<void> {
    const sid = this.#ids.sessionIdFrom(key);
    if (sid !== undefined) return this.destroy(sid, this.#newDeadline());
    await this.#sessions.bury([key], shard, this.#newDeadline());
  }

  /** Destroys all sessions in the previous store. */
  async clear(): Promise<void> {
    const clear = property(this.#store, 'clear') as PreviousStore['clear'];
    if (!clear) throw unsupported('`clear`');
    await this.#ask('clear', this.#newDeadline(), (answer) => clear.call(this.#store, answer));
  }

  /**
   * Takes over all sessions that the previous store lists, or those with the given session IDs.
   *
   * @param inOrder runs a task in the order of the calls on a session ID
   * @returns how many were taken over
   */
  async takeOverAll({ sids, onProgress }: TakeOverOptions, inOrder: InOrder<Move>): Promise<number> {
    const listed = sids ?? (await this.#list());
    const total = Array.isArray(listed) ? listed.length : undefined;
    let done = 0;
    let taken = 0;
    const left: string[] = [];
    const takePage = async (page: readonly string[]) => {
      const results = await Promise.all(page.map((sid) => inOrder(sid, () => this.#move(sid, this.#newDeadline()))));
      taken += results.filter((move) => move === 'taken').length;
      left.push(...page.filter((_, n) => results[n] === 'left'));
      done += page.length;
      onProgress?.(done, total);
    };
    let page: string[] = [];
    for await (const sid of listed) {
      const flaw = validateSessionId(sid);
      if (flaw) {
        await takePage(page);
        throw new ArgumentError('takeOver', `\`sids\`: element ${done}: ${flaw}; ${taken} sessions were taken over`);
      }
      page.push(sid);
      if (page.length < PAGE) continue;
      await takePage(page);
      page = [];
    }
    if (page.length > 0) await takePage(page);
    if (left.length > 0) await this.#destroyLeft(left);
    return taken;
  }

  /** Takes a session over, unless it has a row here. */
  async takeOver(sid: string, deadline: number): Promise<void> {
    await this.#move(sid, deadline);
  }

  #move(sid: string, deadline: number): Promise<Move> {
    const running = this.#underWay.get(sid) ?? this.#moveOnce(sid, deadline).finally(() => this.#underWay.delete(sid));
    this.#underWay.set(sid, running);
    return running;
  }

  async #moveOnce(sid: string, deadline: number): Promise<Move> {
    const session = await this.#getThere(sid, deadline);
    if (typeof session !== 'object' || session === null) return 'none';
    if (!(await this.#sessions.adopt(sid, session, deadline))) {
      // The session ID has a row. If that is a session, the process that took it over destroys it there. Nobody else
      // may do so, because that process looks there once more and would take its absence for a sign-out. If the row is
      // a tombstone, a process of the old app has saved the session there again.
      if (await this.#sessions.has(sid, deadline)) return 'left';
      await this.#destroyThere(sid, deadline);
      return 'none';
    }
    if (!(await this.#getThere(sid, deadline))) {
      // A process of the old app has destroyed the session there since the first look, so it is destroyed here as well.
      await this.#sessions.bury(this.#ids.rowKeysFor(sid), this.#ids.shardOf(sid), deadline);
      return 'none';
    }
    this.#emit('takenOver', handleOf(this.#ids.rowKeysFor(sid)[0]));
    await this.#destroyThere(sid, deadline);
    return 'taken';
  }

  /**
   * Destroys sessions in the previous store that this store had already, for example because an earlier attempt to
   * destroy them there failed. A process that is taking such a session over may still look for it there, and would take
   * its absence for a sign-out. So this waits for `timeout`, after which such a call has ended.
   */
  async #destroyLeft(sids: readonly string[]): Promise<void> {
    await sleep(this.#options.timeout);
    for (let start = 0; start < sids.length; start += PAGE) {
      const page = sids.slice(start, start + PAGE);
      await Promise.all(page.map((sid) => this.#destroyThere(sid, this.#newDeadline())));
    }
  }

  #getThere(sid: string, deadline: number): Promise<unknown> {
    return this.#ask('get', deadline, (answer) => this.#store.get(sid, answer));
  }

  #destroyThere(sid: string, deadline: number): Promise<unknown> {
    return this.#ask('destroy', deadline, (answer) => this.#store.destroy(sid, answer));
  }

  /** The session IDs that the previous store lists. */
  async #list(): Promise<string[]> {
    const all = property(this.#store, 'all') as PreviousStore['all'];
    if (!all) throw unsupported('`all`, which lists its sessions; give `takeOver` their IDs in `sids`');
    const sessions = await this.#ask('all', this.#newDeadline(), (answer) => all.call(this.#store, answer));
    // MemoryStore returns an object whose keys are session IDs, and connect-redis an array of sessions with an `id`.
    const sids = Array.isArray(sessions) ? sessions.map((session) => session?.id) : Object.keys(sessions ?? {});
    if (sids.every((sid) => typeof sid === 'string')) return sids;
    throw unsupported('session IDs in the answer of `all`; give `takeOver` these in `sids`');
  }

  /** Calls a method of the previous store, and repeats the call after transient errors. */
  async #ask(call: string, deadline: number, start: (answer: Answer) => unknown): Promise<unknown> {
    const name = `previous.${call}`;
    const onRetry = (attempt: number, error: unknown) => {
      this.#emit('retry', name, attempt, toPgStoreError(name, error));
    };
    try {
      return await withRetries(this.#options.retry, deadline, onRetry, () => deadlines.race(deadline, answerOf(start)));
    } catch (error) {
      throw toPgStoreError(name, error);
    }
  }

  #newDeadline(): number {
    return performance.now() + this.#options.timeout;
  }
}

/** Checks the options of `takeOver`. @throws ArgumentError */
export function checkTakeOver({ sids, onProgress }: TakeOverOptions): void {
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw new ArgumentError('takeOver', '`onProgress`: expected a function');
  }
  if (sids === undefined) return;
  const isIterable = typeof (sids as AsyncIterable<string> | null)?.[Symbol.asyncIterator] === 'function';
  if (!Array.isArray(sids) && !isIterable) {
    throw new ArgumentError('takeOver', '`sids`: expected an array or an async iterable of session IDs');
  }
  if (!Array.isArray(sids)) return;
  const place = sids.findIndex((sid) => validateSessionId(sid) !== undefined);
  if (place >= 0) throw new ArgumentError('takeOver', `\`sids\`: element ${place}: ${validateSessionId(sids[place])}`);
}

/**
 * The answer that a store passes to its callback. If the store also returns a promise, only its rejection matters.
 * Stores that keep files report a missing session as `ENOENT`, which is not an error unless it comes from connecting to
 * a socket.
 */
function answerOf(start: (answer: Answer) => unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const fail = (error: any) =>
      error.code === 'ENOENT' && error.syscall !== 'connect' ? resolve(null) : reject(error);
    const answer: Answer = (error, result) => (error ? fail(error) : resolve(result));
    Promise.resolve(start(answer)).catch(reject);
  });
}

function unsupported(what: string): PgStoreError {
  return new PgStoreError(`the store in option \`previous\` has no ${what}`, 'UNSUPPORTED');
}
