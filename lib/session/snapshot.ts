/** What a request saw when it loaded its session, and what the row has stored since. */

import type { Content } from './codec.js';
import type { RowStatements, StoredRow } from './row.js';

/** A save as it was sent: the version that it gives the row, and what a snapshot has `seen` and `stored` after it. */
export type Save = Pick<Snapshot, 'version' | 'seen' | 'stored'>;

/** The state of a session's row as one `Session` object knows it. It changes with each of that object's saves. */
export interface Snapshot {
  readonly sid: string;
  /** Reads the row where the session was last known to be: in the table of the store that loaded or saved it. */
  readFrom: RowStatements['read'];
  key: string;
  version: number;
  /** What the request holds if it changed nothing. */
  seen: Content;
  /** What the row holds. It differs from `seen` after a merge brought in what others changed. */
  stored: Content;
  /** Whether an old `secret` or `encryptionKey` wrote the row: the next save rewrites it, also with nothing changed. */
  needsRekey: boolean;
  /** Saves that got no answer, oldest first: the row may be as any of them left it. */
  inDoubt: readonly Save[];
  /** When the row expires, in milliseconds on the clock of `performance.now()`. */
  expiresAt: number;
  /** When `maxLifetime` ends the session, on the same clock. */
  readonly endsAt: number;
}

/**
 * A snapshot is hidden in the object that it belongs to, so it travels with it, also through a Proxy and to another
 * store. A WeakMap would cost the garbage collector nearly as much as all the rest of a `get`. The symbols are
 * registered, so that the package's ES module and its CommonJS build know each other's.
 */
const LOADED = Symbol.for('express-pg-store.loaded');
const SNAPSHOT = Symbol.for('express-pg-store.snapshot');

type Holder = { [LOADED]?: Snapshot; [SNAPSHOT]?: Snapshot } | null | undefined;

/**
 * Gives the data that `get` answers with its snapshot. The data are not yet anybody's session.
 *
 * JSON is kept as text and parsed again only where a save meets another one, so reading costs nothing more.
 */
export function attachSnapshot(data: object, snapshot: Snapshot): void {
  Object.defineProperty(data, LOADED, { value: snapshot });
}

/** The snapshot of data that `get` has answered. */
export function loadedSnapshot(data: unknown): Snapshot | undefined {
  return (data as Holder)?.[LOADED];
}

/**
 * Gives a session that `createSession` created from data of `get` the snapshot of these.
 *
 * A `Session` adopts no key that it has already (`id`, `req`, `save`, `toString`, `__proto__`), and has those where
 * they are not enumerable. The request has not seen such keys, so their absence is not a removal.
 */
export function transferSnapshot(data: object, session: object): void {
  const snapshot = loadedSnapshot(data);
  if (!snapshot) return;
  const unseen = Object.keys(data).filter((key) => !Object.prototype.propertyIsEnumerable.call(session, key));
  const own = { ...snapshot };
  if (unseen.length > 0) {
    const seen = Object.entries(JSON.parse(snapshot.stored.data)).filter(([key]) => !unseen.includes(key));
    own.seen = { ...snapshot.seen, data: JSON.stringify(Object.fromEntries(seen)) };
  }
  setSnapshot(session, own);
}

/**
 * Remembers the row of a session that was saved without a snapshot. Plain objects stay without: they replace it each
 * time.
 */
export function recordSnapshot(session: object, snapshot: Snapshot): void {
  const prototype = Object.getPrototypeOf(session);
  if (prototype !== Object.prototype && prototype !== null) setSnapshot(session, snapshot);
}

/**
 * The snapshot of a session, but only for the session ID and under a row key with which it was loaded: saved under
 * another one, a session is a new one.
 */
export function snapshotFor(session: unknown, sid: string, keys: readonly string[]): Snapshot | undefined {
  const snapshot = (session as Holder)?.[SNAPSHOT];
  return snapshot?.sid === sid && keys.includes(snapshot.key) ? snapshot : undefined;
}

/** Whether the session has a snapshot of its own, of this session ID. */
export function hasSnapshot(session: unknown, sid: string): boolean {
  return (session as Holder)?.[SNAPSHOT]?.sid === sid;
}

/** Stands in for a session that a framework has made from data of `get` in a way of its own: it has their snapshot. */
export class LoadedSession {
  /** The snapshot of the data. */
  readonly loaded: Snapshot;
  readonly [SNAPSHOT]: Snapshot;
  /** In milliseconds on the clock of `performance.now()`. */
  rememberedUntil = 0;

  constructor(loaded: Snapshot, forMs: number) {
    this.loaded = loaded;
    this[SNAPSHOT] = { ...loaded };
    this.remember(forMs);
  }

  /** What the request holds if it changed nothing since its last save. */
  get seen(): Content {
    return this[SNAPSHOT].seen;
  }

  remember(forMs: number): void {
    this.rememberedUntil = performance.now() + forMs;
  }

  forget(): void {
    this.rememberedUntil = Number.NEGATIVE_INFINITY;
  }
}

/**
 * The snapshot for a touch of a session. Data of `get` will do, too: a touch writes nothing that the request may have
 * changed in them.
 */
export function snapshotForTouch(session: unknown, sid: string, keys: readonly string[]): Snapshot | undefined {
  const snapshot = snapshotFor(session, sid, keys) ?? loadedSnapshot(session);
  return snapshot?.sid === sid && keys.includes(snapshot.key) ? snapshot : undefined;
}

/** Where the app has frozen the session, it stays without one. */
function setSnapshot(session: object, snapshot: Snapshot): void {
  Reflect.defineProperty(session, SNAPSHOT, { value: snapshot, writable: true, configurable: true });
}

export function newSnapshot(
  sid: string,
  row: Pick<StoredRow, 'key' | 'version' | 'expiresInMs' | 'endsInMs'>,
  content: Content,
  needsRekey: boolean,
  readFrom: RowStatements['read'],
): Snapshot {
  const now = performance.now();
  return {
    sid,
    readFrom,
    key: row.key,
    version: row.version,
    seen: content,
    stored: content,
    needsRekey,
    inDoubt: [],
    expiresAt: now + Math.min(row.expiresInMs, row.endsInMs),
    endsAt: now + row.endsInMs,
  };
}

/** The row expires then: milliseconds since 1970 by the app's clock, or earlier by `maxLifetime`. */
export function noteExpiry(snapshot: Snapshot, expires: number): void {
  snapshot.expiresAt = Math.min(performance.now() + expires - Date.now(), snapshot.endsAt);
}
