/** The interfaces of the worlds in which specs of concurrency run: PostgreSQL, and tables in memory. */

import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import type { Loss } from './losing-answers.js';

/** The parts of a row at which specs look. */
export interface SeenRow {
  readonly key: string;
  /** The JSON text of the column. */
  readonly data: string;
  readonly user: string | null;
  readonly version: number;
  /** Milliseconds until it expires. */
  readonly expiresInMs: number;
}

/** Changes of all rows of a table, as SQL by hand makes them. */
export interface Changes {
  readonly data?: string;
  readonly version?: number;
  /** Milliseconds from now until the rows expire. */
  readonly expiresInMs?: number;
  readonly createdAgoMs?: number;
}

export type StatementKind = 'select' | 'insert' | 'update' | 'delete';

/** A store that stands for a process of its own. */
export interface OpenStore {
  readonly store: PgStore;
  /** The kinds of the statements that are sent while `work` runs, which can look at those sent so far. */
  sent(work: (soFar: () => readonly StatementKind[]) => Promise<unknown>): Promise<readonly StatementKind[]>;
}

/** A store whose statements can lose their answers. */
export interface LosingStore extends OpenStore {
  /** Decides what happens to the next statement of a kind. */
  lose(loss: Loss): void;
}

export interface WorldTable {
  /** Opens a store of a process of its own, ready for its first call. */
  open(options?: PgStoreOptions): Promise<OpenStore>;
  openLosing(options?: PgStoreOptions): Promise<LosingStore>;
  /** The rows in the order of their keys. */
  rows(): Promise<SeenRow[]>;
  /** Changes all rows. */
  change(changes: Changes): Promise<void>;
  /** Deletes all rows, as SQL by hand does. */
  deleteAll(how?: 'delete' | 'truncate'): Promise<void>;
  /** Runs `work` while another transaction has locked a session's row. */
  whileLocked<T>(sid: string, work: () => Promise<T>, lock?: 'update' | 'key share'): Promise<T>;
}

export interface World {
  readonly name: string;
  createTable(): Promise<WorldTable>;
  /** For `afterEach`: closes all stores. */
  closeStores(): Promise<void>;
}
