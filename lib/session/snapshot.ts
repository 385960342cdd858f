/** Snapshots: what a request saw when it loaded its session, and what the row contains since then. */

import type { Content } from './codec.js';
import type { RowStatements, StoredRow } from './row.js';

/** A save that was sent: the version that it gives the row, and the values of `seen` and `stored` after it. */
export type Save = Pick<Snapshot, 'version' | 'seen' | 'stored'>;

/** The state of a session's row as far as one `Session` object knows it. Each save of that object updates it. */
export interface Snapshot {
  readonly sid: string;
  /** Reads rows of the table from which the session was loaded, or into which it was saved last. */
  readFrom: RowStatements['read'];
  key: string;
  version: number;
  /** The content of the session object if the request has changed nothing since it was loaded or saved. */
  seen: Content;
  /** The content of the row. It differs from `seen` after a merge with changes of other requests. */
  stored: Content;
  /** Whether the row was written with an older `secret` or `encryptionKey`. The next save rewrites it in any case. */
  needsRekey: boolean;
  /** Saves that got no answer, the oldest first. Each of them may or may not have been written. */
  inDoubt: readonly Save[];
  /**
   * The `expires` of the session's cookie if the request has not changed it since the session was loaded or saved, in
   * milliseconds since 1970; `null` if it has none.
   */
  cookieExpires: number | null;
  /** When the row expires, in milliseconds on the clock of `performance.now()`. */
  expiresAt: number;
  /** When `maxLifetime` ends the session, on the same clock; Infinity without that option. */
  readonly endsAt: number;
}

/**
 * A snapshot is a hidden property of its session, so that it is found through a Proxy and by other stores. A WeakMap
 * would not be, and would cost the garbage collector nearly as much time as the rest of a `get`. The symbols are
 * registered (`Symbol.for`), so that the package's two builds find each other's snapshots.
 *
 * `LOADED` marks the data that `get` returns, `SNAPSHOT` a session that an app can change and save.
 */
const LOADED = Symbol.for('express-pg-store.loaded');
const SNAPSHOT = Symbol.for('express-pg-store.snapshot');

type Holder = { [LOADED]?: Snapshot; [SNAPSHOT]?: Snapshot } | null | undefined;

/**
 * Attaches a snapshot to the data that `get` returns. They become a session only when express-session calls
 * `createSession`.
 *
 * The snapshot contains JSON texts, which are parsed again only if a save meets another one. So a `get` parses each
 * session only once.
 */
export function attachSnapshot(data: object, snapshot: Snapshot): void {
  Object.defineProperty(data, LOADED, { value: snapshot });
}

/** The snapshot of data that `get` has returned. */
export function loadedSnapshot(data: unknown): Snapshot | undefined {
  return (data as Holder)?.[LOADED];
}

/**
 * Copies the snapshot of data to the session that `createSession` has created from these data.
 *
 * A `Session` does not take over keys that it has itself (`id`, `req`, `save`, `toString`, `__proto__`). The request
 * does not see these keys of the data, so they are removed from `seen`. Otherwise a save would take their absence for a
 * removal.
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
 * Gives a session that was saved without a snapshot the snapshot of the row that it wrote. A plain object gets none, so
 * that each save with it replaces the row.
 */
export function recordSnapshot(session: object, snapshot: Snapshot): void {
  const prototype = Object.getPrototypeOf(session);
  if (prototype !== Object.prototype && prototype !== null) setSnapshot(session, snapshot);
}

/**
 * The snapshot of a session; `undefined` if it is saved under another session ID or row key than it was loaded with,
 * because it is then a new session.
 */
export function snapshotFor(session: unknown, sid: string, keys: readonly string[]): Snapshot | undefined {
  const snapshot = (session as Holder)?.[SNAPSHOT];
  return snapshot?.sid === sid && keys.includes(snapshot.key) ? snapshot : undefined;
}

/** Whether the session itself has a snapshot of this session ID. */
export function hasSnapshot(session: unknown, sid: string): boolean {
  return (session as Holder)?.[SNAPSHOT]?.sid === sid;
}

/** How long a loaded session is remembered after its `get`, or after its last `set` or `touch`, in milliseconds. */
export const REMEMBERED_MS = 10 * 60 * 1000;

/**
 * Has the snapshot of a session that a framework has created from data of `get` in its own way, without calling
 * `createSession`.
 */
export class LoadedSession {
  /** The snapshot of the data that `get` returned. */
  readonly loaded: Snapshot;
  /** A copy of it, which saves update. */
  readonly [SNAPSHOT]: Snapshot;
  /** Until when the load is remembered, in milliseconds on the clock of `performance.now()`. */
  rememberedUntil = 0;
  /** The session that was last taken for one that was made from the load. */
  #session: WeakRef<object> | undefined;

  constructor(loaded: Snapshot) {
    this.loaded = loaded;
    this[SNAPSHOT] = { ...loaded };
    this.remember();
  }

  /** The content of the session if the request has changed nothing since its last save. */
  get seen(): Content {
    return this[SNAPSHOT].seen;
  }

  /** Whether the session is the very data that were loaded, or was noted. */
  isOf(session: object): boolean {
    return loadedSnapshot(session) === this.loaded || this.#session?.deref() === session;
  }

  noteSession(session: object): void {
    this.#session = new WeakRef(session);
  }

  remember(): void {
    this.rememberedUntil = performance.now() + REMEMBERED_MS;
  }

  forget(): void {
    this.rememberedUntil = Number.NEGATIVE_INFINITY;
  }
}

/**
 * The snapshot for a touch of a session. Data that `get` has returned are good enough, because a touch does not write
 * data that the request may have changed.
 */
export function snapshotForTouch(session: unknown, sid: string, keys: readonly string[]): Snapshot | undefined {
  const snapshot = snapshotFor(session, sid, keys) ?? loadedSnapshot(session);
  return snapshot?.sid === sid && keys.includes(snapshot.key) ? snapshot : undefined;
}

/** Attaches a snapshot to a session. If the app has frozen the session, that fails silently. */
function setSnapshot(session: object, snapshot: Snapshot): void {
  Reflect.defineProperty(session, SNAPSHOT, { value: snapshot, writable: true, configurable: true });
}

/**
 * The snapshot of a row that was just read or written.
 *
 * @param content the content of the row and of the session
 * @param cookieExpires the `expires` of the session's cookie
 */
export function newSnapshot(
  sid: string,
  row: Pick<StoredRow, 'key' | 'version' | 'expiresInMs' | 'endsInMs'>,
  content: Content,
  cookieExpires: number | null,
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
    cookieExpires,
    expiresAt: now + Math.min(row.expiresInMs, row.endsInMs),
    endsAt: now + row.endsInMs,
  };
}

/**
 * Notes that the row's expiry was written.
 *
 * @param expires in milliseconds since 1970 by the app's clock; `maxLifetime` may end the session earlier
 */
export function noteExpiry(snapshot: Snapshot, expires: number): void {
  snapshot.expiresAt = Math.min(performance.now() + expires - Date.now(), snapshot.endsAt);
}
