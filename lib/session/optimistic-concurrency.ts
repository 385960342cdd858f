/** What each call does with its row: optimistic concurrency control with a three-way merge. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { SessionData } from 'express-session';
import { PgStoreError, timeoutError, UnreadableRowError } from '../errors.js';
import type { Emit } from '../events.js';
import type { Options } from '../options.js';
import { Encryption } from './encryption.js';
import { merge } from './merge.js';
import { CLOCKS_AGREE_MS, type Statements, type StoredRow, type TouchedRow } from './row.js';
import {
  decode,
  type EncodedSession,
  encode,
  isSealedNewest,
  LATEST_MS,
  open,
  sameCookie,
  seal,
} from './session-codec.js';
import { handleOf, type SessionIds } from './session-id.js';
import { type Save, type Snapshot, Snapshots } from './snapshot.js';
import { userOf } from './user.js';

/** More saves than this in a row without an answer: the oldest is taken for one that was not written. */
const MAX_IN_DOUBT = 8;

type TimedSession = EncodedSession & { readonly expires: number };

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

  async load(sid: string, deadline: number): Promise<SessionData | null> {
    const keys = this.#ids.rowKeysFor(sid);
    const row = await this.#statements.read(keys, deadline);
    if (!row || row.expiresInMs <= 0) return null;
    const opened = this.read(row);
    if (!opened) return null;
    const { session, data } = opened;
    this.snapshots.attach(session, snapshotOf(sid, row, data, this.#needsRekey(row, keys)));
    return session;
  }

  /** The session as it is now, whatever the app changes later, with an expiry. */
  encode(session: SessionData): TimedSession {
    const encoded = encode(session);
    const { expires = Date.now() + this.ttl(() => decode(encoded.data, encoded.cookie, 0)) } = encoded;
    return { ...encoded, expires };
  }

  /** A row's session and its data's JSON, or nothing, with an `unreadable` event. */
  read(row: StoredRow): { session: SessionData; data: string } | undefined {
    try {
      const data = open(this.#encryption, this.#options.allowPlaintext !== false, row.key, row.data);
      return { session: decode(data, row.cookie, expiryOf(row)), data };
    } catch (error) {
      if (!(error instanceof UnreadableRowError)) throw error;
      this.#emit('unreadable', handleOf(row.key), error.message);
      return undefined;
    }
  }

  async save(sid: string, encoded: TimedSession, session: object, deadline: number): Promise<void> {
    const snapshot = this.snapshots.of(session, sid);
    if (!snapshot) return this.#replace(sid, encoded, session, deadline);
    const isChanged = encoded.data !== snapshot.seen;
    if (!isChanged && !snapshot.needsRekey && snapshot.inDoubt.length === 0)
      return this.#touch(sid, snapshot, encoded, deadline, 'set');

    const keys = this.#ids.rowKeysFor(sid);
    let attempt = this.#attempt(snapshot, encoded.data);
    let met = false;
    for (let tries = 1; ; tries++) {
      const change = this.#change(snapshot, encoded);
      const { stored } = attempt;
      const row = {
        key: snapshot.key,
        newKey: keys[0],
        version: snapshot.version,
        newVersion: attempt.version,
        data: seal(this.#sealing, keys[0], stored),
        user: this.#user({ ...encoded, data: stored }),
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
        return this.#touch(sid, snapshot, encoded, deadline, 'set');
      }
    }
  }

  async touch(sid: string, encoded: TimedSession, session: object, deadline: number): Promise<void> {
    await this.#touch(sid, this.snapshots.of(session, sid), encoded, deadline, 'touch');
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
  async adopt(sid: string, session: unknown, deadline: number): Promise<boolean> {
    const keys = this.#ids.rowKeysFor(sid);
    if (keys.length > 1 && (await this.#statements.read(keys, deadline))) return false;
    // Its cookie's `expires` may be past: most stores' touch leaves the JSON as it is. The request touches the session anyway.
    const encoded = encode(session);
    const now = Date.now();
    const known = Math.max(encoded.expires ?? 0, now + (Number(JSON.parse(encoded.cookie).originalMaxAge) || 0));
    const ttl = () => this.ttl(() => decode(encoded.data, encoded.cookie, now));
    const expires = Math.min(known > now ? known : now + ttl(), LATEST_MS);
    const row = {
      key: keys[0],
      data: seal(this.#sealing, keys[0], encoded.data),
      cookie: encoded.cookie,
      user: this.#user({ ...encoded, expires }),
      newVersion: randomVersion(),
      expires,
    };
    return this.#statements.insert(row, deadline);
  }

  /** As MemoryStore does: whatever is there is replaced, without a look. */
  async #replace(sid: string, encoded: TimedSession, session: object, deadline: number): Promise<void> {
    const keys = this.#ids.rowKeysFor(sid);
    const data = seal(this.#sealing, keys[0], encoded.data);
    const { cookie, expires } = encoded;
    const version = randomVersion();
    const row = { key: keys[0], data, cookie, user: this.#user(encoded), newVersion: version, expires };
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
    const { maxLifetime } = this.#options;
    const remainingLifetimeMs = maxLifetime === undefined ? Number.POSITIVE_INFINITY : maxLifetime * 1000;
    const stored = { key: row.key, cookie, version, expiresInMs: expires - Date.now(), remainingLifetimeMs };
    this.snapshots.record(session, snapshotOf(sid, stored, encoded.data, false));
  }

  async #touch(
    sid: string,
    snapshot: Snapshot | undefined,
    encoded: TimedSession,
    deadline: number,
    call: 'set' | 'touch',
  ): Promise<void> {
    const keys = this.#ids.rowKeysFor(sid);
    const change = snapshot
      ? this.#change(snapshot, encoded)
      : { cookie: encoded.cookie, cookieChanged: true, expires: encoded.expires };
    if (change.expires === null) return;
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

  #change(snapshot: Snapshot, { cookie, expires }: TimedSession): Omit<TouchedRow, 'key'> {
    const cookieChanged = !sameCookie(snapshot.cookie, cookie);
    const canWait = !cookieChanged && this.#isFresh(snapshot, expires);
    return {
      cookie: cookieChanged ? cookie : snapshot.cookie,
      cookieChanged,
      expires: canWait ? null : expires,
    };
  }

  /** Whether the row expires so nearly when it should that writing it can wait. */
  #isFresh(snapshot: Snapshot, expires: number): boolean {
    const expiresIn = expires - Date.now();
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

  /** Milliseconds that a session lives whose cookie has no expiry. */
  ttl(session: () => SessionData): number {
    const { ttl } = this.#options;
    const seconds: unknown = typeof ttl === 'function' ? ttl(session()) : ttl;
    if (typeof seconds === 'number' && seconds >= 0 && seconds <= 1e11) return seconds * 1000;
    throw new PgStoreError('option `ttl` returned no number of seconds', 'INVALID_SESSION');
  }

  #user({ data, cookie, expires }: TimedSession): string | null {
    const { user } = this.#options;
    // Without parsing, which is what costs here.
    if (!user && !data.includes('"passport"')) return null;
    return userOf(decode(data, cookie, expires), user);
  }
}

export function randomVersion(): number {
  return 1 + Math.floor(Math.random() * 2_147_483_647);
}

/**
 * When a row expires by the app's clock. Where that agrees with the database's, as it was set, to the millisecond. The
 * difference is the time that the answer took, too.
 */
function expiryOf({ expiresAt, expiresInMs }: StoredRow): number {
  const expires = Date.now() + expiresInMs;
  return Math.abs(expires - expiresAt) <= CLOCKS_AGREE_MS ? Math.round(expiresAt) : expires;
}

function snapshotOf(
  sid: string,
  row: Omit<StoredRow, 'data' | 'expiresAt'>,
  data: string,
  needsRekey: boolean,
): Snapshot {
  const now = performance.now();
  return {
    sid,
    key: row.key,
    version: row.version,
    seen: data,
    stored: data,
    needsRekey,
    inDoubt: [],
    // `decode` found one.
    cookie: row.cookie as string,
    expiresAt: now + row.expiresInMs,
    endsAt: now + row.remainingLifetimeMs,
  };
}

function noteExpiry(snapshot: Snapshot, { cookie, expires }: Omit<TouchedRow, 'key'>): void {
  snapshot.cookie = cookie;
  if (expires !== null) snapshot.expiresAt = Math.min(performance.now() + expires - Date.now(), snapshot.endsAt);
}

/**
 * Waits before asking again for a row that somebody holds, ever longer: no statement waits for it on the server. The first
 * time not at all: the row was changed while the statement ran.
 */
export async function backOffFromLockedRow(tries: number, deadline: number): Promise<void> {
  if (performance.now() >= deadline) throw timeoutError();
  if (tries > 1) await sleep(Math.min(2 ** tries, 100));
}
