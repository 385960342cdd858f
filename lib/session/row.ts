/** What the row of a session holds, and which statements read and write rows. Knows no SQL. */

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
  /** Milliseconds from the statement's start until the row expires; zero or less: it has expired. */
  readonly expiresInMs: number;
  /** Milliseconds until `maxLifetime` ends the session; Infinity without that option. */
  readonly endsInMs: number;
}

/** A row to be inserted, or put in the place of whatever is there. */
export interface NewRow {
  readonly key: string;
  readonly data: string;
  readonly cookie: string | null;
  readonly cookieExpires: number | null;
  /** Whose session it is, as the table stores it; `null`: nobody's. */
  readonly user: string | null;
  readonly version: number;
  /**
   * When the row expires, in milliseconds since 1970 by the app's clock. The statement sends how much of that is left
   * at that moment: the database's clock alone decides when a row has expired.
   */
  readonly expires: number;
}

/** A row to be changed, if it still has the version that the change is based on. */
export interface ChangedRow extends NewRow {
  /** The key under which the row is; `key` is the one that it gets. */
  readonly oldKey: string;
  readonly oldVersion: number;
  /** Whether the row gets this expiry, and its cookie this `expires`. `false`: both stay as they are. */
  readonly movesExpiry: boolean;
}

/** A row whose expiry is to be put off. */
export interface TouchedRow extends Pick<NewRow, 'key' | 'cookie' | 'cookieExpires' | 'version' | 'expires'> {
  /**
   * `true`: the row gets this cookie and this version, whatever it has. `false`: only a row with exactly this cookie is
   * touched, and keeps its version.
   */
  readonly overwritesCookie: boolean;
}

/** Names one row for a deletion of many: a session that was created again under the same key is another one. */
export interface RowName {
  readonly key: string;
  readonly shard: number | undefined;
  /** When the session was created: seconds since 1970 as PostgreSQL prints them, exact to the microsecond. */
  readonly createdAt: string;
  /** Only while the row is this user's; `undefined`: whoever's it is. */
  readonly user: string | undefined;
}

/** A row that was written, as a deletion that follows can name it. */
export interface WrittenRow {
  readonly key: string;
  readonly version: number;
  readonly user: string | null;
}

/** A user's row, without its data. */
export interface UserRow extends RowName {
  readonly user: string;
  readonly isExpired: boolean;
  /** When the session was last saved or touched: seconds since 1970. */
  readonly updatedAt: number;
}

/** A row with what a listing shows. Times are milliseconds since 1970. */
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
  /** `false`: it was a tombstone. */
  readonly wasSession: boolean;
}

/** A row that is watched. */
export interface WatchedRow {
  readonly key: string;
  /** When the session was created that was last seen there, as in `RowName`; `undefined`: none was seen yet. */
  readonly createdAt: string | undefined;
}

/** A watched row that is missing, is not as it was, or expires soon. */
export interface CheckedRow {
  readonly key: string;
  /** When the session was created that is there; `undefined`: there is none. */
  readonly createdAt: string | undefined;
  /** Milliseconds until the row expires; zero or less: it has expired. */
  readonly expiresInMs: number;
}

/** Row keys in the order of `collate "C"`: from the first one, to before the second one. */
export type KeyRange = readonly [string, string];

/** What became of a row that was to be deleted. */
export type Deletion = 'deleted' | 'locked' | 'gone';

/**
 * @param deadline on the clock of `performance.now()`, in milliseconds: later than that nothing is sent or tried again
 */
export type Send<Item, Result> = (item: Item, deadline: number) => Promise<Result>;

/**
 * The statements on single rows, each batched with others of its kind.
 *
 * A write resolves with whether it was done. It was not where the row is missing, has expired, has another version or
 * cookie, or is locked; `read` tells which of these.
 */
export interface RowStatements {
  /** Reads the row under the first of a session's keys that has one; expired rows too, as long as they are there. */
  readonly read: Send<readonly string[], StoredRow | undefined>;
  /** Inserts the row, or replaces the one that is there. */
  readonly replace: Send<NewRow, boolean>;
  /** Inserts the row, unless there is one. */
  readonly insert: Send<NewRow, boolean>;
  update(row: ChangedRow, deadline: number): Promise<boolean>;
  readonly touch: Send<TouchedRow, boolean>;
  /** Deletes the row under this key. */
  readonly destroy: Send<string, boolean>;
  /** Puts a tombstone in the place of the row under this key, or inserts one. */
  readonly bury: Send<string, boolean>;
  readonly destroyNamed: Send<RowName, Deletion>;
  readonly destroyWritten: Send<WrittenRow, Deletion>;
  /**
   * Gives those of the rows, each of another key, that are missing, are not as they were, or expire soon. It is not
   * batched: it is one statement.
   *
   * @param soon seconds
   */
  check(rows: readonly WatchedRow[], soon: number, deadline: number): Promise<CheckedRow[]>;
}

/** Which rows of a prefix were there when a call was made. */
export interface Moment {
  /** Seconds since 1970 by the database's clock. */
  readonly time: string;
}

/**
 * The statements on a table. Those on many rows send several statements where there is much to do; each of these has a
 * time limit of its own.
 */
export interface Statements {
  /** Those on single rows of a shard; of a table without shards, those of `undefined`. */
  onShard(shard: number | undefined): RowStatements;
  /** A user's rows within the prefix, expired ones too; calls that are made together share a statement. */
  readonly findOfUser: Send<string, UserRow[]>;
  /** The user's unexpired rows with their data, newest activity first. */
  listOfUser(user: string, limit: number): Promise<ListedRow[]>;
  /**
   * The unexpired rows of the prefix, page after page, by shard and key.
   *
   * @param kind the call that they are for, as diagnostics name it
   */
  pages(kind: string): AsyncIterable<ListedRow[]>;
  /** The rows of the prefix that were there at that moment, without data, page after page; no tombstones. */
  names(moment: Moment): AsyncIterable<RowName[]>;
  count(): Promise<number>;
  now(): Promise<Moment>;
  /** Deletes expired rows of all prefixes, page after page; gives those that it deleted. */
  deleteExpired(): AsyncIterable<ExpiredRow[]>;
}
