/**
 * Supports frameworks that create session objects of their own from the result of `get` (Fastify,
 * express-openid-connect, koa): the store remembers what `get` has loaded for the code that runs afterwards in the same
 * async context.
 */

import { AsyncLocalStorage } from 'node:async_hooks';
import type { EventEmitter } from 'node:events';
import { isDeepStrictEqual } from 'node:util';
import type { Callback } from '../calls/tracker.js';
import { isObject, ownValue } from './merge.js';
import { hasSnapshot, LoadedSession, loadedSnapshot } from './snapshot.js';

/** While `get` is called, loads that are not remembered any more are dropped at least every so many milliseconds. */
const SWEEP_MS = 60 * 1000;

/** With fewer contexts than this, a sweep comes only after `SWEEP_MS`. */
const FEW_CONTEXTS = 1024;

/**
 * The largest number of sessions that a context remembers: those that were loaded last. A context begins with what the
 * outer one remembers, so a program that reads one session after another, each in the callback of the one before, would
 * otherwise remember ever more.
 */
const MOST_SESSIONS = 100;

/**
 * What the calls of `get` for a session ID loaded in a context: the first one, and the last ones if there were several.
 * The framework's session may be made from any of them, since the app may have called `get` to read the session, or may
 * have reloaded it.
 */
type Loads = readonly LoadedSession[];

/** The largest number of them that is remembered. */
const MOST_LOADS = 4;

interface LoadsOfSession {
  readonly sid: string;
  readonly loads: Loads;
}

/**
 * What was loaded in an async context, by session ID. A context that begins within another one begins with what that
 * one has at this moment.
 */
class Context {
  /** Whether it is the context of a request that ran through `store.scope`. */
  readonly isRequest: boolean;
  /** Whether it is in the list of contexts that `SessionScopes` sweeps. */
  isListed = false;
  /** An array that is replaced and never changed, so contexts can share it: copying a Map took most of a `get`. */
  #sessions: readonly LoadsOfSession[];

  constructor(outer: Context | undefined, isRequest: boolean) {
    this.isRequest = isRequest;
    this.#sessions = outer ? outer.#sessions : [];
  }

  has(sid: string): boolean {
    return this.#sessions.some((session) => session.sid === sid);
  }

  add(sid: string, load: LoadedSession): void {
    const [first, ...later] = this.#remembered(sid);
    const loads = first ? [first, ...later.slice(2 - MOST_LOADS), load] : [load];
    const others = this.#sessions.filter((session) => session.sid !== sid).slice(1 - MOST_SESSIONS);
    this.#sessions = [...others, { sid, loads }];
  }

  /**
   * Finds the load from which a session was made.
   *
   * @param data JSON of the session, if it is to be saved; `undefined` for a touch
   */
  find(sid: string, session: object, data: string | undefined): LoadedSession | undefined {
    const loads = this.#remembered(sid);
    if (loads.length < 2) return loads[0];
    const known = loads.find((load) => load.isOf(session));
    if (known) return known;
    if (data === undefined) return loads.at(-1);
    const load = nearestLoad(loads, data);
    load?.noteSession(session);
    return load;
  }

  /** Forgets a session that is destroyed, also in the contexts that began with what this one has. */
  forget(sid: string): void {
    for (const load of this.#loadsOf(sid)) load.forget();
    this.#sessions = this.#sessions.filter((session) => session.sid !== sid);
  }

  /** Drops the loads that are not remembered any more. @returns whether any are left */
  sweep(): boolean {
    this.#sessions = this.#sessions
      .map(({ sid, loads }) => ({ sid, loads: stillRemembered(loads) }))
      .filter(({ loads }) => loads.length > 0);
    return this.#sessions.length > 0;
  }

  #remembered(sid: string): Loads {
    return stillRemembered(this.#loadsOf(sid));
  }

  #loadsOf(sid: string): Loads {
    return this.#sessions.find((session) => session.sid === sid)?.loads ?? [];
  }
}

function stillRemembered(loads: Loads): Loads {
  const now = performance.now();
  return loads.filter((load) => load.rememberedUntil > now);
}

/**
 * Remembers what each `get` has loaded, and finds it when a `set` of the same session ID follows in the same async
 * context. That `set` then saves the loaded session, whichever object the framework passes.
 *
 * It is on from the start, and is turned off for ever once `createSession` was called, because express-session's
 * sessions carry their snapshot themselves. For requests that run through `store.scope` it is always on. While it is
 * off, calls do not look at their async context, which would cost time.
 */
export class SessionScopes {
  readonly #storage = new AsyncLocalStorage<Context>();
  #isAutomatic = true;
  #hasRequests = false;
  #isClosed = false;
  /**
   * The contexts in which something is remembered. A timer may keep its context for ever, so old loads must be dropped
   * from it. The references are weak, so that the context of a request becomes garbage when the request has ended.
   */
  #listed: WeakRef<Context>[] = [];
  #nextSweepLength = FEW_CONTEXTS;
  #nextSweepTime = performance.now() + SWEEP_MS;
  /** The context of each request and response that ran through `store.scope`. */
  readonly #contextOf = new WeakMap<object, Context>();

  /** Whether calls have to look at their async context. */
  get isOn(): boolean {
    return this.#isAutomatic || this.#hasRequests;
  }

  /** From now on only requests that run through `store.scope` have a context. */
  turnOff(): void {
    if (!this.#isAutomatic) return;
    this.#isAutomatic = false;
    // In Node.js 20 and 22 an AsyncLocalStorage that was used makes all promises of the process slower until it is
    // disabled.
    if (!this.#hasRequests) this.#storage.disable();
  }

  /** Remembers nothing any more, for a store that is closed; it would make all promises of the process slower. */
  close(): void {
    this.#isClosed = true;
    this.#isAutomatic = false;
    this.#hasRequests = false;
    this.#storage.disable();
  }

  /**
   * Runs the rest of a request in a context of its own.
   *
   * @param objects the request and the response; Fastify's have Node's in their property `raw`
   */
  runRequest<T>(next: () => T, ...objects: readonly unknown[]): T {
    if (this.#isClosed) return next();
    this.#hasRequests = true;
    const context = new Context(this.#current(), true);
    for (const object of objects) this.#bind(emitterOf(object), context);
    return this.#storage.run(context, () => next());
  }

  /**
   * Has the listeners of a request's events run in its context. Node.js would call them in the context of the
   * connection, so a handler that waits for the end of a body by `req.on('end', …)` would be outside of it.
   */
  #bind(emitter: Emitter | undefined, context: Context): void {
    if (!emitter) return;
    const isBound = this.#contextOf.has(emitter);
    this.#contextOf.set(emitter, context);
    if (isBound) return;
    const { emit } = emitter;
    const emitInContext: Emitter['emit'] = (...event) => {
      const inContext = this.#contextOf.get(emitter);
      if (this.#isClosed || !inContext) return emit.apply(emitter, event);
      return this.#storage.run(inContext, () => emit.apply(emitter, event));
    };
    Reflect.defineProperty(emitter, 'emit', { value: emitInContext, writable: true, configurable: true });
  }

  /**
   * Makes a call of `get`, and remembers what it loads. In a request that ran through `store.scope` that is remembered
   * for the whole request, otherwise for the code that the callback starts.
   */
  follow<T>(
    sid: string,
    callback: Callback<T> | undefined,
    get: (callback: Callback<T> | undefined) => Promise<T> | undefined,
  ): Promise<T> | undefined {
    // The context is read now, because the callback of a call that timed out runs in the context of another call.
    const outer = this.#current();
    if (typeof callback === 'function')
      return get((error, session) => this.#callBack(outer, sid, callback, error, session));
    const answer = get(callback);
    // This handler is added first, so it runs before the caller's own handlers of the promise.
    if (outer) answer?.then((session) => this.#rememberAwaited(outer, sid, session), ignore);
    return answer;
  }

  /** The object that has the snapshot of the session: the session itself, or the load that is remembered for it. */
  standIn(sid: string, session: object, data?: string): object {
    if (hasSnapshot(session, sid)) return session;
    const load = this.#current()?.find(sid, session, data);
    load?.remember();
    return load ?? session;
  }

  /** Forgets a session that is being destroyed, so that a `set` which follows stores a new session. */
  forget(sid: string): void {
    this.#current()?.forget(sid);
  }

  #current(): Context | undefined {
    const context = this.#storage.getStore();
    return context && (this.#isAutomatic || context.isRequest) ? context : undefined;
  }

  /** Calls back in a context that remembers what was loaded. */
  #callBack<T>(outer: Context | undefined, sid: string, callback: Callback<T>, error: unknown, session?: T): void {
    if (this.#isClosed || (!this.#isAutomatic && !outer?.isRequest)) {
      callback(error, session);
      return;
    }
    const context = outer?.isRequest ? outer : new Context(outer, false);
    const load = loadOf(session);
    if (load) this.#add(context, sid, load);
    // The code that made the call may wait for the callback, and continue in the outer context.
    if (load && outer !== context && outer?.has(sid)) this.#add(outer, sid, load);
    this.#storage.run(context, callback, error, session);
  }

  /** Remembers what a promise of `get` has loaded, if the context is a request's or remembers the session already. */
  #rememberAwaited(context: Context, sid: string, session: unknown): void {
    const load = loadOf(session);
    if (load && (context.isRequest || context.has(sid))) this.#add(context, sid, load);
  }

  #add(context: Context, sid: string, load: LoadedSession): void {
    context.add(sid, load);
    if (!context.isListed) {
      context.isListed = true;
      this.#listed.push(new WeakRef(context));
    }
    if (this.#listed.length >= this.#nextSweepLength || performance.now() >= this.#nextSweepTime) this.#sweep();
  }

  /**
   * Drops old loads, and contexts without loads. It runs when the list has doubled, or after `SWEEP_MS`, so its cost
   * for each `get` is constant on average.
   */
  #sweep(): void {
    this.#listed = this.#listed.filter((reference) => {
      const context = reference.deref();
      if (context) context.isListed = context.sweep();
      return context?.isListed;
    });
    this.#nextSweepLength = Math.max(FEW_CONTEXTS, 2 * this.#listed.length);
    this.#nextSweepTime = performance.now() + SWEEP_MS;
  }
}

type Emitter = Pick<EventEmitter, 'emit'>;

/** The request or response of Node.js that a framework passes, or has in the property `raw` of its own. */
function emitterOf(object: unknown): Emitter | undefined {
  const { emit, raw } = (object ?? {}) as Partial<Emitter> & { raw?: Partial<Emitter> };
  if (typeof emit === 'function') return object as Emitter;
  return typeof raw?.emit === 'function' ? (raw as Emitter) : undefined;
}

/** A load for data that `get` has returned; `undefined` if these have no snapshot. */
function loadOf(session: unknown): LoadedSession | undefined {
  const loaded = loadedSnapshot(session);
  return loaded && new LoadedSession(loaded);
}

/**
 * The load from which a session was probably made: the one from which it differs in the fewest values, and the earliest
 * of these. A session that was made from an earlier load lacks what others have changed since then, unless its request
 * has made equal changes by itself.
 *
 * @param data JSON of the session
 */
function nearestLoad(loads: Loads, data: string): LoadedSession | undefined {
  const session: unknown = JSON.parse(data);
  const counts = loads.map((load) => countDifferences(JSON.parse(load.seen.data), session));
  return loads[counts.indexOf(Math.min(...counts))];
}

/** In how many values two JSON values differ. Each value of an object counts, an array is one value. */
function countDifferences(one: unknown, other: unknown): number {
  if (!isObject(one) || !isObject(other)) return isDeepStrictEqual(one, other) ? 0 : 1;
  const keys = Object.keys({ ...one, ...other });
  return keys.reduce((sum, key) => sum + countDifferences(ownValue(one, key), ownValue(other, key)), 0);
}

function ignore(): void {}
