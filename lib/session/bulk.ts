/** Destroys many sessions at once: those of the prefix, or those of a user. */

import { backOffFromLockedRow } from '../calls/backoff.js';
import type { UnderWay } from '../calls/under-way.js';
import type { Deletion, RowName, Statements, UserRow, WrittenRow } from './row.js';
import { handleOf, type SessionIds } from './session-id.js';

/**
 * How many rows of one call may be in statements at the same time, so that those of other calls have room beside them.
 */
const ROWS_AT_ONCE = 512;

/** The store in option `previous`, as far as it takes part. */
export interface PreviousDestroyer {
  clear(): Promise<void>;
  /** Destroys the session of a row in both stores. @returns whether it is gone here */
  destroyRow(row: Pick<RowName, 'key' | 'shard'>): Promise<void>;
}

/** The session that a `set` saves which is under way. */
export class SavedSession {
  readonly sid: string;
  readonly shard: number | undefined;
  readonly #readUser: () => string | null;
  /** `undefined` until a call on many sessions has asked: reading it means parsing the session. */
  #user: string | null | undefined;

  constructor(sid: string, shard: number | undefined, readUser: () => string | null) {
    this.sid = sid;
    this.shard = shard;
    this.#readUser = readUser;
  }

  isOf(user: string): boolean {
    if (this.#user === undefined) this.#user = this.#userOrNobody();
    return this.#user === user;
  }

  /** Where option `user` throws, the save itself fails with that error, and writes nothing. */
  #userOrNobody(): string | null {
    try {
      return this.#readUser();
    } catch {
      return null;
    }
  }
}

export type Saves = UnderWay<SavedSession, WrittenRow | undefined>;

/**
 * Each of these calls finds the rows that are there at the moment of its statement, and deletes exactly these: found by
 * key and time of creation, so a session that is created later under the same ID stays. It waits for no call on a
 * session and no such call waits for it. Locked rows are skipped, and tried again.
 */
export class BulkDestruction {
  readonly #statements: Statements;
  readonly #ids: SessionIds;
  readonly #saves: Saves;
  readonly #previous: PreviousDestroyer | undefined;
  readonly #deadline: () => number;
  readonly #onDestroyed: (key: string) => void;

  /**
   * @param saves calls of `set` of this process that are under way
   * @param deadline of a statement that starts now; a row that is locked until then fails the call
   * @param onDestroyed gets the key of each row that was deleted
   */
  constructor(
    statements: Statements,
    ids: SessionIds,
    saves: Saves,
    previous: PreviousDestroyer | undefined,
    deadline: () => number,
    onDestroyed: (key: string) => void,
  ) {
    this.#statements = statements;
    this.#ids = ids;
    this.#saves = saves;
    this.#previous = previous;
    this.#deadline = deadline;
    this.#onDestroyed = onDestroyed;
  }

  /** Destroys all sessions of the prefix. */
  async all(): Promise<void> {
    const saves = this.#saves.now(() => true);
    await this.#previous?.clear();
    const moment = await this.#statements.now();
    const deletions = new Deletions();
    for await (const rows of this.#statements.names(moment)) await this.#start(rows, deletions);
    await deletions.finish();
    await this.#destroyWritten(saves, () => true);
  }

  /**
   * Destroys a user's sessions.
   *
   * @param except the session ID of one that stays
   * @returns how many rows were deleted, expired ones included
   */
  async ofUser(user: string, except: string | undefined): Promise<number> {
    const kept = this.#keysOf(except);
    const saves = this.#saves.now((save) => save.sid !== except && save.isOf(user));
    const rows = await this.#statements.findOfUser(user, this.#deadline());
    const destroyed = await this.#destroy(rows.filter(({ key }) => !kept.includes(key)));
    return destroyed + (await this.#destroyWritten(saves, (row) => row.user === user && !kept.includes(row.key)));
  }

  /**
   * Destroys a user's sessions, all but the excepted one and the most recently active others.
   *
   * @param most how many stay in all
   * @returns how many rows were deleted, expired ones included
   */
  async limitOfUser(user: string, most: number, except: string | undefined): Promise<number> {
    const kept = this.#keysOf(except);
    const others = (await this.#statements.findOfUser(user, this.#deadline())).filter(({ key }) => !kept.includes(key));
    const places = Math.max(0, except === undefined ? most : most - 1);
    const unexpired = others.filter(({ isExpired }) => !isExpired).sort(byActivity);
    const staying = new Set(unexpired.slice(0, places));
    return this.#destroy(others.filter((row) => !staying.has(row)));
  }

  /** Destroys the user's session with this handle. @returns whether there was one */
  async byHandle(handle: string, user: string): Promise<boolean> {
    const saves = this.#saves.now((save) => save.isOf(user) && this.#hasHandle(save, handle));
    const rows = await this.#statements.findOfUser(user, this.#deadline());
    const destroyed = await this.#destroy(rows.filter(({ key }) => this.#ids.hasHandle(key, handle)));
    return destroyed + (await this.#destroyWritten(saves, (row) => row.user === user)) > 0;
  }

  #hasHandle({ sid }: SavedSession, handle: string): boolean {
    return this.#ids.rowKeysFor(sid).some((key) => handleOf(key) === handle);
  }

  #keysOf(sid: string | undefined): readonly string[] {
    return sid === undefined ? [] : this.#ids.rowKeysFor(sid);
  }

  /** @returns how many of the rows were deleted */
  async #destroy(rows: readonly RowName[]): Promise<number> {
    const deletions = new Deletions();
    await this.#start(rows, deletions);
    return deletions.finish();
  }

  /** Deletes the rows, some at a time; those that are locked are still being deleted when it resolves. */
  async #start(rows: readonly RowName[], deletions: Deletions): Promise<void> {
    for (let start = 0; start < rows.length; start += ROWS_AT_ONCE) {
      const chunk = rows.slice(start, start + ROWS_AT_ONCE);
      await Promise.all(chunk.map((row) => deletions.start((onLocked) => this.#destroyRow(row, onLocked))));
    }
  }

  async #destroyRow(row: RowName, onLocked: () => void): Promise<boolean> {
    if (this.#previous && row.user !== undefined) {
      await this.#previous.destroyRow(row);
      this.#onDestroyed(row.key);
      return true;
    }
    const { destroyNamed } = this.#statements.onShard(row.shard);
    // A save may have moved it to the key of a newer secret since it was found.
    for (const key of [row.key, ...this.#ids.otherKeysOf(row.key)]) {
      const destroy = (deadline: number) => destroyNamed({ ...row, key }, deadline);
      if (await this.#untilUnlocked(key, destroy, onLocked)) return true;
    }
    return false;
  }

  /**
   * Waits for saves that were under way when the call was made, and deletes exactly what they wrote: so a `save()` that
   * the app did not await before the call is destroyed too, and what is saved later stays.
   */
  async #destroyWritten(saves: ReturnType<Saves['now']>, concerns: (row: WrittenRow) => boolean): Promise<number> {
    const deletions = saves.map(async ({ subject, ended }) => {
      const row = await ended.catch(() => undefined);
      if (!row || !concerns(row)) return false;
      const { destroyWritten } = this.#statements.onShard(subject.shard);
      const isDeleted = await this.#untilUnlocked(row.key, (deadline) => destroyWritten(row, deadline));
      if (isDeleted) await this.#previous?.destroyRow({ key: row.key, shard: subject.shard });
      return isDeleted;
    });
    return (await Promise.all(deletions)).filter((isDeleted) => isDeleted).length;
  }

  /** Tries a deletion again while its row is locked. @returns whether it deleted the row */
  async #untilUnlocked(
    key: string,
    destroy: (deadline: number) => Promise<Deletion>,
    onLocked: () => void = () => {},
  ): Promise<boolean> {
    const deadline = this.#deadline();
    for (let tries = 1; ; tries++) {
      const deletion = await destroy(deadline);
      if (deletion === 'deleted') this.#onDestroyed(key);
      if (deletion !== 'locked') return deletion === 'deleted';
      onLocked();
      await backOffFromLockedRow(tries, deadline);
    }
  }
}

/** The deletions of one call. Those of locked rows go on beside the others, which do not wait for them. */
class Deletions {
  #deleted = 0;
  readonly #ofLockedRows = new Set<Promise<boolean>>();

  /**
   * Starts a deletion. Resolves once it is done, or its row has turned out to be locked.
   *
   * @param destroy resolves with whether it deleted the row; it calls `onLocked` where it has to try again
   */
  start(destroy: (onLocked: () => void) => Promise<boolean>): Promise<void> {
    return new Promise((resolve, reject) => {
      const deletion = destroy(() => {
        this.#ofLockedRows.add(deletion);
        resolve();
      });
      deletion.then((isDeleted) => {
        if (isDeleted) this.#deleted++;
        resolve();
      }, reject);
    });
  }

  /**
   * Waits for the rows that are locked.
   *
   * @returns how many rows were deleted
   * @throws PgStoreError `TIMEOUT` where one stayed locked; all others are deleted
   */
  async finish(): Promise<number> {
    const results = await Promise.allSettled(this.#ofLockedRows);
    const failure = results.find((result) => result.status === 'rejected');
    if (failure) throw failure.reason;
    return this.#deleted;
  }
}

/** Newest activity first; by key where a batch gave two sessions the same time. */
function byActivity(one: UserRow, other: UserRow): number {
  if (one.updatedAt !== other.updatedAt) return other.updatedAt - one.updatedAt;
  return one.key < other.key ? -1 : 1;
}
