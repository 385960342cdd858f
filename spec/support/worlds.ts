/** Where the specs of concurrency run: on PostgreSQL, and on tables in memory. */

import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import type { Loss } from './losing-answers.js';

/** A row as specs look at it. */
export interface SeenRow {
  readonly key: string;
  /** The JSON text of the column. */
  readonly data: string;
  readonly user: string | null;
  readonly version: number;
  /** Milliseconds until it expires. */
  readonly expiresInMs: number;
}

/** What SQL by hand changes in all rows of a table. */
export interface Changes {
  readonly data?: string;
  readonly version?: number;
  /** Milliseconds from now. */
  readonly expiresInMs?: number;
  readonly createdAgoMs?: number;
}

export type StatementKind = 'select' | 'insert' | 'update' | 'delete';

/** A store as a process of its own has it. */
export interface OpenStore {
  readonly store: PgStore;
  /** Gives the kinds of the statements that are sent while `work` runs; it may look at those sent so far. */
  sent(work: (soFar: () => readonly StatementKind[]) => Promise<unknown>): Promise<readonly StatementKind[]>;
}

/** One whose answers a spec can lose. */
export interface LosingStore extends OpenStore {
  /** Decides what becomes of the next statement of a kind. */
  lose(loss: Loss): void;
}

export interface WorldTable {
  /** Opens a store of a process of its own, ready for its first call. */
  open(options?: PgStoreOptions): Promise<OpenStore>;
  openLosing(options?: PgStoreOptions): Promise<LosingStore>;
  /** By key. */
  rows(): Promise<SeenRow[]>;
  /** Changes all rows. */
  change(changes: Changes): Promise<void>;
  /** Deletes all rows, as SQL by hand does. */
  deleteAll(how?: 'delete' | 'truncate'): Promise<void>;
  /** Runs `work` while somebody else's transaction has locked a session's row. */
  whileLocked<T>(sid: string, work: () => Promise<T>, lock?: 'update' | 'key share'): Promise<T>;
}

export interface World {
  readonly name: string;
  createTable(): Promise<WorldTable>;
  /** For `afterEach`: closes all stores. */
  closeStores(): Promise<void>;
}
