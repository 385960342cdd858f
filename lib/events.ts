/** The events of a store, for what no answer to a call can report, and the diagnostics channels that carry them. */

import { channel } from 'node:diagnostics_channel';
import session from 'express-session';

/**
 * Events of a `PgStore` and their listeners' arguments. Sessions are named by their handle: an opaque hash. What a
 * listener throws becomes a warning of the process.
 */
export interface PgStoreEvents {
  /** The timer deleted expired rows: how many. If that failed, also why. */
  autodelete: [rows: number, error?: Error];
  /**
   * Autodelete removed an expired session: which one, and whose it was (`null`: nobody's). It comes at most once for
   * each session in all processes, up to a fifth of the session's lifetime after its expiry.
   */
  expired: [handle: string, user: string | null];
  /** A statement failed with a transient error and is tried again: for which call, after which attempt, why. */
  retry: [kind: string, attempt: number, error: Error];
  /** A row cannot be read (broken JSON, wrong key, changed by hand) and counts as no session: which one, why. */
  unreadable: [handle: string, why: string];
  /** A save met another request's save and was merged with it: which session, after how many tries. */
  conflict: [handle: string, tries: number];
  /** A session of the store in option `previous` is kept here from now on: which one. */
  takenOver: [handle: string];
  /**
   * A request's save or touch was discarded: of which session, in which call, and why. `'destroyed'`: the session was
   * destroyed, or expired, while the request still had it. `'changed hands'`: somebody signed out of it, or another
   * user in, while the request ran for the user before.
   */
  dropped: [handle: string, call: 'set' | 'touch', why: 'destroyed' | 'changed hands'];
}

/** The names of the events' arguments, in order: an event is published on the channel of its name with these fields. */
const FIELDS = {
  autodelete: ['rows', 'error'],
  expired: ['handle', 'user'],
  retry: ['kind', 'attempt', 'error'],
  unreadable: ['handle', 'why'],
  conflict: ['handle', 'tries'],
  takenOver: ['handle'],
  dropped: ['handle', 'call', 'why'],
} as const satisfies { [Event in keyof PgStoreEvents]: readonly string[] };

type Fields = typeof FIELDS;
type Indices<Tuple> = Extract<keyof Tuple, `${number}`>;

/** An event as a message: each argument by its name. */
type Message<Event extends keyof PgStoreEvents> = { table: string } & {
  [Index in Indices<PgStoreEvents[Event]> as Index extends keyof Fields[Event]
    ? Fields[Event][Index] & string
    : never]: PgStoreEvents[Event][Index];
};

/**
 * The messages on the channels of `node:diagnostics_channel`. None holds a session's data or ID; `table` is the store's
 * `schema.table`. There is one channel for statements, and one for each event of all stores of the process.
 */
export type PgStoreDiagnostics = {
  /** A statement was answered, or failed. */
  'express-pg-store:statement': StatementMessage;
} & { [Event in keyof PgStoreEvents as `express-pg-store:${Event}`]: Message<Event> };

export interface StatementMessage {
  table: string;
  /** The call that it is for: `get`, `set`, `touch`, `destroy`, `all`, `autodelete`, … */
  kind: string;
  /** How many calls went into it. */
  rows: number;
  /** Milliseconds from the first of these calls to this attempt. */
  waitMs: number;
  /** Milliseconds until the answer. */
  runMs: number;
  /** Why it failed, as in `PgStoreError.code`; absent after success. */
  code?: string;
}

export type Emit = <Event extends keyof PgStoreEvents>(event: Event, ...args: PgStoreEvents[Event]) => void;

interface TypedEvents {
  on<Event extends keyof PgStoreEvents>(event: Event, listener: (...args: PgStoreEvents[Event]) => void): this;
  once<Event extends keyof PgStoreEvents>(event: Event, listener: (...args: PgStoreEvents[Event]) => void): this;
  off<Event extends keyof PgStoreEvents>(event: Event, listener: (...args: PgStoreEvents[Event]) => void): this;
}

/** express-session's `Store`, its events with their types. */
const TypedStore = session.Store as unknown as abstract new () => TypedEvents & session.Store;

/** A store that emits `PgStoreEvents`, and publishes each on its channel. */
export abstract class EventStore extends TypedStore {
  /** `schema.table`, as messages name it. */
  protected abstract readonly tableName: string;

  /** Emits an event in a later tick, so that what a listener does is not part of the call. */
  protected readonly notify: Emit = (event, ...args) => {
    if (this.listenerCount(event) > 0) process.nextTick(() => this.#emitSafely(event, args));
    const events = channel(`express-pg-store:${event}`);
    if (events.hasSubscribers) events.publish(this.#message(event, args));
  };

  /** Whether anybody listens to an event or its channel. */
  protected isHeard(event: keyof PgStoreEvents): boolean {
    return this.listenerCount(event) > 0 || channel(`express-pg-store:${event}`).hasSubscribers;
  }

  #emitSafely(event: keyof PgStoreEvents, args: readonly unknown[]): void {
    try {
      this.emit(event, ...args);
    } catch (error) {
      // What a listener throws is not a call's failure, and not a reason to end the process.
      process.emitWarning(error instanceof Error ? error : String(error));
    }
  }

  #message(event: keyof PgStoreEvents, args: readonly unknown[]): object {
    const fields = FIELDS[event].map((field, n) => [field, args[n]]);
    return { table: this.tableName, ...Object.fromEntries(fields.filter(([, value]) => value !== undefined)) };
  }
}
