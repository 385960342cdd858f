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
import { BulkDestruction, type Saves } from './session/bulk.js';
import { Codec } from './session/codec.js';
import { ConcurrentSessions } from './session/concurrency.js';
import { type ListedSession, SessionListing, type UserSession } from './session/listing.js';
import { makePermanent } from './session/permanent.js';
import { checkTakeOver, PreviousSessions } from './session/previous.js';
import { property } from './session/property.js';
import type { Statements } from './session/row.js';
import { handleOf, SessionIds, validateSessionId } from './session/session-id.js';
import { transferSnapshot } from './session/snapshot.js';
import { checkUser } from './session/user.js';
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
 * Connects to nothing until first use, creates the table then if it is missing, and tries again at the next call if that
 * failed. The methods of express-session's store interface (its README, "Session Store Implementation") take a callback, or
 * return a promise without one; all others return promises. A failed call gives a `PgStoreError` that names the call, wrong
 * arguments a `TypeError`.
 */
export class PgStore extends EventStore {
  protected readonly tableName: string;
  readonly #options: Options;
  readonly #ids: SessionIds;
  readonly #codec: Codec;
  readonly #calls: CallTracker;
  readonly #order = new KeyedReadWriteLock();
  readonly #saves: Saves = new UnderWay();
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #sessions: ConcurrentSessions;
  readonly #previous: PreviousSessions | undefined;
  readonly #listing: SessionListing;
  readonly #bulk: BulkDestruction;
  readonly #autodelete: Interval;
  #closing: Promise<void> | undefined;

  /** @throws TypeError for an unknown option or a bad value; it names the option */
  constructor(options: PgStoreOptions = {}) {
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
    this.#statements = new PgStatements(this.#database, this.#options, this.#ids.range, maxLifetime, deadline);
    this.#sessions = new ConcurrentSessions(this.#statements, this.#ids, this.#codec, this.#options, this.notify);
    this.#previous = previous && new PreviousSessions(previous, this.#sessions, this.#ids, this.#options, this.notify);
    this.#listing = new SessionListing(this.#statements, this.#ids, this.#codec, this.notify);
    this.#bulk = new BulkDestruction(this.#statements, this.#ids, this.#saves, this.#previous, deadline);
    this.#autodelete = new Interval(this.#options.autodelete, () => this.#autodeleteByTimer());
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
   * Saves the session. One that was loaded from the store is merged with what others saved meanwhile, and discarded, with a
   * `dropped` event, if it was destroyed or changed hands meanwhile; any other object replaces the row.
   */
  override set(sid: string, session: SessionData): Promise<void>;
  override set(sid: string, session: SessionData, callback: Callback<void> | undefined): void;
  override set(sid: string, session: SessionData, callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('set', callback, async (deadline) => {
      const flaw = validateSessionId(sid);
      if (flaw) throw new PgStoreError(flaw, 'INVALID_SID');
      // In this tick: what the app changes afterwards is not part of this save.
      const encoded = this.#codec.encode(session);
      const subject = { shard: this.#ids.shardOf(sid), user: () => this.#codec.userOf(encoded, encoded.expires) };
      const save = this.#order.write(sid, () => this.#sessions.save(sid, encoded, session, deadline));
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
      return this.#order.write(sid, () => this.#sessions.touch(sid, encoded, session, deadline));
    });
  }

  /** Destroys the session; no request that has it brings it back. Not an error where there is none. */
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
   * Destroys all sessions of the prefix that are there, and those that calls of `set` of this process are saving. A session
   * that is created after the call stays, by the database's clock. Option `previous`: all of that store first.
   */
  override clear(): Promise<void>;
  override clear(callback: Callback<void> | undefined): void;
  override clear(callback?: Callback<void>): Promise<void> | undefined {
    return this.#calls.run('clear', callback, () => this.#bulk.all(), NO_DEADLINE);
  }

  /**
   * The unexpired sessions of the prefix, one by one, in the order of their row keys. They are read page by page, so memory
   * stays flat, and closing the store does not wait for a slow reader.
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
   * Destroys a user's sessions, all but the session ID in `except`: those that are there when its statement runs, and those
   * that calls of `set` of this process are saving. What is created later stays.
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
   * Keeps `most` of a user's sessions in all: the one in `except`, and the most recently active others. Destroys the rest.
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
   * Destroys the session with a handle from `sessionsOf`, if it is that user's. A handle from before a rotation of `secret`
   * still works, without `hashIds`.
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
   * Takes over sessions of the store in option `previous`: those with the IDs in `sids`, else all, if that store can list
   * them (`all`). May be repeated. Option `timeout` applies to each of that store's answers, the list included.
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
        if (this.isHeard('expired')) {
          for (const { key, user, wasSession } of page) if (wasSession) this.notify('expired', handleOf(key), user);
        }
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
    this.#closing ??= this.#calls.close().then(() => this.#database.close());
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** From the data of `get` to `req.session`; the store remembers what the request saw. */
  override createSession(req: Request, data: SessionData): session.Session & SessionData {
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

  async #autodeleteByTimer(): Promise<void> {
    try {
      this.notify('autodelete', await this.autodelete());
    } catch (error) {
      this.notify('autodelete', 0, error as Error);
    }
  }
}

/**
 * A cookie that express-session's `Cookie` can be made of. That fails where there is no cookie, and on an `originalMaxAge`
 * which is not a number; and it copies what every object seems to have where `Object.prototype` is polluted.
 */
function fitCookie(given: unknown): SessionData['cookie'] {
  const isCookie = typeof given === 'object' && given !== null;
  const isPlain = !isCookie || Object.getPrototypeOf(given) === Object.prototype;
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

function checkCount(method: string, name: string, count: unknown, least = 1): void {
  if (typeof count === 'number' && Number.isInteger(count) && count >= least) return;
  throw new ArgumentError(method, `\`${name}\`: expected a whole number, ${least} or more`);
}

/** @throws PgStoreError `INVALID_SID` */
function checkExcept(except: string | null | undefined): string | undefined {
  if (except === undefined || except === null) return undefined;
  const flaw = validateSessionId(except);
  if (flaw) throw new PgStoreError(`\`except\`: ${flaw}`, 'INVALID_SID');
  return except;
}
