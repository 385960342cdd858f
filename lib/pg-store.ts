/** The store as express-session sees it, and what it offers beyond that. */

import type session from 'express-session';
import type { SessionData } from 'express-session';
import { Interval } from './calls/interval.js';
import { KeyedReadWriteLock } from './calls/order.js';
import { type Callback, CallTracker, NO_DEADLINE, refuseCallback } from './calls/tracker.js';
import { UnderWay } from './calls/under-way.js';
import { Database } from './client/database.js';
import { ArgumentError, PgStoreError, toPgStoreError } from './errors.js';
import { EventStore } from './events.js';
import { type Options, type PgStoreOptions, parseOptions, type TakeOverOptions } from './options.js';
import { BulkDestruction, SavedSession, type Saves } from './session/bulk.js';
import { Codec } from './session/codec.js';
import { ConcurrentSessions } from './session/concurrency.js';
import { type ListedSession, SessionListing, type UserSession } from './session/listing.js';
import { makePermanent } from './session/permanent.js';
import { checkTakeOver, PreviousSessions } from './session/previous.js';
import { property } from './session/property.js';
import type { ExpiredRow, Statements } from './session/row.js';
import { SessionScopes } from './session/scope.js';
import { handleOf, SessionIds, validateSessionId } from './session/session-id.js';
import { transferSnapshot } from './session/snapshot.js';
import { type Change, SessionUpdates } from './session/update.js';
import { checkUser } from './session/user.js';
import { type SessionEnd, SessionWatches } from './session/watch.js';
import { PgStatements } from './sql/statements.js';

type Request = Parameters<session.Store['createSession']>[0];

/**
 * Keeps express-session's sessions in a PostgreSQL table.
 *
 * ```ts
 * const store = new PgStore({ uri: 'postgres://localhost/app' })
 * app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false }))
 * ```
 *
 * Connects to nothing until first use, creates the table then if it is missing, and tries again at the next call if
 * that failed. The methods of express-session's store interface (its README, "Session Store Implementation") take a
 * callback, or return a promise without one; all others return promises. A failed call gives a `PgStoreError` that
 * names the call, wrong arguments a `TypeError`.
 */
export class PgStore extends EventStore {
  protected readonly tableName: string;
  readonly #options: Options;
  readonly #ids: SessionIds;
  readonly #codec: Codec;
  readonly #calls: CallTracker;
  readonly #order = new KeyedReadWriteLock();
  readonly #scopes = new SessionScopes();
  readonly #saves: Saves = new UnderWay();
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #sessions: ConcurrentSessions;
  readonly #previous: PreviousSessions | undefined;
  readonly #listing: SessionListing;
  readonly #bulk: BulkDestruction;
  readonly #updates: SessionUpdates;
  readonly #watches: SessionWatches;
  readonly #autodelete: Interval;
  #closing: Promise<void> | undefined;

  /** @throws TypeError for an unknown option or a bad value; it names the option */
  constructor(options?: PgStoreOptions);
  /** @internal Specs give it statements on a table in memory. */
  constructor(options: PgStoreOptions, statements: Statements);
  constructor(options: PgStoreOptions = {}, statements?: Statements) {
    super();
    this.#options = parseOptions(options);
    const { schema, table, maxLifetime, timeout, previous } = this.#options;
    this.tableName = `${schema}.${table}`;
    this.#ids = new SessionIds(this.#options);
    this.#codec = new Codec(this.#options);
    this.#calls = new CallTracker(timeout);
    this.#database = new Database(this.#options, (kind, attempt, error) =>
      this.notify('retry', kind, attempt, toPgStoreError(kind, error)),
    );
    const deadline = () => this.#calls.deadline();
    this.#statements =
      statements ?? new PgStatements(this.#database, this.#options, this.#ids.range, maxLifetime, deadline);
    this.#sessions = new ConcurrentSessions(this.#statements, this.#ids, this.#codec, this.#options, this.notify);
    this.#previous = previous && new PreviousSessions(previous, this.#sessions, this.#ids, this.#options, this.notify);
    this.#listing = new SessionListing(this.#statements, this.#ids, this.#codec, this.notify);
    this.#watches = new SessionWatches(
      this.#statements,
      this.#ids,
      this.#order,
      this.#previous,
      this.#options.watchInterval,
      (work) => this.#calls.promise('watch', work),
      this.notify,
    );
    const onDestroyed = (key: string) => this.#watches.checkKey(key);
    this.#bulk = new BulkDestruction(this.#statements, this.#ids, this.#saves, this.#previous, deadline, onDestroyed);
    this.#updates = new SessionUpdates(this.#statements, this.#ids, this.#codec, this.#previous, deadline, this.notify);
    this.#autodelete = new Interval(this.#options.autodelete, () => this.#autodeleteByTimer());
    if (this.#options.permanent) makePermanent(this, (session) => this.#codec.ttl(() => session));
  }

  /** The session, or `null` where there is none, it has expired, or its row cannot be read. */
  override get(sid: string): Promise<SessionData | null>;
  override get(sid: string, callback: Callback<SessionData | null>): void;
  override get(sid: string, callback?: Callback<SessionData | null>): Promise<SessionData | null> | undefined {
    const load = (deadline: number): Promise<SessionData | null> => {
      if (validateSessionId(sid)) return Promise.resolve(null);
      return this.#order.read(sid, () => (this.#previous ?? this.#sessions).load(sid, deadline));
    };
    if (!this.#scopes.isOn) return this.#calls.run('get', callback, load);
    return this.#scopes.follow(sid, callback, (answer) => this.#calls.run('get', answer, load));
  }

  /**
   * Saves the session. One that was loaded from the store is merged with what others saved meanwhile, and discarded,
   * with a `dropped` event, if it was destroyed or changed hands meanwhile; any other object replaces the row. In a
   * framework without express-session, an object that is saved after a `get` of its session ID counts as loaded: see
   * `scope`.
   */
  override set(sid: string, session: SessionData): Promise<void>;
  override set(sid: string, session: SessionData, callback: Callback<void> | undefined): void;
  /**
   * The same as Koa's session middlewares call it: the session lives so many milliseconds, whatever its cookie says.
   */
  override set(sid: string, session: object, lifetime: number): Promise<void>;
  override set(sid: string, session: SessionData, last?: Callback<void> | number): Promise<void> | undefined {
    const lifetime = typeof last === 'number' ? checkLifetime(last) : undefined;
    const callback = typeof last === 'number' ? undefined : last;
    return this.#calls.run('set', callback, async (deadline) => {
      const flaw = validateSessionId(sid);
      if (flaw) throw new PgStoreError(flaw, 'INVALID_SID');
      // In this tick: what the app changes afterwards is not part of this save.
      const encoded = this.#codec.encode(session, lifetime);
      const subject = new SavedSession(sid, this.#ids.shardOf(sid), () => this.#codec.userOf(encoded, encoded.expires));
      const loaded = this.#scopes.isOn ? this.#scopes.standIn(sid, session, encoded.data) : session;
      const save = this.#order.write(sid, () => this.#sessions.save(sid, encoded, loaded, deadline));
      await this.#saves.add(subject, save);
    });
  }

  /**
   * Puts off the session's expiry and stores its cookie, but not its data; skips what option `touchAfter` allows. Never
   * creates a row.
   */
  override touch(sid: string, session: SessionData): Promise<void>;
  override touch(sid: string, session: SessionData, callback: Callback<void> | undefined): void;
  override touch(sid: string, session: SessionData, callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('touch', callback, async (deadline) => {
      if (validateSessionId(sid)) return;
      const encoded = this.#codec.encodeForTouch(session);
      const loaded = this.#scopes.isOn ? this.#scopes.standIn(sid, session) : session;
      return this.#order.write(sid, () => this.#sessions.touch(sid, encoded, loaded, deadline));
    });
  }

  /** Destroys the session; no request that has it brings it back. Not an error where there is none. */
  override destroy(sid: string): Promise<void>;
  override destroy(sid: string, callback: Callback<void> | undefined): void;
  override destroy(sid: string, callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('destroy', callback, async (deadline) => {
      if (validateSessionId(sid)) return;
      if (this.#scopes.isOn) this.#scopes.forget(sid);
      // Not those that come after this call: they may be about a session that is saved after it.
      const watches = this.#watches.on(sid);
      await this.#order.write(sid, () => (this.#previous ?? this.#sessions).destroy(sid, deadline));
      this.#watches.end(watches);
    });
  }

  /** All unexpired sessions of the prefix, in one array: for many of them use `sessions()`. */
  override all(): Promise<ListedSession[]>;
  override all(callback: Callback<ListedSession[]>): void;
  override all(callback?: Callback<ListedSession[]>): Promise<ListedSession[]> | undefined {
    const list = async () => {
      const sessions: ListedSession[] = [];
      for await (const page of this.#listing.pages('all')) sessions.push(...page);
      return sessions;
    };
    return this.#calls.run('all', callback, list, NO_DEADLINE);
  }

  /** Counts the unexpired sessions of the prefix; with `secret`, without checking their signatures. */
  override length(): Promise<number>;
  override length(callback: Callback<number>): void;
  override length(callback?: Callback<number>): Promise<number> | undefined {
    return this.#calls.run('length', callback, () => this.#statements.count(), NO_DEADLINE);
  }

  /**
   * Destroys all sessions of the prefix that are there, and those that calls of `set` of this process are saving. A
   * session that is created after the call stays, by the database's clock. Option `previous`: all of that store first.
   */
  override clear(): Promise<void>;
  override clear(callback: Callback<void> | undefined): void;
  override clear(callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('clear', callback, () => this.#bulk.all(), NO_DEADLINE);
  }

  /**
   * The unexpired sessions of the prefix, one by one, in the order of their row keys. They are read page by page, so
   * memory stays flat, and closing the store does not wait for a slow reader.
   */
  async *sessions(): AsyncGenerator<ListedSession, void, undefined> {
    const pages = this.#listing.pages('sessions');
    for (;;) {
      const { done, value } = await this.#calls.promise('sessions', () => pages.next(), NO_DEADLINE);
      if (done) return;
      yield* value;
    }
  }

  /** All unexpired session IDs of the prefix. With `hashIds` an error: nobody knows them. */
  ids(): Promise<string[]>;
  ids(...given: unknown[]): Promise<string[]> {
    return this.#inStatements('ids', given, () => this.#listing.ids());
  }

  /**
   * A user's unexpired sessions (option `user`), newest activity first. Only those whose own data belong to that user.
   *
   * @param options `limit`: how many at most. Default 1,000
   */
  sessionsOf(user: string | number, options?: { limit?: number }): Promise<UserSession[]>;
  sessionsOf(user: string | number, options?: { limit?: number }, ...given: unknown[]): Promise<UserSession[]> {
    return this.#inStatements('sessionsOf', [options, ...given], () => {
      const { limit = 1000 } = knownOptions('sessionsOf', options, ['limit']);
      checkCount('sessionsOf', 'limit', limit);
      return this.#listing.ofUser(checkUser(user), limit);
    });
  }

  /**
   * Destroys a user's sessions, all but the session ID in `except`: those that are there when its statement runs, and
   * those that calls of `set` of this process are saving. What is created later stays.
   *
   * @returns how many rows were deleted, expired ones included; after a lost answer it may be fewer than that
   */
  destroySessionsOf(user: string | number, options?: { except?: string | undefined } | null): Promise<number>;
  destroySessionsOf(
    user: string | number,
    options?: { except?: string | undefined } | null,
    ...given: unknown[]
  ): Promise<number> {
    return this.#inStatements('destroySessionsOf', [options, ...given], () => {
      const { except } = knownOptions('destroySessionsOf', options, ['except']);
      return this.#bulk.ofUser(checkUser(user), checkExcept(except));
    });
  }

  /**
   * Keeps `most` of a user's sessions in all: the one in `except`, and the most recently active others. Destroys the
   * rest.
   *
   * @returns how many rows were deleted, expired ones included
   */
  limitSessionsOf(
    user: string | number,
    most: number,
    options?: { except?: string | undefined } | null,
  ): Promise<number>;
  limitSessionsOf(
    user: string | number,
    most: number,
    options?: { except?: string | undefined } | null,
    ...given: unknown[]
  ): Promise<number> {
    return this.#inStatements('limitSessionsOf', [options, ...given], () => {
      const { except } = knownOptions('limitSessionsOf', options, ['except']);
      checkCount('limitSessionsOf', 'most', most, 0);
      return this.#bulk.limitOfUser(checkUser(user), most, checkExcept(except));
    });
  }

  /**
   * Destroys the session with a handle from `sessionsOf`, if it is that user's. A handle from before a rotation of
   * `secret` still works, without `hashIds`.
   *
   * @returns whether there was one
   */
  destroyByHandle(handle: string, options: { user: string | number }): Promise<boolean>;
  destroyByHandle(handle: string, options: { user: string | number }, ...given: unknown[]): Promise<boolean> {
    return this.#inStatements('destroyByHandle', [options, ...given], () =>
      this.#bulk.byHandle(handle, checkUser(knownOptions('destroyByHandle', options, ['user']).user)),
    );
  }

  /**
   * Changes a stored session outside of a request: atomically, whatever others save meanwhile. Nothing is written where
   * `change` changes nothing. The session's cookie and expiry stay as they are, unless `change` changes the cookie: its
   * `maxAge` or `expires` sets how long the session lives. Option `previous`: the session is taken over first.
   *
   * ```ts
   * await store.update(sid, (session) => { session.credits = (session.credits ?? 0) + 1 })
   * ```
   *
   * In one case `change` may count twice: if the answer to a write was lost, and another process has saved the session
   * before the write could be looked for.
   *
   * @param change gets the session as `get` gives it, and changes it or returns another one; synchronous. It is called
   * again, with the session parsed anew, where another request has saved it meanwhile. What it throws fails the call,
   * and nothing is written.
   * @returns the session as it is stored; `null` where there is none
   */
  update(sid: string, change: Change): Promise<SessionData | null> {
    return this.#calls.promise('update', async (deadline) => {
      const flaw = validateSessionId(sid);
      if (flaw) throw new PgStoreError(flaw, 'INVALID_SID');
      checkFunction('update', 'change', change);
      return this.#order.write(sid, () => this.#updates.one(sid, change, deadline));
    });
  }

  /**
   * Changes each of a user's unexpired sessions (option `user`), as `update` does: those whose own data belong to that
   * user. Sessions that are still in the store in option `previous` are not among them. If `change` throws, the call
   * fails with that; sessions that were changed before stay so.
   *
   * @returns how many were changed
   */
  updateSessionsOf(user: string | number, change: Change): Promise<number> {
    return this.#calls.promise(
      'updateSessionsOf',
      async () => {
        checkFunction('updateSessionsOf', 'change', change);
        return this.#updates.ofUser(checkUser(user), change, (sid, task) => this.#order.write(sid, task));
      },
      NO_DEADLINE,
    );
  }

  /**
   * Calls back once when a session has ended: `'destroyed'`, or `'expired'`. Whoever ended it: this process, at once;
   * another process, SQL by hand or its expiry, within option `watchInterval` and the time of one statement. While the
   * database does not answer nothing is called; what has ended meanwhile is reported afterwards.
   *
   * ```ts
   * const stop = store.watch(req.sessionID, () => socket.close())
   * socket.on('close', stop)
   * ```
   *
   * A session that is not stored has ended: save it first, unless it is being saved at the call. What `onEnd` throws is
   * an uncaught exception. The watch keeps no process alive, and `close()` ends it without calling back.
   *
   * @returns a function that ends the watch
   * @throws TypeError for what is not a session ID, or not a function
   */
  watch(sid: string, onEnd: (reason: SessionEnd) => void): () => void {
    const flaw = validateSessionId(sid);
    if (flaw) throw new ArgumentError('watch', flaw);
    checkFunction('watch', 'onEnd', onEnd);
    return this.#watches.watch(sid, onEnd);
  }

  /**
   * Takes over sessions of the store in option `previous`: those with the IDs in `sids`, else all, if that store can
   * list them (`all`). May be repeated. Option `timeout` applies to each of that store's answers, the list included.
   *
   * @returns how many were taken over
   */
  takeOver(options?: TakeOverOptions | null): Promise<number>;
  takeOver(options?: TakeOverOptions | null, ...given: unknown[]): Promise<number> {
    return this.#inStatements('takeOver', [options, ...given], () => {
      const checked = knownOptions('takeOver', options, ['sids', 'onProgress']);
      checkTakeOver(checked);
      if (!this.#previous) throw new PgStoreError('needs option `previous`', 'UNSUPPORTED');
      return this.#previous.takeOverAll(checked, (sid, task) => this.#order.write(sid, task));
    });
  }

  /** Creates the table now, or checks that it is there and has the store's columns, instead of at first use. */
  ready(): Promise<void>;
  ready(...given: unknown[]): Promise<void> {
    refuseCallback('ready', ...given);
    return this.#calls.promise('ready', (deadline) => this.#database.ready(deadline));
  }

  /**
   * Deletes expired rows now, of all prefixes, in short statements.
   *
   * @returns how many were deleted
   */
  autodelete(): Promise<number>;
  autodelete(...given: unknown[]): Promise<number> {
    return this.#inStatements('autodelete', given, async () => {
      let rows = 0;
      for await (const page of this.#statements.deleteExpired()) {
        rows += page.length;
        this.#notifyExpired(page);
        if (this.#closing) break;
      }
      return rows;
    });
  }

  /** Refuses new calls, finishes those under way, stops the timer, ends what the store opened. */
  close(): Promise<void>;
  close(...given: unknown[]): Promise<void> {
    refuseCallback('close', ...given);
    this.#autodelete.stop();
    this.#watches.close();
    this.#closing ??= this.#calls.close().then(() => this.#database.close());
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Middleware for frameworks that make session objects of their own and await `get`, such as express-openid-connect
   * and koa-session, and a Fastify hook. In a request that runs through it, a `set` after a `get` of the same session
   * ID saves what that `get` loaded, whichever object it is given: merged, and discarded if the session was destroyed
   * meanwhile.
   *
   * ```ts
   * app.use(store.scope) // before the middleware that loads the session
   * ```
   *
   * Where the framework passes callbacks, as @fastify/session does, the store does this by itself. It returns what
   * `next` returned, so Koa can await it; Fastify's types want a hook that returns nothing.
   */
  readonly scope = (_req: unknown, _res: unknown, next: () => void): void => this.#scopes.runRequest(next);

  /** From the data of `get` to `req.session`; the store remembers what the request saw. */
  override createSession(req: Request, data: SessionData): session.Session & SessionData {
    this.#scopes.turnOff();
    data.cookie = fitCookie(property(data, 'cookie'));
    const created = super.createSession(req, data);
    transferSnapshot(data, created);
    return created;
  }

  /** Runs a call of many statements, each of which has a deadline of its own. */
  #inStatements<T>(name: string, given: readonly unknown[], work: () => Promise<T> | T): Promise<T> {
    refuseCallback(name, ...given);
    return this.#calls.promise(name, async () => work(), NO_DEADLINE);
  }

  #notifyExpired(rows: readonly ExpiredRow[]): void {
    if (!this.isHeard('expired')) return;
    for (const { key, user, wasSession } of rows) {
      if (wasSession) this.notify('expired', handleOf(key), user);
    }
  }

  async #autodeleteByTimer(): Promise<void> {
    try {
      this.notify('autodelete', await this.autodelete());
    } catch (error) {
      this.notify('autodelete', 0, error as Error);
    }
  }
}

/**
 * A cookie that express-session's `Cookie` can be made of: that fails on an `originalMaxAge` which is not a number, and
 * it copies what every object seems to have where `Object.prototype` is polluted. A session without a cookie stays
 * without, and express-session says what it says with MemoryStore.
 */
function fitCookie(given: unknown): SessionData['cookie'] {
  if (typeof given !== 'object' || given === null) return given as never;
  const isPlain = Object.getPrototypeOf(given) === Object.prototype;
  const cookie = isPlain ? Object.assign(Object.create(null), given) : given;
  if (typeof cookie.originalMaxAge !== 'number') cookie.originalMaxAge = null;
  return cookie;
}

/** The options of a method. A misspelt name would mean another thing: it is refused. */
function knownOptions<T extends object>(method: string, options: T | null | undefined, known: readonly string[]): T {
  if (options === undefined || options === null) return Object.create(null);
  if (typeof options !== 'object')
    throw new ArgumentError(method, `expected an object as options, got ${typeof options}`);
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new ArgumentError(method, `unknown option \`${unknown}\`; it takes \`${known.join('` and `')}\``);
  }
  // Not what somebody has put into Object.prototype.
  return Object.assign(Object.create(null), options);
}

function checkFunction(method: string, name: string, value: unknown): void {
  if (typeof value !== 'function') throw new ArgumentError(method, `\`${name}\`: expected a function`);
}

function checkCount(method: string, name: string, count: unknown, least = 1): void {
  if (typeof count === 'number' && Number.isInteger(count) && count >= least) return;
  throw new ArgumentError(method, `\`${name}\`: expected a whole number, ${least} or more`);
}

function checkLifetime(lifetime: number): number {
  if (lifetime >= 0) return lifetime;
  throw new ArgumentError('set', 'expected a callback, or a lifetime of zero or more milliseconds');
}

/** @throws PgStoreError `INVALID_SID` */
function checkExcept(except: string | null | undefined): string | undefined {
  if (except === undefined || except === null) return undefined;
  const flaw = validateSessionId(except);
  if (flaw) throw new PgStoreError(`\`except\`: ${flaw}`, 'INVALID_SID');
  return except;
}
