/** The package's public names. */

export type { RetryOptions } from './calls/retry.js';
export type { Callback } from './calls/tracker.js';
export type { NodePostgresClient, NodePostgresPool } from './client/node-postgres.js';

export { PgStoreError } from './errors.js';
export type { PgStoreDiagnostics, PgStoreEvents, StatementMessage } from './events.js';
export type { PgStoreOptions, PreviousStore, TakeOverOptions } from './options.js';
export { PgStore, PgStore as default } from './pg-store.js';
export type { Merge } from './session/merge.js';
export type { MergeRule, MergeRules } from './session/merge-rules.js';
export type { Change, ListedSession, SessionEnd, UserSession } from './session/public-types.js';
