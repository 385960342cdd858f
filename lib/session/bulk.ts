/** Destroys many sessions at once: those of the prefix, or those of a user. */

import { backOffFromLockedRow } from '../calls/backoff.js';
import type { UnderWay } from '../calls/under-way.js';
import type { PreviousSessions } from './previous.js';
import type { Deletion, RowName, Statements, UserRow, WrittenRow } from './row.js';
import { handleOf, type SessionIds } from './session-id.js';

/** How many rows of one call may be in statements at the same time, which leaves room for the rows of other calls. */
const ROWS_AT_ONCE = 512;

/** The calls of `PreviousSessions` that destroy sessions. */
type PreviousDestroyer = Pick<PreviousSessions, 'clear' | 'destroyRow'>;

/** A session that a `set` is saving. */
export class SavedSession {
  readonly sid: string;
  readonly shard: number | undefined;
  readonly #readUser: () => string | null;
  /** `undefined` until a bulk call has asked for it, because finding the user means parsing the session. */
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

  /** Nobody, if option `user` throws: the save itself then fails with that error, and writes nothing. */
  #userOrNobody(): string | null {
    try {
      return this.#readUser();
    } catch {
      return null;
    }
  }
}

/** The calls of `set` of this process that are under way, with the rows that they write. */
export type Saves = UnderWay<SavedSession, WrittenRow | undefined>;

/**
 * The calls that destroy many sessions. Each of them finds the rows that exist when its statement runs, and deletes
 * exactly these, by key and time of creation, so a session that is created later under the same ID stays. It does not
 * wait for calls on single sessions, nor do these wait for it. The deletion of a locked row is repeated.
 */
export class BulkDestruction {
  readonly #statements: Statements;
  readonly #ids: SessionIds;
  readonly #saves: Saves;
  readonly #previous: PreviousDestroyer | undefined;
  readonly #deadline: () => number;
  readonly #onDestroyed: (key: string) => void;
  /** The deletions of rows that are in statements at this moment. */
  readonly #deletions = new Map<string, Promise<Deletion>>();

  /**
   * @param saves the calls of `set` of this process that are under way
   * @param deadline returns the deadline of a statement that starts now. The call fails if a row is still locked then.
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
   * @param except the ID of a session that stays
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
   * Destroys a user's sessions, except the one in `except` and the most recently active others.
   *
   * @param most how many sessions stay, the one in `except` included
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

  /** Destroys the user's session with this handle. @returns whether a session was destroyed */
  async byHandle(handle: string, user: string): Promise<boolean> {
    const saves = this.#saves.now((save) => save.isOf(user) && this.#hasHandle(save, handle));
    const rows = await this.#statements.findOfUser(user, this.#deadline());
    const destroyed = await this.#destroy(rows.filter(({ key }) => this.#ids.hasHandle(key, handle)));
    return destroyed + (await this.#destroyWritten(saves, (row) => row.user === user)) > 0;
  }

  #hasHandle({ sid }: SavedSession, handle: string): boolean {
    return this.#ids.rowKeysFor(sid).some((key) => handleOf(key) === handle);
  }

  /** The row keys that the session may have. */
  #keysOf(sid: string | undefined): readonly string[] {
    return sid === undefined ? [] : this.#ids.rowKeysFor(sid);
  }

  /** @returns how many of the rows were deleted */
  async #destroy(rows: readonly RowName[]): Promise<number> {
    const deletions = new Deletions();
    await this.#start(rows, deletions);
    return deletions.finish();
  }

  /**
   * Deletes the rows, some at a time. When it resolves, each of them was deleted or has turned out to be locked;
   * `deletions` waits for the locked ones.
   */
  async #start(rows: readonly RowName[], deletions: Deletions): Promise<void> {
    for (let start = 0; start < rows.length; start += ROWS_AT_ONCE) {
      const chunk = rows.slice(start, start + ROWS_AT_ONCE);
      await Promise.all(chunk.map((row) => deletions.start((onLocked) => this.#destroyRow(row, onLocked))));
    }
  }

  async #destroyRow(row: RowName, onLocked: () => void): Promise<boolean> {
    // Only the rows of `clear()` have no user here, and it has cleared the previous store already.
    if (this.#previous && row.user !== undefined) {
      await this.#previous.destroyRow(row);
      this.#onDestroyed(row.key);
      return true;
    }
    // After a rotation of `secret`, a save may have moved the row to another key since it was found.
    for (const key of [row.key, ...this.#ids.otherKeysOf(row.key)]) {
      const destroy = (deadline: number) => this.#destroyNamed({ ...row, key }, deadline);
      if (await this.#untilUnlocked(key, destroy, onLocked)) return true;
    }
    return false;
  }

  /**
   * Deletes a row. If a statement of another call is deleting the same row, it waits for that one, so the number of
   * statements does not grow with the number of calls on one user's sessions. The other call then counts the row.
   */
  #destroyNamed(row: RowName, deadline: number): Promise<Deletion> {
    const { destroyNamed } = this.#statements.onShard(row.shard);
    const id = JSON.stringify([row.shard, row.key, row.createdAt, row.user]);
    const underWay = this.#deletions.get(id);
    if (underWay) {
      return underWay.then(
        (deletion) => (deletion === 'deleted' ? 'gone' : deletion),
        // That call may have had less time.
        () => destroyNamed(row, deadline),
      );
    }
    const deletion = destroyNamed(row, deadline);
    this.#deletions.set(id, deletion);
    const forget = () => this.#deletions.delete(id);
    deletion.then(forget, forget);
    return deletion;
  }

  /**
   * Waits for the saves that were under way when the call was made, and deletes exactly the rows that they wrote. So a
   * session is destroyed too whose `save()` the app did not await before the call, while later saves stay.
   *
   * @param concerns whether a row that was written is one of those to be destroyed
   * @returns how many rows were deleted
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

  /**
   * Repeats a deletion while its row is locked.
   *
   * @param onLocked is called each time that the row was found locked
   * @returns whether the row was deleted
   */
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

/** The deletions of one call. Rows that are locked do not delay the other rows. */
class Deletions {
  #deleted = 0;
  readonly #ofLockedRows = new Set<Promise<boolean>>();

  /**
   * Starts a deletion. Resolves once the row was deleted or has turned out to be locked.
   *
   * @param destroy resolves with whether it deleted the row, and calls `onLocked` if it found the row locked
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
   * Waits for the deletions of locked rows.
   *
   * @returns how many rows were deleted in all
   * @throws PgStoreError `TIMEOUT` if a row stayed locked; the other rows are deleted nevertheless
   */
  async finish(): Promise<number> {
    const results = await Promise.allSettled(this.#ofLockedRows);
    const failure = results.find((result) => result.status === 'rejected');
    if (failure) throw failure.reason;
    return this.#deleted;
  }
}

/** The most recently active session first. Sessions of one batch may have equal times, and are ordered by key. */
function byActivity(one: UserRow, other: UserRow): number {
  if (one.updatedAt !== other.updatedAt) return other.updatedAt - one.updatedAt;
  return one.key < other.key ? -1 : 1;
}
