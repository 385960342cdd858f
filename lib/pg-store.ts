/** `PgStore`: express-session's store interface, and the methods that go beyond it. */

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
import { SessionListing } from './session/listing.js';
import { makePermanent } from './session/permanent.js';
import { checkTakeOver, PreviousSessions } from './session/previous.js';
import { property } from './session/property.js';
import type { Change, ListedSession, SessionEnd, UserSession } from './session/public-types.js';
import type { ExpiredRow, Statements } from './session/row.js';
import { SessionScopes } from './session/scope.js';
import { handleOf, SessionIds, validateSessionId } from './session/session-id.js';
import { transferSnapshot } from './session/snapshot.js';
import { SessionUpdates } from './session/update.js';
import { checkUser } from './session/user.js';
import { SessionWatches } from './session/watch.js';
import { PgStatements } from './sql/statements.js';

type Request = Parameters<session.Store['createSession']>[0];

/**
 * A session store for express-session that keeps sessions in a PostgreSQL table.
 *
 * ```ts
 * const store = new PgStore({ uri: 'postgres://localhost/app' })
 * app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false }))
 * ```
 *
 * The store connects at its first call, and creates the table then if it is missing. If that fails, the next call tries
 * again.
 *
 * The methods of express-session's store interface (its README, "Session Store Implementation") take a callback, or
 * return a promise if they get none. All other methods return promises. A call that fails gives a `PgStoreError` that
 * names the call. A wrong callback, or a wrong option of a method, gives a `TypeError`.
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

  /** @throws TypeError for an unknown option or a wrong value; it names the option */
  constructor(options?: PgStoreOptions);
  /** @internal Specs pass statements that run on a table in memory. */
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

  /**
   * Loads a session.
   *
   * @returns the session; `null` if it does not exist, has expired, or its row cannot be read
   */
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
   * Saves a session.
   *
   * A session that was loaded from the store is merged with the changes that other requests have saved since then. If
   * it was destroyed since then, or the user for whom it was loaded has signed out (option `user`), the save is
   * discarded, with an event `dropped`. Any other object replaces the row. In frameworks without express-session, an
   * object that is saved after a `get` of its session ID counts as loaded (see `scope`).
   */
  override set(sid: string, session: SessionData): Promise<void>;
  override set(sid: string, session: SessionData, callback: Callback<void> | undefined): void;
  /**
   * Saves a session in the form of Koa's session middlewares.
   *
   * @param lifetime how many milliseconds the session lives, whatever its cookie says
   */
  override set(sid: string, session: object, lifetime: number): Promise<void>;
  override set(sid: string, session: SessionData, last?: Callback<void> | number): Promise<void> | undefined {
    const lifetime = typeof last === 'number' ? checkLifetime(last) : undefined;
    const callback = typeof last === 'number' ? undefined : last;
    return this.#calls.run('set', callback, async (deadline) => {
      const flaw = validateSessionId(sid);
      if (flaw) throw new PgStoreError(flaw, 'INVALID_SID');
      // The session is encoded in this tick, so that later changes of the app are not part of this save.
      const encoded = this.#codec.encode(session, lifetime);
      const subject = new SavedSession(sid, this.#ids.shardOf(sid), () => this.#codec.userOf(encoded, encoded.expires));
      const loaded = this.#scopes.isOn ? this.#scopes.standIn(sid, session, encoded.data) : session;
      const save = this.#order.write(sid, () => this.#sessions.save(sid, encoded, loaded, deadline));
      await this.#saves.add(subject, save);
    });
  }

  /**
   * Puts off a session's expiry and stores its cookie, but not its data. Within option `touchAfter` nothing is written.
   * It never creates a row, and it is not an error if there is none.
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

  /** Destroys a session. A request that still has it cannot store it again. It is not an error if there is none. */
  override destroy(sid: string): Promise<void>;
  override destroy(sid: string, callback: Callback<void> | undefined): void;
  override destroy(sid: string, callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('destroy', callback, async (deadline) => {
      if (validateSessionId(sid)) return;
      if (this.#scopes.isOn) this.#scopes.forget(sid);
      // Only watches that began before this call end with it. A later one may be about a session that is saved later.
      const watches = this.#watches.ofSession(sid);
      await this.#order.write(sid, () => (this.#previous ?? this.#sessions).destroy(sid, deadline));
      this.#watches.end(watches);
    });
  }

  /** All unexpired sessions of the prefix in one array. For large tables use `sessions()`, which reads page by page. */
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

  /** Counts the unexpired sessions of the prefix. With option `secret` it does not check the rows' signatures. */
  override length(): Promise<number>;
  override length(callback: Callback<number>): void;
  override length(callback?: Callback<number>): Promise<number> | undefined {
    return this.#calls.run('length', callback, () => this.#statements.count(), NO_DEADLINE);
  }

  /**
   * Destroys all sessions of the prefix, including those that calls of `set` in this process are saving. Sessions that
   * are created after the call, by the database's clock, stay. With option `previous` it first clears that store.
   */
  override clear(): Promise<void>;
  override clear(callback: Callback<void> | undefined): void;
  override clear(callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('clear', callback, () => this.#bulk.all(), NO_DEADLINE);
  }

  /**
   * Yields the unexpired sessions of the prefix one by one, in the order of their row keys. They are read in pages, so
   * memory does not grow with their number, and `close()` does not wait until all have been read.
   */
  async *sessions(): AsyncGenerator<ListedSession, void, undefined> {
    const pages = this.#listing.pages('sessions');
    for (;;) {
      const { done, value } = await this.#calls.promise('sessions', () => pages.next(), NO_DEADLINE);
      if (done) return;
      yield* value;
    }
  }

  /**
   * The IDs of all unexpired sessions of the prefix.
   *
   * @throws PgStoreError `INVALID_SID` with option `hashIds`, because the table then holds only hashes of the IDs
   */
  ids(): Promise<string[]>;
  ids(...given: unknown[]): Promise<string[]> {
    return this.#inStatements('ids', given, () => this.#listing.ids());
  }

  /**
   * A user's unexpired sessions, the most recently active first. Option `user` says which sessions are a user's; it is
   * applied to the data of each row, so a wrong `user_id` in the table does not show somebody else's session.
   *
   * @param options `limit`: the largest number of sessions. Default 1,000
   * @throws PgStoreError `INVALID_USER`
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
   * Destroys a user's sessions (option `user`), including those that calls of `set` in this process are saving.
   * Sessions that are created later stay.
   *
   * @param options `except`: the ID of a session that stays
   * @returns how many rows were deleted, expired ones included. If the connection broke before an answer, more rows may
   * have been deleted than this number says.
   * @throws PgStoreError `INVALID_USER`, `INVALID_SID`
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
   * Destroys a user's least recently active sessions (option `user`), so that at most `most` remain.
   *
   * @param most how many sessions remain, the one in `except` included; 0 or more
   * @param options `except`: the ID of a session that remains, however long ago it was active
   * @returns how many rows were deleted, expired ones included
   * @throws PgStoreError `INVALID_USER`, `INVALID_SID`
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
   * Destroys the session with a handle from `sessionsOf`, if it belongs to the given user. After a rotation of `secret`
   * earlier handles still work, except with option `hashIds`.
   *
   * @returns whether a session was destroyed
   * @throws PgStoreError `INVALID_USER`
   */
  destroyByHandle(handle: string, options: { user: string | number }): Promise<boolean>;
  destroyByHandle(handle: string, options: { user: string | number }, ...given: unknown[]): Promise<boolean> {
    return this.#inStatements('destroyByHandle', [options, ...given], () =>
      this.#bulk.byHandle(handle, checkUser(knownOptions('destroyByHandle', options, ['user']).user)),
    );
  }

  /**
   * Changes a stored session outside of a request. The change is atomic: if another request saves the session at the
   * same time, `change` is applied again to what that request saved. If `change` changes nothing, nothing is written.
   *
   * The session's cookie and expiry stay as they are, unless `change` changes the cookie, whose `maxAge` or `expires`
   * then says how long the session lives. With option `previous` the session is taken over first.
   *
   * ```ts
   * await store.update(sid, (session) => { session.credits = (session.credits ?? 0) + 1 })
   * ```
   *
   * In one case a change may be applied twice: if the answer to its write was lost, and another process saved the
   * session before the store could see that the write had been done.
   *
   * @param change gets the session as `get` returns it, and changes it or returns another one. It is synchronous, and
   * may be called several times. If it throws, nothing is written, and the call fails with what it threw.
   * @returns the session as it is stored; `null` if there is none
   * @throws PgStoreError `UNREADABLE`, `INVALID_SID`
   */
  update(sid: string, change: Change): Promise<SessionData | null>;
  update(sid: string, change: Change, ...given: unknown[]): Promise<SessionData | null> {
    refuseCallback('update', ...given);
    return this.#calls.promise('update', async (deadline) => {
      const flaw = validateSessionId(sid);
      if (flaw) throw new PgStoreError(flaw, 'INVALID_SID');
      checkFunction('update', 'change', change);
      return this.#order.write(sid, () => this.#updates.one(sid, change, deadline));
    });
  }

  /**
   * Changes each of a user's unexpired sessions (option `user`), each as `update` does. Sessions that are still in the
   * store in option `previous` are not found; `takeOver` takes them over first. If `change` throws, the call fails with
   * what it threw. Sessions that were changed before a failure remain changed, so the call may have to be repeated.
   *
   * @returns how many sessions were changed
   * @throws PgStoreError `INVALID_USER`
   */
  updateSessionsOf(user: string | number, change: Change): Promise<number>;
  updateSessionsOf(user: string | number, change: Change, ...given: unknown[]): Promise<number> {
    return this.#inStatements('updateSessionsOf', given, () => {
      checkFunction('updateSessionsOf', 'change', change);
      return this.#updates.ofUser(checkUser(user), change, (sid, task) => this.#order.write(sid, task));
    });
  }

  /**
   * Calls back once when a session has ended, with `'destroyed'` or `'expired'`.
   *
   * The end is noticed at once if this store destroyed the session. If another process, another store or SQL by hand
   * did, or the session expired, it is noticed within option `watchInterval` and the time of one statement. While the
   * database does not answer, nothing is reported; the next check afterwards reports all that has ended.
   *
   * ```ts
   * const stop = store.watch(req.sessionID, () => socket.close())
   * socket.on('close', stop)
   * ```
   *
   * A session that is not stored counts as ended, so save a new session before you watch it; a `set` that is under way
   * is waited for. `onEnd` runs in the async context of this call (`AsyncLocalStorage`). An error that it throws is an
   * uncaught exception. Watches do not keep the process alive, and `close()` ends them without calling back.
   *
   * @returns a function that ends the watch
   * @throws TypeError if `sid` is not a session ID, or `onEnd` is not a function
   */
  watch(sid: string, onEnd: (reason: SessionEnd) => void): () => void {
    const flaw = validateSessionId(sid);
    if (flaw) throw new ArgumentError('watch', flaw);
    checkFunction('watch', 'onEnd', onEnd);
    return this.#watches.watch(sid, onEnd);
  }

  /**
   * Takes over sessions from the store in option `previous`: those with the IDs in `sids`, or without `sids` all that
   * the method `all` of that store lists. The call may be repeated. Option `timeout` limits each answer of that store,
   * the list included.
   *
   * @returns how many sessions were taken over
   * @throws PgStoreError `UNSUPPORTED` without option `previous`, or if that store cannot list its sessions
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

  /**
   * Connects now instead of at the first call, creates the table if it is missing, and checks its columns otherwise.
   *
   * @throws PgStoreError `TABLE_MISMATCH`, `SHARDS_MISMATCH`
   */
  ready(): Promise<void>;
  ready(...given: unknown[]): Promise<void> {
    refuseCallback('ready', ...given);
    return this.#calls.promise('ready', (deadline) => this.#database.ready(deadline));
  }

  /**
   * Deletes the expired rows of all prefixes now, in short statements. A row can be deleted once its `delete_after` has
   * come, which is up to a fifth of its lifetime after its expiry.
   *
   * @returns how many rows were deleted
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

  /**
   * Refuses new calls, waits for those under way, stops the timers, and ends the connections that the store opened. It
   * may be called several times.
   */
  close(): Promise<void>;
  close(...given: unknown[]): Promise<void> {
    refuseCallback('close', ...given);
    this.#autodelete.stop();
    this.#watches.close();
    this.#closing ??= this.#end();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Middleware for frameworks that create session objects of their own and await `get`, such as express-openid-connect
   * and koa-session; it also works as a Fastify hook. In a request that runs through it, also in listeners of `req` and
   * `res`, a `set` after a `get` of the same session ID saves the session that this `get` loaded, whichever object is
   * passed: it is merged with the changes of other requests, and discarded if the session was destroyed meanwhile.
   *
   * ```ts
   * app.use(store.scope) // before the middleware that loads the session
   * ```
   *
   * If the framework passes callbacks to the store, as @fastify/session does, the store does this without the
   * middleware. The middleware returns what `next` returns, so that Koa can await it; its type says `void`, because
   * Fastify's types require that of a hook.
   */
  readonly scope = (req: unknown, res: unknown, next: () => void): void => this.#scopes.runRequest(next, req, res);

  /**
   * Creates `req.session` from the data that `get` loaded. express-session calls it. The session keeps a snapshot of
   * these data, with which a later `set` finds out what the request has changed.
   */
  override createSession(req: Request, data: SessionData): session.Session & SessionData {
    this.#scopes.turnOff();
    data.cookie = preparedCookie(property(data, 'cookie'));
    const created = super.createSession(req, data);
    transferSnapshot(data, created);
    return created;
  }

  /**
   * Runs a call that sends many statements, each of which has a deadline of its own.
   *
   * @param given the arguments among which a callback may be, which is refused
   */
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

  async #end(): Promise<void> {
    await this.#calls.close();
    this.#scopes.close();
    await this.#database.close();
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
 * Prepares a stored cookie for express-session's constructor `Cookie`, which throws if `originalMaxAge` is not a
 * number, and also copies inherited properties, which exist where `Object.prototype` is polluted. A session without a
 * cookie stays without one: express-session then throws the same error as with MemoryStore.
 */
function preparedCookie(given: unknown): SessionData['cookie'] {
  if (typeof given !== 'object' || given === null) return given as never;
  const isPlain = Object.getPrototypeOf(given) === Object.prototype;
  const cookie = isPlain ? Object.assign(Object.create(null), given) : given;
  if (typeof cookie.originalMaxAge !== 'number') cookie.originalMaxAge = null;
  return cookie;
}

/**
 * A method's options, as a copy without a prototype. An unknown name is refused, because a misspelt `except` would
 * otherwise be ignored.
 *
 * @throws ArgumentError
 */
function knownOptions<T extends object>(method: string, options: T | null | undefined, known: readonly string[]): T {
  if (options === undefined || options === null) return Object.create(null);
  if (typeof options !== 'object') {
    throw new ArgumentError(method, `expected an object as options, got ${typeof options}`);
  }
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new ArgumentError(method, `unknown option \`${unknown}\`; it takes \`${known.join('` and `')}\``);
  }
  // Without a prototype, the copy does not inherit options from a polluted `Object.prototype`.
  return Object.assign(Object.create(null), options);
}

function checkFunction(method: string, name: string, value: unknown): void {
  if (typeof value !== 'function') throw new ArgumentError(method, `\`${name}\`: expected a function`);
}

function checkCount(method: string, name: string, count: unknown, least = 1): void {
  if (typeof count === 'number' && Number.isInteger(count) && count >= least) return;
  throw new ArgumentError(method, `\`${name}\`: expected a whole number, ${least} or more`);
}

/** @throws ArgumentError */
function checkLifetime(lifetime: number): number {
  if (lifetime >= 0) return lifetime;
  throw new ArgumentError('set', 'expected a callback, or a lifetime of zero or more milliseconds');
}

/** Checks the session ID in option `except` of a method. @throws PgStoreError `INVALID_SID` */
function checkExcept(except: string | null | undefined): string | undefined {
  if (except === undefined || except === null) return undefined;
  const flaw = validateSessionId(except);
  if (flaw) throw new PgStoreError(`\`except\`: ${flaw}`, 'INVALID_SID');
  return except;
}
