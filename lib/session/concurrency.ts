/** What each call on one session does with its row: optimistic concurrency control with a three-way merge. */

import type { SessionData } from 'express-session';
import { backOffFromLockedRow } from '../calls/backoff.js';
import { PgStoreError, UnreadableRowError } from '../errors.js';
import type { Emit } from '../events.js';
import type { Options } from '../options.js';
import type { Codec, Content, EncodedSession } from './codec.js';
import { hasSameLifetime, isSameCookie } from './cookie.js';
import { Reconciler } from './reconcile.js';
import type { RowStatements, Statements, StoredRow, WrittenRow } from './row.js';
import { handleOf, type RowKeys, type SessionIds } from './session-id.js';
import {
  attachSnapshot,
  newSnapshot,
  noteExpiry,
  recordSnapshot,
  type Save,
  type Snapshot,
  snapshotFor,
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

/** What the row says after a save was not done. */
type Finding =
  /** An earlier attempt at this very statement was done, and its answer lost. */
  | 'is ours'
  /** It is not there any more, or has expired: the session was destroyed. */
  | 'is gone'
  /** It is as it was: another transaction has locked it. */
  | 'is locked'
  /** Another request, or an earlier save of this one, has changed it. */
  | 'has changed';

/**
 * What each call on one session does with its row. Knows neither SQL nor Express. The caller runs the calls on one session ID
 * one after the other.
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
    const opened = isLive(row) ? this.#open(row) : undefined;
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
    const snapshot = snapshotFor(session, sid, call.keys);
    if (!snapshot) return this.#overwriteCookie(call, encoded);
    // Whatever the request has changed in the data is not part of a touch.
    const touched = { ...encoded, data: snapshot.seen.data };
    if (isSameCookie(snapshot.seen.cookie, encoded.cookie)) return this.#putOffExpiry(call, snapshot, touched);
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
        const moved = { ...row, oldKey: old.key, oldVersion: old.version, movesExpiry: true };
        if (old.expiresInMs <= 0) await statements.destroy(old.key, deadline);
        else if (await statements.update(moved, deadline)) break;
      } else if (await statements.replace(row, deadline)) break;
      await backOffFromLockedRow(tries, deadline);
    }
    const endsInMs = (this.#options.maxLifetime ?? Number.POSITIVE_INFINITY) * 1000;
    const times = { ...row, expiresInMs: encoded.expires - Date.now(), endsInMs };
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
    const { keys, statements, deadline } = call;
    let hasMetOthers = false;
    let attempt = this.#attemptOf(snapshot, encoded);
    for (let tries = 1; ; tries++) {
      if (!attempt) {
        this.#emit('dropped', handleOf(snapshot.key), call.name, 'changed hands');
        return undefined;
      }
      const earlier = snapshot.inDoubt;
      snapshot.inDoubt = [...earlier, attempt].slice(-MAX_IN_DOUBT);
      const change = this.#changeOf(snapshot, attempt, keys[0], encoded);
      const isWritten = await statements.update(change, deadline);
      const row = isWritten ? undefined : await statements.read(keys, deadline);
      const finding = isWritten ? 'is ours' : findingOn(row, attempt, snapshot);
      // It was answered: only saves before it are still in doubt.
      snapshot.inDoubt = earlier;
      switch (finding) {
        case 'is ours':
          Object.assign(snapshot, attempt, { key: keys[0], needsRekey: false, inDoubt: [], readFrom: statements.read });
          if (change.movesExpiry) noteExpiry(snapshot, encoded.expires);
          if (hasMetOthers) this.#emit('conflict', handleOf(snapshot.key), tries);
          return change;
        case 'is gone':
          // Unless it is in the table of another store, which loaded it: then it is a new session here.
          if (await this.#isElsewhere(call, snapshot)) return this.#replace(call, encoded, session);
          this.#emit('dropped', handleOf(snapshot.key), call.name, 'destroyed');
          return undefined;
        case 'is locked':
          await backOffFromLockedRow(tries, deadline);
          break;
        case 'has changed': {
          const isByOthers = this.#catchUp(snapshot, row as StoredRow, keys);
          if (isByOthers) hasMetOthers = !isUnchanged(snapshot.seen, encoded);
          attempt = this.#attemptOf(snapshot, encoded);
          if (attempt && isSame(attempt.stored, snapshot.stored) && !snapshot.needsRekey) {
            // The row holds all of it already.
            Object.assign(snapshot, { seen: attempt.seen, inDoubt: [], readFrom: statements.read });
            await this.#putOffExpiry(call, snapshot, encoded);
            return undefined;
          }
        }
      }
    }
  }

  /**
   * What a save is to write; `undefined` where the session has changed hands, so that the save is dropped.
   *
   * The row may hold what any save in doubt wrote, also with another request's changes on top: so the request's changes are
   * reconciled with it one save after the other, as if none of these had been written. The version is random, so that a save
   * whose answer was lost is recognised later, by whichever process, and a row that was destroyed and created again is not
   * taken for its predecessor (the ABA problem).
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

  #changeOf(snapshot: Snapshot, { stored, version }: Save, key: string, encoded: EncodedSession) {
    return {
      ...this.#codec.newRow(key, { ...encoded, ...stored }, version),
      oldKey: snapshot.key,
      oldVersion: snapshot.version,
      // A lifetime that another request has set stays, with its expiry.
      movesExpiry: hasSameLifetime(stored.cookie, encoded.cookie),
    };
  }

  /**
   * Brings a snapshot up to date with a row that has changed.
   *
   * @returns whether another request has changed it, and not a save of this one in doubt
   * @throws PgStoreError `UNREADABLE`
   */
  #catchUp(snapshot: Snapshot, row: StoredRow, keys: RowKeys): boolean {
    const theirs = this.#open(row);
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

  /** Whether another store loaded the session, and its row is still in the table of that store. */
  async #isElsewhere({ statements, deadline }: Call, snapshot: Snapshot): Promise<boolean> {
    return snapshot.readFrom !== statements.read && isLive(await snapshot.readFrom([snapshot.key], deadline));
  }

  /** Writes the expiry, if that cannot wait (option `touchAfter`). */
  async #putOffExpiry(call: Call, snapshot: Snapshot, encoded: EncodedSession): Promise<void> {
    if (this.#isFresh(snapshot, encoded.expires)) return;
    const { keys, statements, deadline } = call;
    const { cookieExpires, expires } = encoded;
    const expiry = { cookieExpires, expires, version: 0, overwritesCookie: false };
    let { key, stored } = snapshot;
    let { cookie } = stored;
    for (let tries = 1; ; tries++) {
      // The lifetime that another request has given the session counts.
      if (!hasSameLifetime(cookie, encoded.cookie)) return;
      if (await statements.touch({ ...expiry, key, cookie }, deadline)) break;
      const row = await statements.read(keys, deadline);
      if (!isLive(row)) return this.#emit('dropped', handleOf(snapshot.key), call.name, 'destroyed');
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

  /** The session in a row; `undefined`, with an event `unreadable`, where it cannot be read. */
  #open(row: StoredRow) {
    try {
      return this.#codec.decode(row);
    } catch (error) {
      if (!(error instanceof UnreadableRowError)) throw error;
      this.#emit('unreadable', handleOf(row.key), error.message);
      return undefined;
    }
  }
}

/** What the row says after a save was not done; what follows from it stands in `#saveChanges`. */
function findingOn(row: StoredRow | undefined, attempt: Save, snapshot: Snapshot): Finding {
  if (!isLive(row)) return 'is gone';
  if (row.version === attempt.version) return 'is ours';
  if (row.key === snapshot.key && row.version === snapshot.version) return 'is locked';
  return 'has changed';
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
