/** What a request saw when it loaded its session, and what the row has held since. */

/** A save as it was sent: the version that it gives the row, and a snapshot's `seen`, `stored` and `cookie` after it. */
export type Save = Pick<Snapshot, 'version' | 'seen' | 'stored' | 'cookie'>;

/** The state of a session's row as one `Session` object knows it. Changes with each of that object's saves. */
export interface Snapshot {
  readonly sid: string;
  key: string;
  version: number;
  /** JSON that the request holds if it changed nothing. */
  seen: string;
  /** JSON that the row holds. Differs from `seen` after a merge brought in what others changed. */
  stored: string;
  /** An old `secret` or `encryptionKey` made the row: the next save writes it anew, also with nothing changed. */
  needsRekey: boolean;
  /** Saves that got no answer, oldest first: the row may be as any of them left it. */
  inDoubt: readonly Save[];
  cookie: string;
  /** When the row expires, and when `maxLifetime` ends it; on the clock of `performance.now()`, in milliseconds. */
  expiresAt: number;
  readonly endsAt: number;
}

/**
 * Hides a snapshot in the data that `get` answers with. A WeakMap would do, but an entry in one costs the garbage collector
 * nearly as much as all the rest of a `get`.
 */
const SNAPSHOT = Symbol('snapshot');

/**
 * Remembers snapshots as long as the objects live to which they belong.
 *
 * JSON is kept as text and parsed again only where a save meets another one: reading stays free.
 */
export class Snapshots {
  readonly #ofSession = new WeakMap<object, Snapshot>();

  /** The data that `get` answers with: not yet anybody's session. */
  attach(data: object, snapshot: Snapshot): void {
    Object.defineProperty(data, SNAPSHOT, { value: snapshot });
  }

  /**
   * `createSession` created a session from data that `get` answered with.
   *
   * A `Session` adopts no key that it has already (`id`, `req`, `save`, `toString`, `__proto__`), and has those where they
   * are not enumerable: such keys were not seen, so their absence is no removal.
   */
  transfer(data: object, session: object): void {
    const snapshot = (data as { [SNAPSHOT]?: Snapshot })[SNAPSHOT];
    if (!snapshot) return;
    const unseen = Object.keys(data).filter((key) => !Object.prototype.propertyIsEnumerable.call(session, key));
    if (unseen.length === 0) this.#ofSession.set(session, { ...snapshot });
    else {
      const seen = Object.entries(JSON.parse(snapshot.stored)).filter(([key]) => !unseen.includes(key));
      this.#ofSession.set(session, { ...snapshot, seen: JSON.stringify(Object.fromEntries(seen)) });
    }
  }

  /** A session without a snapshot was saved. Plain objects stay without: they replace the row each time. */
  record(session: object, snapshot: Snapshot): void {
    const prototype = Object.getPrototypeOf(session);
    if (prototype !== Object.prototype && prototype !== null) this.#ofSession.set(session, snapshot);
  }

  /** Only for the session ID under which it was loaded: saved under another one, a session is a new one. */
  of(session: unknown, sid: string): Snapshot | undefined {
    const snapshot = this.#ofSession.get(session as object);
    return snapshot?.sid === sid ? snapshot : undefined;
  }
}
