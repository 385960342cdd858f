/** What each call does with its row: optimistic concurrency control with a three-way merge. */

import type { SessionData } from 'express-session';
import { PgStoreError, timeoutError } from '../errors.js';
import type { Emit } from '../events.js';
import type { Options } from '../options.js';
import { sleep } from '../timers.js';
import { merge } from './merge.js';
import { type Statements, TOMBSTONE, type TouchedRow } from './row.js';
import type { RowCodec, TimedSession } from './row-codec.js';
import { decode, encode, LATEST_MS, sameCookie } from './session-codec.js';
import { handleOf, type SessionIds } from './session-id.js';
import {
  attachSnapshot,
  newSnapshot,
  noteExpiry,
  recordSnapshot,
  type Save,
  type Snapshot,
  snapshotFor,
} from './snapshot.js';

/**
 * More saves than this in a row without an answer: the oldest is taken for one that was not
 * written.
 */
const MAX_IN_DOUBT = 8;

/** 400 days: no browser keeps a cookie longer (RFC 6265bis). */
const TOMBSTONE_MS = 400 * 86_400_000;

/** A call on one session. */
interface Call {
  readonly sid: string;
  readonly keys: readonly [string, ...string[]];
  readonly statements: Statements;
  readonly deadline: number;
}

export type ConcurrentSessions = ReturnType<typeof concurrentSessions>;

/**
 * What each call on one session does with its row. Knows neither SQL nor Express; the caller runs
 * calls on one session ID one after the other.
 */
export function concurrentSessions(
  statementsOf: (shard?: number) => Statements,
  ids: SessionIds,
  codec: RowCodec,
  options: Options,
  emit: Emit,
) {
  function callOn(sid: string, deadline: number): Call {
    return { sid, keys: ids.rowKeysFor(sid), statements: statementsOf(ids.shardOf(sid)), deadline };
  }

  /** As MemoryStore does: whatever is there is replaced, without a look. */
  async function replace(call: Call, encoded: TimedSession, session: object): Promise<void> {
    const { sid, keys, statements, deadline } = call;
    const row = newRow(keys[0], encoded);
    const { key, cookie, newVersion: version, expires } = row;
    for (let tries = 1, isWritten = false; !isWritten; tries++) {
      const old = keys.length > 1 ? await statements.read(keys, deadline) : undefined;
      if (!old || old.key === key) isWritten = await statements.replace(row, deadline);
      // What has expired is no session, and the new one is not as old.
      else if (old.expiresInMs <= 0) await statements.destroy(old.key, deadline);
      else {
        const moved = { ...row, key: old.key, newKey: key, version: old.version, cookieChanged: true };
        isWritten = await statements.update(moved, deadline);
      }
      if (!isWritten) await backOffFromLockedRow(tries, deadline);
    }
    const { maxLifetime = Number.POSITIVE_INFINITY } = options;
    const times = { expiresInMs: expires - Date.now(), remainingLifetimeMs: maxLifetime * 1000 };
    recordSnapshot(session, newSnapshot(sid, { key, cookie, version, ...times }, encoded.data, false, statements.read));
  }

  async function touch(
    { keys, statements, deadline }: Call,
    snapshot: Snapshot | undefined,
    encoded: TimedSession,
    call: 'set' | 'touch',
  ): Promise<void> {
    const change = changeOf(snapshot, encoded);
    if (change.expires === null) return;
    for (let tries = 1, key = snapshot?.key ?? keys[0]; ; tries++) {
      if (await statements.touch({ ...change, key }, deadline)) break;
      const now = await statements.read(keys, deadline);
      if (!now || now.expiresInMs <= 0) {
        if (snapshot) emit('dropped', handleOf(snapshot.key), call);
        return;
      }
      if (now.key === key) await backOffFromLockedRow(tries, deadline);
      key = now.key;
    }
    if (snapshot) noteExpiry(snapshot, change);
  }

  function newRow(key: string, encoded: TimedSession, newVersion = randomVersion()) {
    const { data, cookie, expires } = encoded;
    return { key, data: codec.seal(key, data), cookie, user: codec.user(encoded), newVersion, expires };
  }

  function changeOf(snapshot: Snapshot | undefined, { cookie, expires }: TimedSession): Omit<TouchedRow, 'key'> {
    if (!snapshot || !sameCookie(snapshot.cookie, cookie)) return { cookie, cookieChanged: true, expires };
    return { cookie: snapshot.cookie, cookieChanged: false, expires: isFresh(snapshot, expires) ? null : expires };
  }

  /** Whether the row expires so nearly when it should that writing it can wait. */
  function isFresh(snapshot: Snapshot, expires: number): boolean {
    const expiresIn = expires - Date.now();
    const due = Math.min(performance.now() + expiresIn, snapshot.endsAt);
    return Math.abs(due - snapshot.expiresAt) < Math.min(options.touchAfter * 1000, expiresIn / 10);
  }

  /**
   * What a save is to write. The row may hold what any save in doubt wrote, also with another
   * request's changes on top: so the request's changes are merged one save after the other, as if
   * none of these had been written.
   */
  function attemptOf(snapshot: Snapshot, ours: string): Omit<Save, 'cookie'> {
    let { seen, stored } = snapshot;
    for (const next of [...snapshot.inDoubt.map((save) => save.seen), ours]) {
      if (next !== seen) stored = stored === seen ? next : merged(seen, next, stored);
      seen = next;
    }
    // Random, so that a save whose answer was lost is recognised later, by whichever process, and a
    // row that was destroyed and created again is not taken for its predecessor (the ABA problem).
    return { version: randomVersion(), seen, stored };
  }

  function merged(base: string, ours: string, theirs: string): string {
    const combine = options.merge ?? merge;
    const result: unknown = combine(JSON.parse(base), JSON.parse(ours), JSON.parse(theirs));
    const text = JSON.stringify(result);
    // Anything else would be stored as an empty session, a promise for one.
    if (!text?.startsWith('{') || typeof (result as { then?: unknown }).then === 'function')
      throw new PgStoreError('option `merge` returned no object', 'INVALID_SESSION');
    return text;
  }

  return {
    async load(sid: string, deadline: number): Promise<SessionData | null> {
      const { keys, statements } = callOn(sid, deadline);
      const row = await statements.read(keys, deadline);
      const opened = row && row.expiresInMs > 0 ? codec.read(row) : undefined;
      if (!row || !opened) return null;
      const { session, data } = opened;
      attachSnapshot(session, newSnapshot(sid, row, data, codec.needsRekey(row, keys), statements.read));
      return session;
    },

    async save(sid: string, encoded: TimedSession, session: object, deadline: number): Promise<void> {
      const call = callOn(sid, deadline);
      const { keys, statements } = call;
      const snapshot = snapshotFor(session, sid, keys);
      if (!snapshot) return replace(call, encoded, session);
      const isChanged = encoded.data !== snapshot.seen;
      const readFrom = statements.read;
      const isHere = snapshot.readFrom === readFrom;
      if (!isChanged && isHere && !snapshot.needsRekey && snapshot.inDoubt.length === 0)
        return touch(call, snapshot, encoded, 'set');

      let attempt = attemptOf(snapshot, encoded.data);
      let met = false;
      for (let tries = 1; ; tries++) {
        const change = changeOf(snapshot, encoded);
        const { stored } = attempt;
        const row = {
          ...newRow(keys[0], { ...encoded, data: stored }, attempt.version),
          ...change,
          key: snapshot.key,
          newKey: keys[0],
          version: snapshot.version,
        };
        const earlier = snapshot.inDoubt;
        snapshot.inDoubt = [...earlier, { ...attempt, cookie: change.cookie }].slice(-MAX_IN_DOUBT);
        const isWritten = await statements.update(row, deadline);
        const now = isWritten ? undefined : await statements.read(keys, deadline);
        // Or an earlier attempt at this very statement was written, and its answer lost.
        if (isWritten || now?.version === attempt.version) {
          Object.assign(snapshot, attempt, { key: keys[0], needsRekey: false, inDoubt: [], readFrom });
          noteExpiry(snapshot, change);
          if (met) emit('conflict', handleOf(snapshot.key), tries);
          return;
        }
        const written = earlier.find(({ version }) => version === now?.version);
        snapshot.inDoubt = written ? [] : earlier;
        if (!now || now.expiresInMs <= 0) {
          // Another store loaded it. If it is still there, that is another table; if not, it was
          // destroyed.
          const there = isHere ? undefined : await snapshot.readFrom([snapshot.key], deadline);
          if (there && there.expiresInMs > 0) return replace(call, encoded, session);
          return emit('dropped', handleOf(snapshot.key), 'set');
        }
        const theirs = codec.read(now);
        if (!theirs) throw new PgStoreError('the row cannot be read, so the session was not saved', 'UNREADABLE');
        if (now.key === snapshot.key && now.version === snapshot.version) {
          await backOffFromLockedRow(tries, deadline);
          continue;
        }
        const needsRekey = codec.needsRekey(now, keys);
        Object.assign(snapshot, { ...written, key: now.key, version: now.version, stored: theirs.data, needsRekey });
        if (!written) met = isChanged;
        attempt = attemptOf(snapshot, encoded.data);
        if (attempt.stored === snapshot.stored && !needsRekey) {
          Object.assign(snapshot, { seen: encoded.data, inDoubt: [], readFrom });
          return touch(call, snapshot, encoded, 'set');
        }
      }
    },

    async touch(sid: string, encoded: TimedSession, session: object, deadline: number): Promise<void> {
      const call = callOn(sid, deadline);
      await touch(call, snapshotFor(session, sid, call.keys), encoded, 'touch');
    },

    async destroy(sid: string, deadline: number): Promise<void> {
      const { keys, statements } = callOn(sid, deadline);
      for (let tries = 1, [key] = keys; ; tries++) {
        const isDeleted = await statements.destroy(key, deadline);
        if (isDeleted && keys.length === 1) return;
        const left = await statements.read(keys, deadline);
        if (!left) return;
        if (left.key === key) await backOffFromLockedRow(tries, deadline);
        key = left.key;
      }
    },

    /** Destroys the session under each of its keys, and leaves a tombstone under the first. */
    async leaveTombstone([key, ...older]: Call['keys'], shard: number | undefined, deadline: number): Promise<void> {
      const { read, replace, destroy } = statementsOf(shard);
      const none = { data: TOMBSTONE, cookie: null, user: null };
      const row = { ...none, key, newVersion: randomVersion(), expires: Date.now() + TOMBSTONE_MS };
      for (let tries = 1; ; tries++) {
        const old = older.length > 0 ? await read(older, deadline) : undefined;
        const isWritten = await (old ? destroy(old.key, deadline) : replace(row, deadline));
        if (isWritten && !old) return;
        if (!isWritten) await backOffFromLockedRow(tries, deadline);
      }
    },

    /**
     * Keeps a session of another store, unless the session ID has a row. @returns whether it had
     * none
     */
    async adopt(sid: string, session: unknown, deadline: number): Promise<boolean> {
      const { keys, statements } = callOn(sid, deadline);
      if (keys.length > 1 && (await statements.read(keys, deadline))) return false;
      // Its cookie's `expires` may be past: most stores' touch leaves the JSON as it is. The
      // request touches the session anyway.
      const encoded = encode(session);
      const now = Date.now();
      const known = Math.max(encoded.expires ?? 0, now + (Number(JSON.parse(encoded.cookie).originalMaxAge) || 0));
      const ttl = () => codec.ttl(() => decode(encoded.data, encoded.cookie, now));
      const expires = Math.min(known > now ? known : now + ttl(), LATEST_MS);
      return statements.insert(newRow(keys[0], { ...encoded, expires }), deadline);
    },
  };
}

function randomVersion(): number {
  return 1 + Math.floor(Math.random() * 2_147_483_647);
}

/**
 * Waits before asking again for a locked row, ever longer: no statement waits for it on the server.
 * The first time not at all: the row was changed while the statement ran.
 */
export async function backOffFromLockedRow(tries: number, deadline: number): Promise<void> {
  if (performance.now() >= deadline) throw timeoutError();
  if (tries > 1) await sleep(Math.min(2 ** tries, 100));
}
