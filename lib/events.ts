/** The events of a store, which report what no answer to a call can report, and the diagnostics channels for them. */

import { channel } from 'node:diagnostics_channel';
import session from 'express-session';

/**
 * Events of a `PgStore`, each with its listeners' arguments. A session is named by its handle, an opaque hash of its
 * row key. An error that a listener throws becomes a warning of the process.
 */
export interface PgStoreEvents {
  /** The timer has deleted `rows` expired rows. If that failed, `rows` is 0 and `error` says why. */
  autodelete: [rows: number, error?: Error];
  /**
   * Autodelete has removed an expired session of `user` (`null`: of nobody). Each session is reported at most once
   * among all processes, up to a fifth of its lifetime after it expired.
   */
  expired: [handle: string, user: string | null];
  /**
   * A statement failed with a transient error and is tried again. `kind` is the call that the statement is for, and
   * `attempt` the number of attempts that have failed.
   */
  retry: [kind: string, attempt: number, error: Error];
  /** A row cannot be read and counts as no session. `why` says what is wrong, such as broken JSON or an unknown key. */
  unreadable: [handle: string, why: string];
  /** A save met changes of other requests and was merged with them; it was written at the attempt `tries`. */
  conflict: [handle: string, tries: number];
  /** A session of the store in option `previous` was taken over, and is kept here from now on. */
  takenOver: [handle: string];
  /**
   * A request's `call` was discarded. `'destroyed'`: the session was destroyed, or expired, after the request had
   * loaded it. `'changed hands'`: the user of the session signed out, or another user signed in, after the request had
   * loaded it.
   */
  dropped: [handle: string, call: 'set' | 'touch', why: 'destroyed' | 'changed hands'];
}

/** The names of the events' arguments, in their order. They are the fields of an event's message on its channel. */
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

/** An event's message: an object that has each argument of the event under its name in `FIELDS`. */
type Message<Event extends keyof PgStoreEvents> = { table: string } & {
  [Index in Indices<PgStoreEvents[Event]> as Index extends keyof Fields[Event]
    ? Fields[Event][Index] & string
    : never]: PgStoreEvents[Event][Index];
};

/**
 * The messages on the channels of `node:diagnostics_channel`. There is one channel for statements, and one for each
 * event; they are shared by all stores of the process, so `table` tells these apart (`schema.table`). No message
 * contains a session's data or ID.
 */
export type PgStoreDiagnostics = {
  /** A statement was answered, or has failed. */
  'express-pg-store:statement': StatementMessage;
} & { [Event in keyof PgStoreEvents as `express-pg-store:${Event}`]: Message<Event> };

/** One attempt to run a statement. */
export interface StatementMessage {
  /** The store's table, as `schema.table`. */
  table: string;
  /** The call that the statement is for: `get`, `set`, `touch`, `destroy`, `all`, `autodelete`, … */
  kind: string;
  /** How many calls share the statement. */
  rows: number;
  /** Milliseconds from the first of these calls to the start of this attempt. */
  waitMs: number;
  /** Milliseconds from the start of this attempt to its answer. */
  runMs: number;
  /** Why the attempt failed, as in `PgStoreError.code`; absent after success. */
  code?: string;
}

/** Emits one of the events of a `PgStore`. */
export type Emit = <Event extends keyof PgStoreEvents>(event: Event, ...args: PgStoreEvents[Event]) => void;

interface TypedEvents {
  on<Event extends keyof PgStoreEvents>(event: Event, listener: (...args: PgStoreEvents[Event]) => void): this;
  once<Event extends keyof PgStoreEvents>(event: Event, listener: (...args: PgStoreEvents[Event]) => void): this;
  off<Event extends keyof PgStoreEvents>(event: Event, listener: (...args: PgStoreEvents[Event]) => void): this;
}

/** express-session's `Store`, with the types of `PgStoreEvents` for its events. */
const TypedStore = session.Store as unknown as abstract new () => TypedEvents & session.Store;

/** A store that emits `PgStoreEvents`, and publishes each on its channel. */
export abstract class EventStore extends TypedStore {
  /** The store's table, as `schema.table`. */
  protected abstract readonly tableName: string;

  /**
   * Emits an event, and publishes it on its channel. Listeners run in a later tick, so that the call which caused the
   * event does not wait for them.
   */
  protected readonly notify: Emit = (event, ...args) => {
    if (this.listenerCount(event) > 0) process.nextTick(() => this.#emitSafely(event, args));
    const events = channel(`express-pg-store:${event}`);
    if (events.hasSubscribers) events.publish(this.#message(event, args));
  };

  /** Whether the event has a listener, or its channel a subscriber. */
  protected isHeard(event: keyof PgStoreEvents): boolean {
    return this.listenerCount(event) > 0 || channel(`express-pg-store:${event}`).hasSubscribers;
  }

  #emitSafely(event: keyof PgStoreEvents, args: readonly unknown[]): void {
    try {
      this.emit(event, ...args);
    } catch (error) {
      // An error in a listener concerns neither a call nor the store, so it must not end the process.
      process.emitWarning(error instanceof Error ? error : String(error));
    }
  }

  #message(event: keyof PgStoreEvents, args: readonly unknown[]): object {
    const fields = FIELDS[event].map((field, n) => [field, args[n]]);
    return { table: this.tableName, ...Object.fromEntries(fields.filter(([, value]) => value !== undefined)) };
  }
}
