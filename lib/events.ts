/** The events of a store, for what no callback can report. */

import session from 'express-session';

/**
 * Events of a `PgStore` and their listeners' arguments. Sessions are named by their handle: an
 * opaque hash.
 */
export interface PgStoreEvents {
  /** Expired rows were deleted by the timer: how many. If that failed, also why. */
  autodelete: [rows: number, error?: Error];
  /** A transient error; the statement is tried again: for which call, after which attempt, why. */
  retry: [what: string, attempt: number, error: Error];
  /**
   * A row cannot be read (broken JSON, wrong key, changed by hand) and counts as no session: whose,
   * why.
   */
  unreadable: [handle: string, why: string];
  /** A save met another request's save and was merged with it: whose, with how many tries. */
  conflict: [handle: string, tries: number];
  /** A session of the store in option `previous` is kept here from now on: whose. */
  takenOver: [handle: string];
  /**
   * A session was destroyed, or expired, while a request still had it; that request's save or touch
   * was discarded.
   */
  dropped: [handle: string, call: 'set' | 'touch'];
}

export type Emit = <E extends keyof PgStoreEvents>(event: E, ...args: PgStoreEvents[E]) => void;

interface TypedEvents {
  on<E extends keyof PgStoreEvents>(event: E, listener: (...args: PgStoreEvents[E]) => void): this;
  once<E extends keyof PgStoreEvents>(event: E, listener: (...args: PgStoreEvents[E]) => void): this;
  off<E extends keyof PgStoreEvents>(event: E, listener: (...args: PgStoreEvents[E]) => void): this;
}

/** express-session's `Store`, its events with their types. */
export const TypedStore = session.Store as unknown as abstract new () => TypedEvents & session.Store;

/**
 * What a listener throws is no call's failure and no reason to end the process: Node.js warns of
 * it.
 */
export function emitLater(emit: () => void): void {
  process.nextTick(() => {
    try {
      emit();
    } catch (error) {
      process.emitWarning(error instanceof Error ? error : String(error));
    }
  });
}
