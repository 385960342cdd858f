/** What each call on one session does with its row: optimistic concurrency control with a three-way merge. */

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

/** With more saves than this in a row without an answer, the oldest is taken for one that was not written. */
const MAX_IN_DOUBT = 8;

/** A call on one session. */
interface Call {
  readonly name: 'set' | 'touch';
  readonly sid: string;
  readonly keys: RowKeys;
  readonly statements: RowStatements;
  readonly deadline: number;
}

/** What the row says after a save was sent. */
type Looked =
  /** The save was done: now, or by an earlier attempt at this very statement whose answer was lost. */
  | { readonly finding: 'is ours' }
  /** The row is not there any more, or has expired: the session was destroyed. */
  | { readonly finding: 'is gone' }
  /** It is as it was: another transaction has locked it. */
  | { readonly finding: 'is locked' }
  /** Another request, or an earlier save of this one, has changed it. */
  | { readonly finding: 'has changed'; readonly row: StoredRow };

/**
 * What each call on one session does with its row. Knows neither SQL nor Express. The caller runs the calls on one
 * session ID one after the other.
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

  /** The session, with the snapshot of its row; `null` where there is none, or it cannot be read. */
  async load(sid: string, deadline: number): Promise<SessionData | null> {
    const keys = this.#ids.rowKeysFor(sid);
    const { read } = this.#statements.onShard(this.#ids.shardOf(sid));
    const row = await read(keys, deadline);
    const opened = isLive(row) ? readRow(this.#codec, row, this.#emit) : undefined;
    if (!row || !opened) return null;
    const { session, content } = opened;
    attachSnapshot(session, newSnapshot(sid, row, content, this.#codec.needsRekey(row, keys), read));
    return session;
  }

  /**
   * Saves a session: what its request changed, if it was loaded, or all of it.
   *
   * @param session the object whose snapshot says what was loaded
   * @returns the row, where one was written
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
    // Whatever the request has changed in the data is not part of a touch.
    const { cookie, cookieExpires, expires } = encoded;
    const touched = { data: snapshot.seen.data, cookie, cookieExpires, expires };
    if (isSameCookie(snapshot.seen.cookie, cookie)) return this.#putOffExpiry(call, snapshot, touched);
    await this.#saveChanges(call, snapshot, touched, session);
  }

  /** Deletes the session's row, under whichever key it is. */
  async destroy(sid: string, deadline: number): Promise<void> {
    const keys = this.#ids.rowKeysFor(sid);
    const statements = this.#statements.onShard(this.#ids.shardOf(sid));
    let [key] = keys;
    for (let tries = 1; ; tries++) {
      const isDeleted = await statements.destroy(key, deadline);
      if (isDeleted && keys.length === 1) return;
      const left = await statements.read(keys, deadline);
      if (!left) return;
      if (left.key === key) await backOffFromLockedRow(tries, deadline);
      key = left.key;
    }
  }

  /** Destroys the session under each of its keys, and leaves a tombstone under the first one. */
  async bury([key, ...olderKeys]: RowKeys, shard: number | undefined, deadline: number): Promise<void> {
    const { read, destroy, bury } = this.#statements.onShard(shard);
    for (let tries = 1; ; tries++) {
      const old = olderKeys.length > 0 ? await read(olderKeys, deadline) : undefined;
      const isDone = await (old ? destroy(old.key, deadline) : bury(key, deadline));
      if (isDone && !old) return;
      if (!isDone) await backOffFromLockedRow(tries, deadline);
    }
  }

  /** Keeps a session of another store, unless the session ID has a row. @returns whether it was kept */
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

  /** Whether there is nothing to save but the expiry. */
  #isTouch({ statements }: Call, snapshot: Snapshot, encoded: EncodedSession): boolean {
    return (
      isUnchanged(snapshot.seen, encoded) &&
      snapshot.readFrom === statements.read &&
      !snapshot.needsRekey &&
      snapshot.inDoubt.length === 0
    );
  }

  /** Replaces whatever is there, without a look at it, as MemoryStore does. */
  async #replace(call: Call, encoded: EncodedSession, session: object): Promise<WrittenRow> {
    const { sid, keys, statements, deadline } = call;
    const row = this.#codec.newRow(keys[0], encoded, randomVersion());
    for (let tries = 1; ; tries++) {
      const old = keys.length > 1 ? await statements.read(keys, deadline) : undefined;
      if (old && old.key !== row.key) {
        // A row under an older secret's key: it moves, or goes if it has expired, since the new session is not as old.
        const moved = changeOf(row, old.key, old.version, true);
        if (old.expiresInMs <= 0) await statements.destroy(old.key, deadline);
        else if (await statements.update(moved, deadline)) break;
      } else if (await statements.replace(row, deadline)) break;
      await backOffFromLockedRow(tries, deadline);
    }
    const endsInMs = (this.#options.maxLifetime ?? Number.POSITIVE_INFINITY) * 1000;
    const times = { key: row.key, version: row.version, expiresInMs: encoded.expires - Date.now(), endsInMs };
    const content = { data: encoded.data, cookie: encoded.cookie };
    recordSnapshot(session, newSnapshot(sid, times, content, false, statements.read));
    return row;
  }

  /** Saves what the request has changed, merged with what others have saved meanwhile. */
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
      const looked = await this.#send(call, snapshot, attempt, change);
      switch (looked.finding) {
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
          if (this.#catchUp(snapshot, looked.row, call.keys)) hasMetOthers = !isUnchanged(snapshot.seen, encoded);
          hasCaughtUp = true;
      }
    }
  }

  /** Sends a save, and looks at the row where it was not done. Until it is answered, the save is in doubt. */
  async #send(call: Call, snapshot: Snapshot, attempt: Save, change: ChangedRow): Promise<Looked> {
    const { statements, keys, deadline } = call;
    const earlier = snapshot.inDoubt;
    snapshot.inDoubt = [...earlier, attempt].slice(-MAX_IN_DOUBT);
    const isWritten = await statements.update(change, deadline);
    const row = isWritten ? undefined : await statements.read(keys, deadline);
    snapshot.inDoubt = earlier;
    return isWritten ? { finding: 'is ours' } : findingOn(row, attempt, snapshot);
  }

  /** The row holds all of it already: only the expiry may be written. */
  async #adoptStored(call: Call, snapshot: Snapshot, { seen }: Save, encoded: EncodedSession): Promise<undefined> {
    snapshot.seen = seen;
    noteKnown(call, snapshot);
    await this.#putOffExpiry(call, snapshot, encoded);
  }

  #drop(call: Call, snapshot: Snapshot, why: 'destroyed' | 'changed hands'): undefined {
    this.#emit('dropped', handleOf(snapshot.key), call.name, why);
  }

  /**
   * What a save is to write; `undefined` where the session has changed hands, so that the save is dropped.
   *
   * The row may hold what any save in doubt wrote, also with another request's changes on top: so the request's changes
   * are reconciled with it one save after the other, as if none of these had been written. The version is random, so
   * that a save whose answer was lost is recognised later, by whichever process, and a row that was destroyed and
   * created again is not taken for its predecessor (the ABA problem).
   */
  #attemptOf(snapshot: Snapshot, encoded: EncodedSession): Save | undefined {
    const ours = { data: encoded.data, cookie: encoded.cookie };
    let { seen } = snapshot;
    let stored: Content | undefined = snapshot.stored;
    for (const next of [...snapshot.inDoubt.map((save) => save.seen), ours]) {
      // Nobody else has saved: what the request holds is what is stored.
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
    // A lifetime that another request has set stays, with its expiry.
    return changeOf(row, snapshot.key, snapshot.version, hasSameLifetime(cookie, encoded.cookie));
  }

  /**
   * Brings a snapshot up to date with a row that has changed.
   *
   * @returns whether another request has changed it, and not a save of this one in doubt
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
   * The session has no row here: it was destroyed. Unless another store has loaded it, and its row is still in the
   * table of that store: then it is a new session here.
   */
  async #saveElsewhere(
    call: Call,
    snapshot: Snapshot,
    encoded: EncodedSession,
    session: object,
  ): Promise<WrittenRow | undefined> {
    const isForeign = snapshot.readFrom !== call.statements.read;
    if (isForeign && isLive(await snapshot.readFrom([snapshot.key], call.deadline))) {
      return this.#replace(call, encoded, session);
    }
    return this.#drop(call, snapshot, 'destroyed');
  }

  /** Writes the expiry, if that cannot wait (option `touchAfter`). */
  async #putOffExpiry(call: Call, snapshot: Snapshot, encoded: EncodedSession): Promise<void> {
    if (this.#isFresh(snapshot, encoded.expires)) return;
    const { keys, statements, deadline } = call;
    const { cookieExpires, expires } = encoded;
    let { key } = snapshot;
    let { cookie } = snapshot.stored;
    for (let tries = 1; ; tries++) {
      // The lifetime that another request has given the session counts.
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

  /** A touch with an object that was not loaded: the row gets its cookie, whatever it has. */
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

  /** Whether the row expires so nearly when it should that writing it can wait. */
  #isFresh(snapshot: Snapshot, expires: number): boolean {
    const expiresIn = expires - Date.now();
    const due = Math.min(performance.now() + expiresIn, snapshot.endsAt);
    return Math.abs(due - snapshot.expiresAt) < Math.min(this.#options.touchAfter * 1000, expiresIn / 10);
  }
}

/** What the row says after a save was not done; what follows from it stands in `#saveChanges`. */
function findingOn(row: StoredRow | undefined, attempt: Save, snapshot: Snapshot): Looked {
  if (!isLive(row)) return { finding: 'is gone' };
  if (row.version === attempt.version) return { finding: 'is ours' };
  if (row.key === snapshot.key && row.version === snapshot.version) return { finding: 'is locked' };
  return { finding: 'has changed', row };
}

/** Whether the row holds already what a save would write. */
function isStored(snapshot: Snapshot, { stored }: Save): boolean {
  return isSame(stored, snapshot.stored) && !snapshot.needsRekey;
}

function noteSaved(call: Call, snapshot: Snapshot, { version, seen, stored }: Save, change: ChangedRow): void {
  snapshot.key = change.key;
  snapshot.version = version;
  snapshot.seen = seen;
  snapshot.stored = stored;
  snapshot.needsRekey = false;
  noteKnown(call, snapshot);
  if (change.movesExpiry) noteExpiry(snapshot, change.expires);
}

/** The row is as the request knows it now: no save is in doubt any more. */
function noteKnown({ statements }: Call, snapshot: Snapshot): void {
  snapshot.readFrom = statements.read;
  snapshot.inDoubt = [];
}

export function isLive(row: StoredRow | undefined): row is StoredRow {
  return row !== undefined && row.expiresInMs > 0;
}

function isSame(one: Content, other: Content): boolean {
  return one.data === other.data && one.cookie === other.cookie;
}

function isUnchanged(seen: Content, now: Content): boolean {
  return seen.data === now.data && isSameCookie(seen.cookie, now.cookie);
}

export function randomVersion(): number {
  return 1 + Math.floor(Math.random() * 2_147_483_647);
}
