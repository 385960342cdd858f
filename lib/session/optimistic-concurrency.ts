/** What each call does with its row: optimistic concurrency control with a three-way merge. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { SessionData } from 'express-session';
import { PgStoreError, timeoutError, UnreadableRowError } from '../errors.js';
import type { Emit } from '../events.js';
import type { Options } from '../options.js';
import { Encryption } from './encryption.js';
import { merge } from './merge.js';
import { type Statements, type StoredRow, TOMBSTONE, type TouchedRow } from './row.js';
import { decode, type EncodedSession, isSealedNewest, LONGEST_MS, open, sameCookie, seal } from './session-codec.js';
import { handleOf, type SessionIds } from './session-id.js';
import { type Save, type Snapshot, Snapshots } from './snapshot.js';

/** More saves than this in a row without an answer: the oldest is taken for one that was not written. */
const MAX_IN_DOUBT = 8;

/** 400 days: no browser keeps a cookie longer (RFC 6265bis). */
const TOMBSTONE_MS = 400 * 86_400_000;

/**
 * What each call on one session does with its row. Knows neither SQL nor Express; the caller runs calls on one session ID
 * one after the other.
 */
export class ConcurrentSessions {
  readonly snapshots = new Snapshots();
  readonly #statements: Statements;
  readonly #ids: SessionIds;
  readonly #options: Options;
  readonly #emit: Emit;
  readonly #encryption: Encryption | undefined;
  /** The same, but where rows are still written without encryption. */
  readonly #sealing: Encryption | undefined;

  constructor(statements: Statements, ids: SessionIds, options: Options, emit: Emit) {
    this.#statements = statements;
    this.#ids = ids;
    this.#options = options;
    this.#emit = emit;
    const [newest, ...older] = options.encryptionKeys;
    this.#encryption = newest === undefined ? undefined : new Encryption([newest, ...older]);
    this.#sealing = options.allowPlaintext === 'write' ? undefined : this.#encryption;
  }

  async load(sid: string, deadline: number): Promise<unknown> {
    const keys = this.#ids.rowKeysFor(sid);
    const row = await this.#statements.read(keys, deadline);
    if (!row || row.expiresInMs <= 0) return null;
    const opened = this.read(row);
    if (!opened) return null;
    const { session, data } = opened;
    if (typeof session === 'object' && session !== null) {
      this.snapshots.attach(session, snapshotOf(sid, row, data, this.#needsRekey(row, keys)));
    }
    return session ?? null;
  }

  /** A row's session and its data's JSON, or nothing, with an `unreadable` event. */
  read(row: StoredRow): { session: unknown; data: string } | undefined {
    try {
      const data = open(this.#encryption, this.#options.allowPlaintext !== false, row.key, row.data);
      return { session: decode(data, row.cookie, row.expiresInMs), data };
    } catch (error) {
      if (!(error instanceof UnreadableRowError)) throw error;
      this.#emit('unreadable', handleOf(row.key), error.message);
      return undefined;
    }
  }

  async save(sid: string, encoded: EncodedSession, session: unknown, deadline: number): Promise<void> {
    const expiresIn = this.#lifetime(encoded, session);
    const snapshot = this.snapshots.of(session, sid);
    if (!snapshot) return this.#replace(sid, encoded, session, expiresIn, deadline);
    const isChanged = encoded.data !== snapshot.seen;
    if (!isChanged && !snapshot.needsRekey && snapshot.inDoubt.length === 0)
      return this.#touch(sid, snapshot, encoded, expiresIn, deadline, 'set');

    const keys = this.#ids.rowKeysFor(sid);
    let attempt = this.#attempt(snapshot, encoded.data);
    let met = false;
    for (let tries = 1; ; tries++) {
      const change = this.#change(snapshot, encoded, expiresIn);
      const { stored } = attempt;
      const row = {
        key: snapshot.key,
        newKey: keys[0],
        version: snapshot.version,
        newVersion: attempt.version,
        data: seal(this.#sealing, keys[0], stored),
        user: this.#user(stored === encoded.data ? session : { ...JSON.parse(stored), cookie: cookieOf(session) }),
        ...change,
      };
      const earlier = snapshot.inDoubt;
      snapshot.inDoubt = [...earlier, { ...attempt, cookie: change.cookie }].slice(-MAX_IN_DOUBT);
      const isWritten = await this.#statements.update(row, deadline);
      const now = isWritten ? undefined : await this.#statements.read(keys, deadline);
      // Or an earlier attempt at this very statement was written, and its answer lost.
      if (isWritten || now?.version === attempt.version) {
        Object.assign(snapshot, { ...attempt, key: keys[0], needsRekey: false, inDoubt: [] });
        noteExpiry(snapshot, change);
        if (met) this.#emit('conflict', handleOf(snapshot.key), tries);
        return;
      }
      const written = earlier.find(({ version }) => version === now?.version);
      snapshot.inDoubt = written ? [] : earlier;
      if (!now || now.expiresInMs <= 0) return this.#dropped(snapshot, 'set');
      const theirs = this.read(now);
      if (!theirs) throw new PgStoreError('the row cannot be read, so the session was not saved', 'UNREADABLE');
      if (now.key === snapshot.key && now.version === snapshot.version) {
        await backOffFromLockedRow(tries, deadline);
        continue;
      }
      const needsRekey = this.#needsRekey(now, keys);
      Object.assign(snapshot, { ...written, key: now.key, version: now.version, stored: theirs.data, needsRekey });
      if (!written) met = isChanged;
      attempt = this.#attempt(snapshot, encoded.data);
      if (attempt.stored === snapshot.stored && !needsRekey) {
        Object.assign(snapshot, { seen: encoded.data, inDoubt: [] });
        return this.#touch(sid, snapshot, encoded, expiresIn, deadline, 'set');
      }
    }
  }

  async touch(sid: string, encoded: EncodedSession, session: unknown, deadline: number): Promise<void> {
    const expiresIn = this.#lifetime(encoded, session);
    await this.#touch(sid, this.snapshots.of(session, sid), encoded, expiresIn, deadline, 'touch');
  }

  async destroy(sid: string, deadline: number): Promise<void> {
    const keys = this.#ids.rowKeysFor(sid);
    for (let tries = 1, [key] = keys; ; tries++) {
      const isDeleted = await this.#statements.destroy(key, deadline);
      if (isDeleted && keys.length === 1) return;
      const left = await this.#statements.read(keys, deadline);
      if (!left) return;
      if (left.key === key) await backOffFromLockedRow(tries, deadline);
      key = left.key;
    }
  }

  /** Keeps a session of another store, unless the session ID has a row. @returns whether it had none */
  async adopt(sid: string, encoded: EncodedSession, session: object, deadline: number): Promise<boolean> {
    const keys = this.#ids.rowKeysFor(sid);
    if (keys.length > 1 && (await this.#statements.read(keys, deadline))) return false;
    // Its cookie's `expires` may be past: most stores' touch leaves the JSON as it is. The request touches the session anyway.
    const { originalMaxAge } = (cookieOf(session) ?? {}) as { originalMaxAge?: unknown };
    const known = Math.max(encoded.expiresIn ?? 0, Number(originalMaxAge) || 0);
    const expiresIn = Math.min(known || this.ttl(session as SessionData), LONGEST_MS);
    const row = {
      key: keys[0],
      data: seal(this.#sealing, keys[0], encoded.data),
      cookie: encoded.cookie,
      user: this.#user(session),
      newVersion: randomVersion(),
      expiresIn,
    };
    return this.#statements.insert(row, deadline);
  }

  /** Destroys the session and keeps `adopt` from bringing it back. */
  async leaveTombstone([key, ...older]: readonly [string, ...string[]], deadline: number): Promise<void> {
    const newVersion = randomVersion();
    const tombstone = { key, data: TOMBSTONE, cookie: null, user: null, newVersion, expiresIn: TOMBSTONE_MS };
    for (let tries = 1; ; tries++) {
      const old = older.length > 0 ? await this.#statements.read(older, deadline) : undefined;
      const { destroy, replace } = this.#statements;
      const isWritten = await (old ? destroy(old.key, deadline) : replace(tombstone, deadline));
      if (isWritten && !old) return;
      if (!isWritten) await backOffFromLockedRow(tries, deadline);
    }
  }

  /** As MemoryStore does: whatever is there is replaced, without a look. */
  async #replace(
    sid: string,
    encoded: EncodedSession,
    session: unknown,
    expiresIn: number,
    deadline: number,
  ): Promise<void> {
    const keys = this.#ids.rowKeysFor(sid);
    const data = seal(this.#sealing, keys[0], encoded.data);
    const { cookie } = encoded;
    const version = randomVersion();
    const row = { key: keys[0], data, cookie, user: this.#user(session), newVersion: version, expiresIn };
    for (let tries = 1, isWritten = false; !isWritten; tries++) {
      const old = keys.length > 1 ? await this.#statements.read(keys, deadline) : undefined;
      if (!old || old.key === row.key) isWritten = await this.#statements.replace(row, deadline);
      // What has expired is no session, and the new one is not as old.
      else if (old.expiresInMs <= 0) await this.#statements.destroy(old.key, deadline);
      else {
        const moved = { ...row, key: old.key, newKey: row.key, version: old.version, cookieChanged: true };
        isWritten = await this.#statements.update(moved, deadline);
      }
      if (!isWritten) await backOffFromLockedRow(tries, deadline);
    }
    if (typeof session !== 'object' || session === null) return;
    const { maxLifetime } = this.#options;
    const remainingLifetimeMs = maxLifetime === undefined ? Number.POSITIVE_INFINITY : maxLifetime * 1000;
    const stored: StoredRow = { key: row.key, data, cookie, version, expiresInMs: expiresIn, remainingLifetimeMs };
    this.snapshots.record(session, snapshotOf(sid, stored, encoded.data, false));
  }

  async #touch(
    sid: string,
    snapshot: Snapshot | undefined,
    encoded: EncodedSession,
    expiresIn: number,
    deadline: number,
    call: 'set' | 'touch',
  ): Promise<void> {
    const keys = this.#ids.rowKeysFor(sid);
    const change = snapshot
      ? this.#change(snapshot, encoded, expiresIn)
      : { cookie: encoded.cookie, cookieChanged: true, expiresIn };
    if (change.expiresIn === null) return;
    for (let tries = 1, key = snapshot?.key ?? keys[0]; ; tries++) {
      if (await this.#statements.touch({ ...change, key }, deadline)) break;
      const now = await this.#statements.read(keys, deadline);
      if (!now || now.expiresInMs <= 0) {
        if (snapshot) this.#dropped(snapshot, call);
        return;
      }
      if (now.key === key) await backOffFromLockedRow(tries, deadline);
      key = now.key;
    }
    if (snapshot) noteExpiry(snapshot, change);
  }

  #change(snapshot: Snapshot, encoded: EncodedSession, expiresIn: number): Omit<TouchedRow, 'key'> {
    const cookieChanged = !sameCookie(snapshot.cookie, encoded.cookie);
    const canWait = !cookieChanged && this.#isFresh(snapshot, expiresIn);
    return {
      cookie: cookieChanged ? encoded.cookie : snapshot.cookie,
      cookieChanged,
      expiresIn: canWait ? null : expiresIn,
    };
  }

  /** Whether the row expires so nearly when it should that writing it can wait. */
  #isFresh(snapshot: Snapshot, expiresIn: number): boolean {
    const due = Math.min(performance.now() + expiresIn, snapshot.endsAt);
    return Math.abs(due - snapshot.expiresAt) < Math.min(this.#options.touchAfter * 1000, expiresIn / 10);
  }

  /** Whether the row still has an older secret's key or data that were not encrypted with the newest encryption key. */
  #needsRekey(row: StoredRow, [newest]: readonly string[]): boolean {
    return row.key !== newest || !isSealedNewest(this.#sealing, row.data);
  }

  /**
   * What a save is to write. The row may hold what any save in doubt wrote, also with another request's changes on top: so
   * the request's changes are merged one save after the other, as if none of these had been written.
   */
  #attempt(snapshot: Snapshot, ours: string): Omit<Save, 'cookie'> {
    let { seen, stored } = snapshot;
    for (const next of [...snapshot.inDoubt.map((save) => save.seen), ours]) {
      if (next !== seen) stored = stored === seen ? next : this.#merge(seen, next, stored);
      seen = next;
    }
    // Random, so that a save whose answer was lost is recognised later, by whichever process, and a row that was destroyed
    // and created again is not taken for its predecessor (the ABA problem).
    return { version: randomVersion(), seen, stored };
  }

  #merge(base: string, ours: string, theirs: string): string {
    const combine = this.#options.merge ?? merge;
    const merged: unknown = combine(JSON.parse(base), JSON.parse(ours), JSON.parse(theirs));
    const text = JSON.stringify(merged);
    // Anything else would be stored as an empty session, a promise for one.
    if (!text?.startsWith('{') || typeof (merged as { then?: unknown }).then === 'function')
      throw new PgStoreError('option `merge` returned no object', 'INVALID_SESSION');
    return text;
  }

  #dropped(snapshot: Snapshot, call: 'set' | 'touch'): void {
    this.#emit('dropped', handleOf(snapshot.key), call);
  }

  /** Milliseconds that the session has from now on. */
  #lifetime(encoded: EncodedSession, session: unknown): number {
    return encoded.expiresIn ?? this.ttl(session as SessionData);
  }

  /** Milliseconds that a session lives whose cookie has no expiry. */
  ttl(session: SessionData): number {
    const { ttl } = this.#options;
    const seconds: unknown = typeof ttl === 'function' ? ttl(session) : ttl;
    if (typeof seconds === 'number' && seconds >= 0 && seconds <= 1e11) return seconds * 1000;
    throw new PgStoreError('option `ttl` returned no number of seconds', 'INVALID_SESSION');
  }

  #user(session: unknown): string | null {
    if (typeof session !== 'object' || session === null) return null;
    const user: unknown = this.#options.user(session as SessionData);
    if (user === undefined || user === null) return null;
    if (typeof user === 'string' || typeof user === 'number') return String(user);
    throw new PgStoreError(`option \`user\` returned ${typeof user}, not a string or a number`, 'INVALID_SESSION');
  }
}

function randomVersion(): number {
  return 1 + Math.floor(Math.random() * 2_147_483_647);
}

function cookieOf(session: unknown): unknown {
  return (session as { cookie?: unknown }).cookie;
}

function snapshotOf(sid: string, row: StoredRow, data: string, needsRekey: boolean): Snapshot {
  const now = performance.now();
  return {
    sid,
    key: row.key,
    version: row.version,
    seen: data,
    stored: data,
    needsRekey,
    inDoubt: [],
    cookie: row.cookie,
    expiresAt: now + row.expiresInMs,
    endsAt: now + row.remainingLifetimeMs,
  };
}

function noteExpiry(snapshot: Snapshot, { cookie, expiresIn }: Omit<TouchedRow, 'key'>): void {
  snapshot.cookie = cookie;
  if (expiresIn !== null) snapshot.expiresAt = Math.min(performance.now() + expiresIn, snapshot.endsAt);
}

/**
 * Waits before asking again for a row that somebody holds, ever longer: no statement waits for it on the server. The first
 * time not at all: the row was changed while the statement ran.
 */
async function backOffFromLockedRow(tries: number, deadline: number): Promise<void> {
  if (performance.now() >= deadline) throw timeoutError();
  if (tries > 1) await sleep(Math.min(2 ** tries, 100));
}
