/** What a request saw when it loaded its session, and what the row has stored since. */

import type { Statements, StoredRow, TouchedRow } from './row.js';

/**
 * A save as it was sent: the version that it gives the row, and a snapshot's `seen`, `stored` and
 * `cookie` after it.
 */
export type Save = Pick<Snapshot, 'version' | 'seen' | 'stored' | 'cookie'>;

/**
 * The state of a session's row as one `Session` object knows it. Changes with each of that object's
 * saves.
 */
export interface Snapshot {
  readonly sid: string;
  /**
   * Reads the row where the session was last known to be: in the table of the store that loaded or
   * saved it.
   */
  readFrom: Statements['read'];
  key: string;
  version: number;
  /** JSON that the request holds if it changed nothing. */
  seen: string;
  /** JSON that the row holds. Differs from `seen` after a merge brought in what others changed. */
  stored: string;
  /**
   * An old `secret` or `encryptionKey` wrote the row: the next save rewrites it, also with nothing
   * changed.
   */
  needsRekey: boolean;
  /** Saves that got no answer, oldest first: the row may be as any of them left it. */
  inDoubt: readonly Save[];
  cookie: string;
  /**
   * When the row expires, and when `maxLifetime` ends it; on the clock of `performance.now()`, in
   * milliseconds.
   */
  expiresAt: number;
  readonly endsAt: number;
}

/**
 * A snapshot is hidden in the object that it belongs to: it travels with it, also through a Proxy
 * and to another store. A WeakMap would cost the garbage collector nearly as much as all the rest
 * of a `get`.
 */
const LOADED = Symbol('loaded');
const SNAPSHOT = Symbol('snapshot');

type Holder = { [LOADED]?: Snapshot; [SNAPSHOT]?: Snapshot } | null | undefined;

/**
 * Gives the data that `get` answers with its snapshot: not yet anybody's session.
 *
 * JSON is kept as text and parsed again only where a save meets another one: reading stays free.
 */
export function attachSnapshot(data: object, snapshot: Snapshot): void {
  Object.defineProperty(data, LOADED, { value: snapshot });
}

/**
 * `createSession` created a session from data that `get` answered with.
 *
 * A `Session` adopts no key that it has already (`id`, `req`, `save`, `toString`, `__proto__`), and
 * has those where they are not enumerable: such keys were not seen, so their absence is no removal.
 */
export function transferSnapshot(data: object, session: object): void {
  const snapshot = (data as Holder)?.[LOADED];
  if (!snapshot) return;
  const unseen = Object.keys(data).filter((key) => !Object.prototype.propertyIsEnumerable.call(session, key));
  const own = { ...snapshot };
  if (unseen.length > 0) {
    const seen = Object.entries(JSON.parse(snapshot.stored)).filter(([key]) => !unseen.includes(key));
    own.seen = JSON.stringify(Object.fromEntries(seen));
  }
  setSnapshot(session, own);
}

/**
 * A session without a snapshot was saved. Plain objects stay without: they replace the row each
 * time.
 */
export function recordSnapshot(session: object, snapshot: Snapshot): void {
  const prototype = Object.getPrototypeOf(session);
  if (prototype !== Object.prototype && prototype !== null) setSnapshot(session, snapshot);
}

/**
 * Only for the session ID and a row key under which it was loaded: saved under another one, a
 * session is a new one.
 */
export function snapshotFor(session: unknown, sid: string, keys: readonly string[]): Snapshot | undefined {
  const snapshot = (session as Holder)?.[SNAPSHOT];
  return snapshot?.sid === sid && keys.includes(snapshot.key) ? snapshot : undefined;
}

/** Where the app has frozen the session, it stays without one. */
function setSnapshot(session: object, snapshot: Snapshot): void {
  Reflect.defineProperty(session, SNAPSHOT, { value: snapshot, writable: true, configurable: true });
}

export function newSnapshot(
  sid: string,
  row: Omit<StoredRow, 'data' | 'expiresAt'>,
  data: string,
  needsRekey: boolean,
  readFrom: Statements['read'],
): Snapshot {
  const now = performance.now();
  return {
    sid,
    readFrom,
    key: row.key,
    version: row.version,
    seen: data,
    stored: data,
    needsRekey,
    inDoubt: [],
    // `decode` found one.
    cookie: row.cookie as string,
    expiresAt: now + Math.min(row.expiresInMs, row.remainingLifetimeMs),
    endsAt: now + row.remainingLifetimeMs,
  };
}

/** The row has this cookie and expiry now. */
export function noteExpiry(snapshot: Snapshot, { cookie, expires }: Omit<TouchedRow, 'key'>): void {
  snapshot.cookie = cookie;
  if (expires !== null) snapshot.expiresAt = Math.min(performance.now() + expires - Date.now(), snapshot.endsAt);
}
