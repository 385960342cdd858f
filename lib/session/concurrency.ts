/** Calls on one session: optimistic concurrency control with a three-way merge. */

import type { SessionData } from 'express-session';
import { backOffFromLockedRow } from '../calls/backoff.js';
import { PgStoreError } from '../errors.js';
import type { Emit } from '../events.js';
import type { Options } from '../options.js';
import { type Codec, type Content, changeOf, type EncodedSession, readRow } from './codec.js';
import { hasSameLifetime, isSameCookie } from './cookie.js';
import { Reconciler } from './reconcile.js';
import type { ChangedRow, RowStatements, Statements, StoredRow, WrittenRow } from './row.js';
import { handleOf, type RowKeys, type SessionIds } from './session-id.js';
import {
  attachSnapshot,
  newSnapshot,
  noteExpiry,
  recordSnapshot,
  type Save,
  type Snapshot,
  snapshotFor,
  snapshotForTouch,
} from './snapshot.js';

/**
 * The largest number of consecutive saves without an answer that a snapshot remembers. An older one is taken for a save
 * that was not written.
 */
const MAX_IN_DOUBT = 8;

/** A call on one session. */
interface Call {
  readonly name: 'set' | 'touch';
  readonly sid: string;
  readonly keys: RowKeys;
  readonly statements: RowStatements;
  readonly deadline: number;
}

/** What has become of a save, as the row shows it. The table in docs/architecture.md says what follows from each. */
type Finding =
  /** The save was written, now or by an earlier attempt at the same statement whose answer was lost. */
  | { readonly kind: 'is ours' }
  /** The row does not exist any more, or has expired: the session was destroyed. */
  | { readonly kind: 'is gone' }
  /** The row has not changed, so another transaction has locked it. */
  | { readonly kind: 'is locked' }
  /** Another request, or an earlier save of this request, has changed the row. */
  | { readonly kind: 'has changed'; readonly row: StoredRow };

/**
 * The calls on one session. It knows neither SQL nor Express. The caller runs calls on the same session ID one after
 * the other.
 */
export class ConcurrentSessions {
  readonly #statements: Statements;
  readonly #ids: SessionIds;
  readonly #codec: Codec;
  readonly #options: Options;
  readonly #emit: Emit;
  readonly #reconciler: Reconciler;

  constructor(statements: Statements, ids: SessionIds, codec: Codec, options: Options, emit: Emit) {
    this.#statements = statements;
    this.#ids = ids;
    this.#codec = codec;
    this.#options = options;
    this.#emit = emit;
    this.#reconciler = new Reconciler(options, codec);
  }

  /** Loads a session, with the snapshot of its row; `null` if there is none, or its row cannot be read. */
  async load(sid: string, deadline: number): Promise<SessionData | null> {
    const keys = this.#ids.rowKeysFor(sid);
    const { read } = this.#statements.onShard(this.#ids.shardOf(sid));
    const row = await read(keys, deadline);
    const opened = isLive(row) ? readRow(this.#codec, row, this.#emit) : undefined;
    if (!row || !opened) return null;
    const { session, content, cookieExpires } = opened;
    const needsRekey = this.#codec.needsRekey(row, keys);
    attachSnapshot(session, newSnapshot(sid, row, content, cookieExpires, needsRekey, read));
    return session;
  }

  /**
   * Saves a session: the changes of its request if it was loaded, otherwise all of it.
   *
   * @param session the object that has the snapshot, if the session was loaded
   * @returns the row that was written, or `undefined` if none was
   */
  async save(sid: string, encoded: EncodedSession, session: object, deadline: number): Promise<WrittenRow | undefined> {
    const call = this.#callOn('set', sid, deadline);
    const snapshot = snapshotFor(session, sid, call.keys);
    if (!snapshot) return this.#replace(call, encoded, session);
    if (this.#isTouch(call, snapshot, encoded)) {
      await this.#putOffExpiry(call, snapshot, encoded);
      return undefined;
    }
    return this.#saveChanges(call, snapshot, encoded, session);
  }

  /** Puts off the expiry of a session, and stores its cookie. */
  async touch(sid: string, encoded: EncodedSession, session: object, deadline: number): Promise<void> {
    const call = this.#callOn('touch', sid, deadline);
    const snapshot = snapshotForTouch(session, sid, call.keys);
    if (!snapshot) return this.#overwriteCookie(call, encoded);
    // A touch does not save the data, even if the request has changed them.
    const { cookie, cookieExpires, expires } = encoded;
    const touched = { data: snapshot.seen.data, cookie, cookieExpires, expires };
    if (isSameCookie(snapshot.seen.cookie, cookie)) return this.#putOffExpiry(call, snapshot, touched);
    await this.#saveChanges(call, snapshot, touched, session);
  }

  /** Deletes the session's row, under whichever of its keys it is. */
  async destroy(sid: string, deadline: number): Promise<void> {
    const keys = this.#ids.rowKeysFor(sid);
    const statements = this.#statements.onShard(this.#ids.shardOf(sid));
    let [key] = keys;
    for (let tries = 1; ; tries++) {
      const isDeleted = await statements.destroy(key, deadline);
      if (isDeleted && keys.length === 1) return;
      const row = await statements.read(keys, deadline);
      if (!row) return;
      if (row.key === key) await backOffFromLockedRow(tries, deadline);
      key = row.key;
    }
  }

  /** Destroys the session under all of its keys, and leaves a tombstone under the first one (option `previous`). */
  async bury([key, ...olderKeys]: RowKeys, shard: number | undefined, deadline: number): Promise<void> {
    const { read, destroy, bury } = this.#statements.onShard(shard);
    for (let tries = 1; ; tries++) {
      const old = olderKeys.length > 0 ? await read(olderKeys, deadline) : undefined;
      const isDone = await (old ? destroy(old.key, deadline) : bury(key, deadline));
      if (isDone && !old) return;
      if (!isDone) await backOffFromLockedRow(tries, deadline);
    }
  }

  /** Inserts a session of the previous store, unless its session ID has a row. @returns whether it was inserted */
  async adopt(sid: string, session: unknown, deadline: number): Promise<boolean> {
    const keys = this.#ids.rowKeysFor(sid);
    const { read, insert } = this.#statements.onShard(this.#ids.shardOf(sid));
    if (keys.length > 1 && (await read(keys, deadline))) return false;
    return insert(this.#codec.newRow(keys[0], this.#codec.encodeForeign(session), randomVersion()), deadline);
  }

  /** Whether the session has a row that has not expired. */
  async has(sid: string, deadline: number): Promise<boolean> {
    const { read } = this.#statements.onShard(this.#ids.shardOf(sid));
    return isLive(await read(this.#ids.rowKeysFor(sid), deadline));
  }

  #callOn(name: Call['name'], sid: string, deadline: number): Call {
    const statements = this.#statements.onShard(this.#ids.shardOf(sid));
    return { name, sid, keys: this.#ids.rowKeysFor(sid), statements, deadline };
  }

  /** Whether a save has nothing to write but the expiry. */
  #isTouch({ statements }: Call, snapshot: Snapshot, encoded: EncodedSession): boolean {
    return (
      isUnchanged(snapshot.seen, encoded) &&
      snapshot.readFrom === statements.read &&
      !snapshot.needsRekey &&
      snapshot.inDoubt.length === 0
    );
  }

  /** Stores the session in place of the row, whatever that contains, as MemoryStore does. */
  async #replace(call: Call, encoded: EncodedSession, session: object): Promise<WrittenRow> {
    const { sid, keys, statements, deadline } = call;
    const row = this.#codec.newRow(keys[0], encoded, randomVersion());
    for (let tries = 1; ; tries++) {
      const old = keys.length > 1 ? await statements.read(keys, deadline) : undefined;
      if (old && old.key !== row.key) {
        // The row has the key of an older secret. It is moved to the new key; if it has expired it is destroyed,
        // because the new session must not inherit its time of creation.
        const moved = changeOf(row, old.key, old.version, true);
        if (old.expiresInMs <= 0) await statements.destroy(old.key, deadline);
        else if (await statements.update(moved, deadline)) break;
      } else if (await statements.replace(row, deadline)) break;
      await backOffFromLockedRow(tries, deadline);
    }
    const endsInMs = (this.#options.maxLifetime ?? Number.POSITIVE_INFINITY) * 1000;
    const times = { key: row.key, version: row.version, expiresInMs: encoded.expires - Date.now(), endsInMs };
    const content = { data: encoded.data, cookie: encoded.cookie };
    recordSnapshot(session, newSnapshot(sid, times, content, encoded.cookieExpires, false, statements.read));
    return row;
  }

  /** Saves the changes of a request, merged with the changes that others have saved meanwhile. */
  async #saveChanges(
    call: Call,
    snapshot: Snapshot,
    encoded: EncodedSession,
    session: object,
  ): Promise<WrittenRow | undefined> {
    let hasCaughtUp = false;
    let hasMetOthers = false;
    for (let tries = 1; ; tries++) {
      const attempt = this.#attemptOf(snapshot, encoded);
      if (!attempt) return this.#drop(call, snapshot, 'changed hands');
      if (hasCaughtUp && isStored(snapshot, attempt)) return this.#adoptStored(call, snapshot, attempt, encoded);
      const change = this.#changeOf(call, snapshot, attempt, encoded);
      const finding = await this.#send(call, snapshot, attempt, change);
      switch (finding.kind) {
        case 'is ours':
          noteSaved(call, snapshot, attempt, change);
          if (hasMetOthers) this.#emit('conflict', handleOf(snapshot.key), tries);
          return change;
        case 'is gone':
          return this.#saveElsewhere(call, snapshot, encoded, session);
        case 'is locked':
          await backOffFromLockedRow(tries, call.deadline);
          break;
        case 'has changed':
          if (this.#catchUp(snapshot, finding.row, call.keys)) hasMetOthers = !isUnchanged(snapshot.seen, encoded);
          hasCaughtUp = true;
      }
    }
  }

  /** Sends a save, and reads the row if it was not written. If there is no answer, the save stays in doubt. */
  async #send(call: Call, snapshot: Snapshot, attempt: Save, change: ChangedRow): Promise<Finding> {
    const { statements, keys, deadline } = call;
    const earlier = snapshot.inDoubt;
    snapshot.inDoubt = [...earlier, attempt].slice(-MAX_IN_DOUBT);
    const isWritten = await statements.update(change, deadline);
    const row = isWritten ? undefined : await statements.read(keys, deadline);
    snapshot.inDoubt = earlier;
    return isWritten ? { kind: 'is ours' } : findingOn(row, attempt, snapshot);
  }

  /** The row already has the content that was to be saved, so only the expiry may be written. */
  async #adoptStored(call: Call, snapshot: Snapshot, { seen }: Save, encoded: EncodedSession): Promise<undefined> {
    snapshot.seen = seen;
    noteKnown(call, snapshot);
    await this.#putOffExpiry(call, snapshot, encoded);
  }

  #drop(call: Call, snapshot: Snapshot, why: 'destroyed' | 'changed hands'): undefined {
    this.#emit('dropped', handleOf(snapshot.key), call.name, why);
  }

  /**
   * The content that a save is to write; `undefined` if the save must be dropped because the session has changed hands.
   *
   * The row may contain the changes of any save in doubt, and other requests' changes on top of these. So the contents
   * of the saves in doubt are reconciled with the row one after the other, and this save's content last. That gives the
   * same result whether or not each of them was written.
   */
  #attemptOf(snapshot: Snapshot, encoded: EncodedSession): Save | undefined {
    const ours = { data: encoded.data, cookie: encoded.cookie };
    let { seen } = snapshot;
    let stored: Content | undefined = snapshot.stored;
    for (const next of [...snapshot.inDoubt.map((save) => save.seen), ours]) {
      // Nobody else has saved, so the row gets the request's content.
      if (isSame(stored, seen)) stored = next;
      else if (!isUnchanged(seen, next)) stored = this.#reconciler.reconcile(seen, next, stored);
      if (!stored) return undefined;
      seen = next;
    }
    return { version: randomVersion(), seen, stored };
  }

  #changeOf({ keys }: Call, snapshot: Snapshot, { stored, version }: Save, encoded: EncodedSession): ChangedRow {
    const { data, cookie } = stored;
    const { cookieExpires, expires } = encoded;
    const row = this.#codec.newRow(keys[0], { data, cookie, cookieExpires, expires }, version);
    // If another request has set another lifetime, the row keeps its expiry.
    const movesExpiry = hasSameLifetime(cookie, encoded.cookie) && !hasOldExpiry(snapshot, encoded);
    return changeOf(row, snapshot.key, snapshot.version, movesExpiry);
  }

  /**
   * Brings a snapshot up to date with a row that has changed.
   *
   * @returns `false` if a save in doubt has changed the row, `true` if another request has
   * @throws PgStoreError `UNREADABLE`
   */
  #catchUp(snapshot: Snapshot, row: StoredRow, keys: RowKeys): boolean {
    const theirs = readRow(this.#codec, row, this.#emit);
    if (!theirs) throw new PgStoreError('the row cannot be read, so the session was not saved', 'UNREADABLE');
    const own = snapshot.inDoubt.find(({ version }) => version === row.version);
    if (own) {
      snapshot.seen = own.seen;
      snapshot.inDoubt = [];
    }
    snapshot.key = row.key;
    snapshot.version = row.version;
    snapshot.stored = theirs.content;
    snapshot.needsRekey = this.#codec.needsRekey(row, keys);
    return !own;
  }

  /**
   * The session has no row in this table. If another store loaded it, and its row still exists in that store's table,
   * it is stored here as a new session. Otherwise it was destroyed, and the save is dropped.
   */
  async #saveElsewhere(
    call: Call,
    snapshot: Snapshot,
    encoded: EncodedSession,
    session: object,
  ): Promise<WrittenRow | undefined> {
    const wasLoadedElsewhere = snapshot.readFrom !== call.statements.read;
    if (wasLoadedElsewhere && isLive(await snapshot.readFrom([snapshot.key], call.deadline))) {
      return this.#replace(call, encoded, session);
    }
    return this.#drop(call, snapshot, 'destroyed');
  }

  /** Writes the expiry, unless the stored one is near enough (option `touchAfter`). */
  async #putOffExpiry(call: Call, snapshot: Snapshot, encoded: EncodedSession): Promise<void> {
    if (this.#isFresh(snapshot, encoded.expires)) return;
    const { keys, statements, deadline } = call;
    const { cookieExpires, expires } = encoded;
    let { key } = snapshot;
    let { cookie } = snapshot.stored;
    for (let tries = 1; ; tries++) {
      // If another request has given the session another lifetime, that one stays.
      if (!hasSameLifetime(cookie, encoded.cookie)) return;
      const touched = { key, cookie, cookieExpires, version: 0, overwritesCookie: false, expires };
      if (await statements.touch(touched, deadline)) break;
      const row = await statements.read(keys, deadline);
      if (!isLive(row)) return this.#drop(call, snapshot, 'destroyed');
      if (row.key === key && row.cookie === cookie) await backOffFromLockedRow(tries, deadline);
      key = row.key;
      cookie = row.cookie;
    }
    noteExpiry(snapshot, expires);
  }

  /** Touches a session with an object that was not loaded. The row gets its cookie, whatever cookie it has. */
  async #overwriteCookie({ keys, statements, deadline }: Call, encoded: EncodedSession): Promise<void> {
    const { cookie, cookieExpires, expires } = encoded;
    const touched = { cookie, cookieExpires, expires, version: randomVersion(), overwritesCookie: true };
    let [key] = keys;
    for (let tries = 1; ; tries++) {
      if (await statements.touch({ ...touched, key }, deadline)) return;
      const row = await statements.read(keys, deadline);
      if (!isLive(row)) return;
      if (row.key === key) await backOffFromLockedRow(tries, deadline);
      key = row.key;
    }
  }

  /** Whether the stored expiry is so near the right one that it need not be written. */
  #isFresh(snapshot: Snapshot, expires: number): boolean {
    const expiresIn = expires - Date.now();
    const due = Math.min(performance.now() + expiresIn, snapshot.endsAt);
    return Math.abs(due - snapshot.expiresAt) < Math.min(this.#options.touchAfter * 1000, expiresIn / 10);
  }
}

/** What has become of a save whose statement wrote no row. */
function findingOn(row: StoredRow | undefined, attempt: Save, snapshot: Snapshot): Finding {
  if (!isLive(row)) return { kind: 'is gone' };
  if (row.version === attempt.version) return { kind: 'is ours' };
  if (row.key === snapshot.key && row.version === snapshot.version) return { kind: 'is locked' };
  return { kind: 'has changed', row };
}

/**
 * Whether the expiry is that of the cookie's `expires`, and the request has not changed it. Other requests may have put
 * it off meanwhile. (express-session changes it in each request, where the cookie has a `maxAge`.)
 */
function hasOldExpiry(snapshot: Snapshot, { cookieExpires, expires }: EncodedSession): boolean {
  return cookieExpires !== null && cookieExpires === expires && cookieExpires === snapshot.cookieExpires;
}

/** Whether the row already has the content that a save would write. */
function isStored(snapshot: Snapshot, { stored }: Save): boolean {
  return isSame(stored, snapshot.stored) && !snapshot.needsRekey;
}

/** Notes in the snapshot that a save was written. */
function noteSaved(call: Call, snapshot: Snapshot, { version, seen, stored }: Save, change: ChangedRow): void {
  snapshot.key = change.key;
  snapshot.version = version;
  snapshot.seen = seen;
  snapshot.stored = stored;
  snapshot.needsRekey = false;
  snapshot.cookieExpires = change.cookieExpires;
  noteKnown(call, snapshot);
  if (change.movesExpiry) noteExpiry(snapshot, change.expires);
}

/** Notes in the snapshot that this store has the row in its table, and that no save is in doubt any more. */
function noteKnown({ statements }: Call, snapshot: Snapshot): void {
  snapshot.readFrom = statements.read;
  snapshot.inDoubt = [];
}

/** Whether the row exists and has not expired. */
export function isLive(row: StoredRow | undefined): row is StoredRow {
  return row !== undefined && row.expiresInMs > 0;
}

function isSame(one: Content, other: Content): boolean {
  return one.data === other.data && one.cookie === other.cookie;
}

function isUnchanged(seen: Content, now: Content): boolean {
  return seen.data === now.data && isSameCookie(seen.cookie, now.cookie);
}

/**
 * A version for a row: a random number from 1 to 2^31 - 1, the largest `integer` of PostgreSQL. docs/architecture.md
 * says why it is random.
 */
export function randomVersion(): number {
  return 1 + Math.floor(Math.random() * 2_147_483_647);
}
