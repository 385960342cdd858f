/** The channels of node:diagnostics_channel for monitoring; free while nobody subscribes. */

import { channel } from 'node:diagnostics_channel';
import { codeOf } from './errors.js';
import type { PgStoreEvents } from './events.js';

/**
 * The messages on each channel. None holds a session's data or ID; `table` is the store's
 * `schema.table`.
 */
export interface PgStoreDiagnostics {
  /** A statement was answered, or failed. */
  'express-pg-store:statement': {
    table: string;
    /** The call that it is for: `get`, `set`, `touch`, `destroy`, `all`, `autodelete`, ... */
    kind: string;
    /** How many calls went into it. */
    rows: number;
    /** Milliseconds from the first of them to this attempt. */
    waitMs: number;
    /** Milliseconds until the answer. */
    runMs: number;
    /** Why it failed, as in `PgStoreError.code`; absent after success. */
    code?: string;
  };
  /** As the events of the same names; here for all stores of the process. */
  'express-pg-store:conflict': { table: string; handle: string; tries: number };
  'express-pg-store:dropped': { table: string; handle: string; call: 'set' | 'touch' };
  'express-pg-store:takenOver': { table: string; handle: string };
  'express-pg-store:unreadable': { table: string; handle: string; why: string };
  'express-pg-store:retry': { table: string; kind: string; attempt: number; error: Error };
  'express-pg-store:autodelete': { table: string; rows: number; error?: Error };
}

const FIELDS = {
  conflict: ['handle', 'tries'],
  dropped: ['handle', 'call'],
  takenOver: ['handle'],
  unreadable: ['handle', 'why'],
  retry: ['kind', 'attempt', 'error'],
  autodelete: ['rows', 'error'],
} as const satisfies Record<keyof PgStoreEvents, readonly string[]>;

const statements = channel('express-pg-store:statement');

/** What is known of a statement that carries several calls. */
export interface Batch {
  readonly rows: number;
  /** Milliseconds since its first call. */
  waited(): number;
}

/** Publishes a statement when it is answered. */
export function traceStatement<T>(
  running: Promise<T>,
  table: string,
  kind: string,
  batch: Batch | undefined,
): Promise<T> {
  if (!statements.hasSubscribers) return running;
  const started = performance.now();
  const message = { table, kind, rows: batch?.rows ?? 1, waitMs: batch?.waited() ?? 0 };
  const publish = (outcome: object) =>
    statements.publish({ ...message, runMs: performance.now() - started, ...outcome });
  running.then(
    () => publish({}),
    (error) => publish({ code: codeOf(error) }),
  );
  return running;
}

/** Publishes an event of a store on its channel. */
export function publish<E extends keyof PgStoreEvents>(table: string, event: E, args: PgStoreEvents[E]): void {
  const events = channel(`express-pg-store:${event}`);
  if (!events.hasSubscribers) return;
  const fields = FIELDS[event].map((field, n) => [field, args[n]]);
  events.publish({ table, ...Object.fromEntries(fields.filter(([, value]) => value !== undefined)) });
}
