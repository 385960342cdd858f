/** What a row of a session holds, and which statements read and write it. */

/** A row as it was read. Times are milliseconds, by the database's clock. */
export interface StoredRow {
  readonly key: string;
  readonly data: string;
  readonly cookie: string | null;
  readonly version: number;
  /** When the row expires, since 1970. */
  readonly expiresAt: number;
  /** From the statement's start until the row expires; zero or less: it has. */
  readonly expiresInMs: number;
  /** Until `maxLifetime` ends it; Infinity without. */
  readonly remainingLifetimeMs: number;
}

/** A row to be inserted, or put in place of whatever is there. */
export interface NewRow {
  readonly key: string;
  readonly data: string;
  readonly cookie: string | null;
  readonly user: string | null;
  readonly newVersion: number;
  /** When the row expires: milliseconds since 1970 by the app's clock. */
  readonly expires: number;
}

/**
 * The `data` of a tombstone, a row without a cookie that keeps a destroyed session from being taken
 * over again (option `previous`). No session: neither read, touched, listed nor counted. Autodelete
 * removes it once it has expired.
 */
export const TOMBSTONE = 'null';

export interface TouchedRow {
  readonly key: string;
  readonly cookie: string;
  /**
   * `false`: the cookie is as this request saw it; one that another request changed meanwhile then
   * stays, with its expiry.
   */
  readonly cookieChanged: boolean;
  /** When the row expires, as in `NewRow`; `null`: as it is. */
  readonly expires: number | null;
}

export interface ChangedRow extends TouchedRow {
  readonly newKey: string;
  /** Of the row that the change is based on: a row with another one is left alone. */
  readonly version: number;
  readonly newVersion: number;
  readonly data: string;
  readonly user: string | null;
}

/** A row with the times that a listing shows, since 1970. */
export interface ListedRow extends StoredRow {
  readonly shard: number | undefined;
  readonly createdAt: number;
  readonly updatedAt: number;
}

export type Send<Item, Result> = (item: Item, deadline: number) => Promise<Result>;

/**
 * The statements on single rows, batched. Deadlines are on the clock of `performance.now()`, in
 * milliseconds.
 *
 * A write resolves with whether it was done. Not so where the row is not there, has expired, has
 * another version, is locked, or was changed in this very moment; `read` shows which of these.
 */
export interface Statements {
  /** The row under the first of a session's keys that has one. */
  readonly read: Send<readonly string[], StoredRow | undefined>;
  readonly replace: Send<NewRow, boolean>;
  readonly update: Send<ChangedRow, boolean>;
  readonly touch: Send<TouchedRow, boolean>;
  readonly destroy: Send<string, boolean>;
  /** Writes nothing where there is a row. */
  readonly insert: Send<NewRow, boolean>;
}

/**
 * Clocks of app and database that differ by no more, in milliseconds, are taken for the same; when
 * a row is written, by no more than a tenth of what is left of the session either.
 */
export const CLOCKS_AGREE_MS = 5000;
