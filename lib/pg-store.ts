/** The store as express-session sees it: each method with a callback or a promise. */

import { nextTick } from 'node:process';
import type session from 'express-session';
import type { SessionData } from 'express-session';
import { startAutodelete } from './calls/autodelete.js';
import { KeyedReadWriteLock } from './calls/order.js';
import { type Callback, OperationTracker } from './calls/tracker.js';
import { Database } from './client/database.js';
import { publish } from './diagnostics.js';
import { PgStoreError, toPgStoreError } from './errors.js';
import { type Emit, emitLater, TypedStore } from './events.js';
import { type Options, type PgStoreOptions, parseOptions, type TakeOverOptions } from './options.js';
import { type ConcurrentSessions, concurrentSessions } from './session/concurrency.js';
import type { ListedSession, UserSession } from './session/listing.js';
import { makePermanent } from './session/permanent.js';
import { type PreviousSessions, previousSessions } from './session/previous.js';
import { RowCodec } from './session/row-codec.js';
import { type SessionIds, sessionIds, validateSessionId } from './session/session-id.js';
import { transferSnapshot } from './session/snapshot.js';
import { userId } from './session/user.js';
import { batchedStatements } from './sql/batched-statements.js';
import { BulkStatements } from './sql/bulk-statements.js';
import { orderedDeletion } from './sql/ordered-deletion.js';
import type { BoundQuery as Query } from './sql/query.js';
import { sessionListing } from './sql/session-listing.js';
import { SessionsTable } from './sql/sessions-table.js';

type Request = Parameters<session.Store['createSession']>[0];

/**
 * Keeps express-session's sessions in a PostgreSQL table.
 *
 * ```ts
 * const store = new PgStore({ uri: 'postgres://localhost/app' })
 * app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false }))
 * ```
 *
 * Connects to nothing until first use, creates the table then if it is missing, and tries again at
 * the next call if that failed. Each method takes a callback as express-session's README has it
 * ("Session Store Implementation"), or returns a promise without one. A failed call gives a
 * `PgStoreError` that names the call.
 */
export class PgStore extends TypedStore {
  readonly #options: Options;
  readonly #ids: SessionIds;
  readonly #codec: RowCodec;
  readonly #calls: OperationTracker;
  readonly #order = new KeyedReadWriteLock();
  readonly #database: Database;
  readonly #bulk: BulkStatements;
  readonly #listing: ReturnType<typeof sessionListing>;
  readonly #deletion: ReturnType<typeof orderedDeletion>;
  readonly #sessions: ConcurrentSessions;
  readonly #previous: PreviousSessions | undefined;
  readonly #stopAutodelete: () => void;
  #closing: Promise<void> | undefined;

  /** @throws TypeError for an unknown option or a bad value; it names the option */
  constructor(options: PgStoreOptions = {}) {
    super();
    this.#options = parseOptions(options);
    const { maxLifetime, timeout, previous } = this.#options;
    this.#ids = sessionIds(this.#options);
    this.#codec = new RowCodec(this.#options, this.#notify);
    this.#calls = new OperationTracker(timeout);
    this.#database = new Database(this.#options, (what, attempt, error) =>
      this.#notify('retry', what, attempt, toPgStoreError(what, error)),
    );
    this.#bulk = new BulkStatements(this.#options, timeout, maxLifetime);
    this.#listing = sessionListing(this.#bulk, this.#ids, this.#codec);
    const statements = batchedStatements(new SessionsTable(this.#options, maxLifetime), this.#database);
    this.#sessions = concurrentSessions(statements, this.#ids, this.#codec, this.#options, this.#notify);
    this.#previous = previous && previousSessions(previous, this.#sessions, this.#ids, this.#options, this.#notify);
    this.#deletion = orderedDeletion(this.#bulk, this.#order, this.#ids, this.#previous);
    this.#stopAutodelete = startAutodelete(this.#options.autodelete, () =>
      this.autodelete().then(
        (rows) => this.#notify('autodelete', rows),
        (error) => this.#notify('autodelete', 0, error),
      ),
    );
    if (this.#options.permanent) makePermanent(this, (session) => this.#codec.ttl(() => session));
  }

  /** The session, or `null` where there is none, it has expired, or its row cannot be read. */
  override get(sid: string): Promise<SessionData | null>;
  override get(sid: string, callback: Callback<SessionData | null>): void;
  override get(sid: string, callback?: Callback<SessionData | null>): Promise<SessionData | null> | undefined {
    return this.#calls.run('get', callback, (deadline) => {
      if (validateSessionId(sid)) return Promise.resolve(null);
      return this.#order.read(sid, () => (this.#previous ?? this.#sessions).load(sid, deadline));
    });
  }

  /**
   * Saves the session. One that was loaded from the store is merged with what others saved
   * meanwhile, and discarded, with a `dropped` event, if it was destroyed meanwhile; any other
   * object replaces the row.
   */
  override set(sid: string, session: SessionData): Promise<void>;
  override set(sid: string, session: SessionData, callback: Callback<void> | undefined): void;
  override set(sid: string, session: SessionData, callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('set', callback, async (deadline) => {
      const flaw = validateSessionId(sid);
      if (flaw) throw new PgStoreError(flaw, 'INVALID_SID');
      // In this tick: what the app changes afterwards is not part of this save.
      const encoded = this.#codec.encode(session);
      return this.#order.write(sid, () => this.#sessions.save(sid, encoded, session, deadline));
    });
  }

  /** Puts off expiry, stores the cookie; skips what `touchAfter` allows. Never creates a row. */
  override touch(sid: string, session: SessionData): Promise<void>;
  override touch(sid: string, session: SessionData, callback: Callback<void> | undefined): void;
  override touch(sid: string, session: SessionData, callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('touch', callback, async (deadline) => {
      if (validateSessionId(sid)) return;
      const encoded = this.#codec.encodeForTouch(session);
      return this.#order.write(sid, () => this.#sessions.touch(sid, encoded, session, deadline));
    });
  }

  /** Destroys the session; no request that has it brings it back. No error where there is none. */
  override destroy(sid: string): Promise<void>;
  override destroy(sid: string, callback: Callback<void> | undefined): void;
  override destroy(sid: string, callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('destroy', callback, async (deadline) => {
      if (validateSessionId(sid)) return;
      return this.#order.write(sid, () => (this.#previous ?? this.#sessions).destroy(sid, deadline));
    });
  }

  /** All unexpired sessions of the prefix, in one array: for many of them use `sessions()`. */
  override all(): Promise<ListedSession[]>;
  override all(callback: Callback<ListedSession[]>): void;
  override all(callback?: Callback<ListedSession[]>): Promise<ListedSession[]> | undefined {
    return this.#inStatements('all', callback, async (query) => {
      const sessions: ListedSession[] = [];
      for await (const session of this.#listing.all(query)) sessions.push(session);
      return sessions;
    });
  }

  /** Unexpired sessions of the prefix, one by one, in order of row keys: memory stays flat. */
  sessions(): AsyncGenerator<ListedSession, void, undefined> {
    // Each page is a call of its own: closing the store does not wait for a slow reader.
    const page: Query = (text, values) =>
      this.#inStatements('sessions', undefined, (query) => query(text, values)) as ReturnType<Query>;
    return this.#listing.all(page);
  }

  /** All unexpired session IDs of the prefix. With `hashIds` an error: nobody knows them. */
  ids(): Promise<string[]>;
  ids(callback: Callback<string[]>): void;
  ids(callback?: Callback<string[]>): Promise<string[]> | undefined {
    return this.#inStatements('ids', callback, (query) => this.#listing.ids(query));
  }

  /** Counts unexpired sessions of the prefix; with `secret`, without checking their signatures. */
  override length(): Promise<number>;
  override length(callback: Callback<number>): void;
  override length(callback?: Callback<number>): Promise<number> | undefined {
    return this.#inStatements('length', callback, (query) => this.#bulk.count(query, this.#ids.range));
  }

  /**
   * Destroys all sessions of the prefix that are there at the call; one that is saved after the
   * call stays. Option `previous`: all of that store first.
   */
  override clear(): Promise<void>;
  override clear(callback: Callback<void> | undefined): void;
  override clear(callback?: Callback<void>): Promise<void> | undefined {
    return this.#inStatements('clear', callback, (query) => this.#deletion.all(query));
  }

  /** A user's unexpired sessions (option `user`), newest activity first. */
  sessionsOf(user: string | number): Promise<UserSession[]>;
  sessionsOf(user: string | number, callback: Callback<UserSession[]>): void;
  sessionsOf(user: string | number, callback?: Callback<UserSession[]>): Promise<UserSession[]> | undefined {
    return this.#inStatements('sessionsOf', callback, (query) => this.#listing.ofUser(query, userId(user)));
  }

  /**
   * Destroys a user's sessions, all but the session ID in `except`; answers how many rows went,
   * expired ones included.
   */
  destroySessionsOf(user: string | number, options?: { except?: string } | null): Promise<number>;
  destroySessionsOf(user: string | number, callback: Callback<number>): void;
  destroySessionsOf(
    user: string | number,
    options: { except?: string } | null | undefined,
    callback: Callback<number>,
  ): void;
  destroySessionsOf(
    user: string | number,
    options?: { except?: string } | null | Callback<number>,
    callback?: Callback<number>,
  ): Promise<number> | undefined {
    if (typeof options === 'function') return this.destroySessionsOf(user, null, options) as undefined;
    return this.#inStatements('destroySessionsOf', callback, (query) =>
      this.#deletion.ofUser(query, userId(user), options ?? {}),
    );
  }

  /**
   * Destroys the session with a handle from `sessionsOf`, if it is that user's.
   *
   * @returns whether there was one
   */
  destroyByHandle(handle: string, options: { user: string | number }): Promise<boolean>;
  destroyByHandle(handle: string, options: { user: string | number }, callback: Callback<boolean>): void;
  destroyByHandle(
    handle: string,
    options: { user: string | number },
    callback?: Callback<boolean>,
  ): Promise<boolean> | undefined {
    return this.#inStatements('destroyByHandle', callback, (query) =>
      this.#deletion.byHandle(query, userId(options?.user), handle),
    );
  }

  /**
   * Takes over all sessions of the store in option `previous`, if it can list them (`all`). May be
   * repeated. Option `timeout` applies to each of that store's answers, the list included.
   *
   * @returns how many were taken over
   */
  takeOver(options?: TakeOverOptions | null): Promise<number>;
  takeOver(options: TakeOverOptions | null | undefined, callback: Callback<number>): void;
  takeOver(options?: TakeOverOptions | null, callback?: Callback<number>): Promise<number> | undefined {
    return this.#inStatements('takeOver', callback, () => {
      if (!this.#previous) throw new PgStoreError('needs option `previous`', 'UNSUPPORTED');
      return this.#previous.takeOver((sid, task) => this.#order.write(sid, task), options?.onProgress);
    });
  }

  /** Creates the table now, or checks that it is there, instead of at first use. */
  ready(): Promise<void>;
  ready(callback: Callback<void>): void;
  ready(callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('ready', callback, (deadline) =>
      this.#database.run('ready', deadline, () => this.#database.ensureTable()),
    );
  }

  /**
   * Deletes expired rows now, of all prefixes, in short statements.
   *
   * @returns how many were deleted
   */
  autodelete(): Promise<number>;
  autodelete(callback: Callback<number>): void;
  autodelete(callback?: Callback<number>): Promise<number> | undefined {
    return this.#inStatements('autodelete', callback, (query) =>
      this.#bulk.deleteExpired(query, () => this.#closing !== undefined),
    );
  }

  /** Refuses new calls, finishes those under way, stops the timer, ends what the store opened. */
  close(): Promise<void>;
  close(callback: Callback<void>): void;
  close(callback?: Callback<void>): Promise<void> | undefined {
    this.#stopAutodelete();
    this.#closing ??= this.#calls.close().then(() => this.#database.close());
    if (!callback) return this.#closing;
    this.#closing.then(
      () => nextTick(callback, null),
      (error) => nextTick(callback, error),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** From the data of `get` to `req.session`; the store remembers what the request saw. */
  override createSession(req: Request, data: SessionData): session.Session & SessionData {
    // express-session's Cookie fails on any other, which only a row written by hand has.
    if (typeof data.cookie?.originalMaxAge !== 'number') data.cookie.originalMaxAge = null;
    const created = super.createSession(req, data);
    transferSnapshot(data, created);
    return created;
  }

  /** Runs a call of many statements: each of them has a deadline of its own, the call has none. */
  #inStatements<T>(call: string, callback: Callback<T> | undefined, work: (query: Query) => Promise<T>) {
    const query: Query = (text, values) =>
      this.#database.run(call, this.#calls.deadline(), (query) => query(text, values));
    return this.#calls.run(call, callback, async () => work(query), Number.POSITIVE_INFINITY);
  }

  readonly #notify: Emit = (event, ...args) => {
    if (this.listenerCount(event) > 0) emitLater(() => this.emit(event, ...args));
    publish(`${this.#options.schema}.${this.#options.table}`, event, args);
  };
}
