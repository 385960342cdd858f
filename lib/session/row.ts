/** The rows of sessions, and the interface of the statements that read and write them. It knows no SQL. */

/** A row as it was read. */
export interface StoredRow {
  /** The row key, column `sid`: the session ID as options `prefix`, `secret` and `hashIds` change it. */
  readonly key: string;
  /** Column `data`: JSON, or ciphertext as a JSON string. Empty where the column is null. */
  readonly data: string;
  /** JSON of the cookie; `null` for a session without one. */
  readonly cookie: string | null;
  /** The cookie's `expires` as the app set it: milliseconds since 1970 by the app's clock. `null`: it has none. */
  readonly cookieExpires: number | null;
  readonly version: number;
  /** Milliseconds from the start of the statement until the row expires. If it is 0 or less, the row has expired. */
  readonly expiresInMs: number;
  /**
   * Milliseconds from the start of the statement until `maxLifetime` ends the session; Infinity without that option.
   */
  readonly endsInMs: number;
}

/** A row to be inserted, or to replace an existing row. */
export interface NewRow {
  readonly key: string;
  readonly data: string;
  readonly cookie: string | null;
  readonly cookieExpires: number | null;
  /** The user to whom the session belongs, as the table stores it; `null`: nobody. */
  readonly user: string | null;
  readonly version: number;
  /**
   * When the row expires, in milliseconds since 1970 by the app's clock. The statement sends the time that is left when
   * it is sent, because only the database's clock decides when a row has expired.
   */
  readonly expires: number;
}

/** A row to be changed, if it still has the version that the change is based on. */
export interface ChangedRow extends NewRow {
  /** The row's present key. `key` is its new key, which differs only after a rotation of `secret`. */
  readonly oldKey: string;
  /** The version that the row must have. `version` is the new one. */
  readonly oldVersion: number;
  /** Whether `expires` and `cookieExpires` are written. If it is `false`, the row keeps both. */
  readonly movesExpiry: boolean;
}

/** A row whose expiry is to be put off. */
export interface TouchedRow extends Pick<NewRow, 'key' | 'cookie' | 'cookieExpires' | 'version' | 'expires'> {
  /**
   * With `true` the row gets this cookie and this version, whatever cookie it has. With `false` the row is touched only
   * if it has exactly this cookie, and keeps its version.
   */
  readonly overwritesCookie: boolean;
}

/**
 * Identifies the row of one session for a bulk deletion. It has the time of creation, because a session that was
 * destroyed and created again under the same key is another session.
 */
export interface RowName {
  readonly key: string;
  readonly shard: number | undefined;
  /** When the session was created: the text that PostgreSQL gives for the seconds since 1970, with microseconds. */
  readonly createdAt: string;
  /** The user to whom the row must belong; `undefined`: any user. */
  readonly user: string | undefined;
}

/** Identifies a row that a save wrote, so that a bulk call can delete exactly this version of it. */
export interface WrittenRow {
  readonly key: string;
  readonly version: number;
  readonly user: string | null;
}

/** A user's row, without its data. */
export interface UserRow extends RowName {
  readonly user: string;
  readonly isExpired: boolean;
  /** When the session was last saved or touched, in seconds since 1970. */
  readonly updatedAt: number;
}

/** A row in a listing. Its times are milliseconds since 1970 by the database's clock. */
export interface ListedRow extends StoredRow {
  readonly shard: number | undefined;
  readonly createdAt: number;
  readonly updatedAt: number;
  readonly expiresAt: number;
}

/** An expired row that was deleted. */
export interface ExpiredRow {
  readonly key: string;
  readonly user: string | null;
  /** Whether the row was a session. Otherwise it was a tombstone. */
  readonly wasSession: boolean;
}

/** A row that is watched. */
export interface WatchedRow {
  readonly key: string;
  /** When the watched session was created, as in `RowName`; `undefined` if its row has not been seen yet. */
  readonly createdAt: string | undefined;
}

/** A watched row that is missing, belongs to another session now, or expires soon. */
export interface CheckedRow {
  readonly key: string;
  /** When the session in the row was created; `undefined` if there is no row. */
  readonly createdAt: string | undefined;
  /** Milliseconds until the row expires; zero or less: it has expired. */
  readonly expiresInMs: number;
}

/** A range of row keys in the order of `collate "C"`, including the first one and excluding the second one. */
export type KeyRange = readonly [string, string];

/** The result of a row's deletion: it was deleted, was locked by another transaction, or did not exist. */
export type Deletion = 'deleted' | 'locked' | 'gone';

/**
 * Sends an item with the next statement of its kind.
 *
 * @param deadline on the clock of `performance.now()`, in milliseconds. Nothing is sent or repeated after it.
 */
export type Send<Item, Result> = (item: Item, deadline: number) => Promise<Result>;

/**
 * The statements on single rows. Calls of the same statement are batched.
 *
 * A write resolves with whether the row was written. It is not written if the row is missing, has expired, has another
 * version or cookie than expected, or is locked; `read` tells which of these is the case.
 */
export interface RowStatements {
  /** Reads the row under the first of a session's keys that has a row, even if that row has expired. */
  readonly read: Send<readonly string[], StoredRow | undefined>;
  /** Inserts the row, or replaces the one that is there. */
  readonly replace: Send<NewRow, boolean>;
  /** Inserts the row, unless there is one. */
  readonly insert: Send<NewRow, boolean>;
  update(row: ChangedRow, deadline: number): Promise<boolean>;
  readonly touch: Send<TouchedRow, boolean>;
  /** Deletes the row under this key. */
  readonly destroy: Send<string, boolean>;
  /** Replaces the row under this key by a tombstone, or inserts one. */
  readonly bury: Send<string, boolean>;
  /** Deletes the row if it is still the one that was found. */
  readonly destroyNamed: Send<RowName, Deletion>;
  /** Deletes the row if it is still as a save wrote it. */
  readonly destroyWritten: Send<WrittenRow, Deletion>;
  /**
   * Returns those of the rows that are missing, belong to another session now, or expire soon. It is not batched.
   *
   * @param rows each with another key
   * @param soon the time within which a row expires soon, in seconds
   */
  check(rows: readonly WatchedRow[], soon: number, deadline: number): Promise<CheckedRow[]>;
}

/** A moment by the database's clock, which tells the rows that existed when a call was made from later ones. */
export interface Moment {
  /** The text that PostgreSQL gives for the seconds since 1970, with microseconds. */
  readonly time: string;
}

/**
 * The statements on a table. Those on many rows send several statements if there are more rows than one page. Each
 * statement has a time limit of its own.
 */
export interface Statements {
  /** The statements on single rows of a shard; `undefined` for a table without shards. */
  onShard(shard: number | undefined): RowStatements;
  /** Finds a user's rows within the prefix, including expired ones. Calls that are made together share a statement. */
  readonly findOfUser: Send<string, UserRow[]>;
  /** The user's unexpired rows with their data, the most recently active first. */
  listOfUser(user: string, limit: number): Promise<ListedRow[]>;
  /**
   * The unexpired rows of the prefix, page after page, ordered by shard and key.
   *
   * @param kind the call that they are for, as diagnostics name it
   */
  pages(kind: string): AsyncIterable<ListedRow[]>;
  /** The rows of the prefix that existed at a moment, without tombstones and without data, page after page. */
  names(moment: Moment): AsyncIterable<RowName[]>;
  /** The number of unexpired rows of the prefix. */
  count(): Promise<number>;
  now(): Promise<Moment>;
  /** Deletes the expired rows of all prefixes, and yields the deleted rows page after page. */
  deleteExpired(): AsyncIterable<ExpiredRow[]>;
}
