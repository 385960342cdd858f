/** The statements of a store on a table in memory, where statements that overlap take effect in a random order. */

import { setImmediate } from 'node:timers';
import { type RetryOptions, withRetries } from '../../lib/calls/retry.js';
import type {
  ChangedRow,
  CheckedRow,
  Deletion,
  ExpiredRow,
  KeyRange,
  ListedRow,
  Moment,
  NewRow,
  RowName,
  RowStatements,
  Statements,
  StoredRow,
  TouchedRow,
  UserRow,
  WatchedRow,
  WrittenRow,
} from '../../lib/session/row.js';
import type { Loss } from './losing-answers.js';
import { createdMs, type MemoryRow, type MemoryTable } from './memory-table.js';

/** Rows in one page of a listing. */
const PAGE = 500;

/** Puts concurrent steps into a random order. The same random numbers give the same order. */
export class RandomOrder {
  readonly #random: () => number;
  #waiting: (() => void)[] = [];
  #isScheduled = false;

  /** @param random returns numbers from 0 to below 1 */
  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** Returns `true` with the given probability. */
  happens(probability: number): boolean {
    return probability > 0 && this.#random() < probability;
  }

  /** Resolves in a later turn of the event loop, before or after others that wait. */
  turn(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (this.#isScheduled) return;
      this.#isScheduled = true;
      setImmediate(() => this.#goOn());
    });
  }

  /** Lets about half of those that wait go on, in a random order. The others go on in later turns. */
  #goOn(): void {
    const waiting = this.#waiting;
    const least = Math.ceil(waiting.length / 2);
    this.#waiting = [];
    for (let n = waiting.length - 1; n >= 0; n--) {
      const other = Math.floor(this.#random() * (n + 1));
      const resolve = waiting[other] as () => void;
      waiting[other] = waiting[n] as () => void;
      if (n < least) resolve();
      else this.#waiting.push(resolve);
    }
    this.#isScheduled = this.#waiting.length > 0;
    if (this.#isScheduled) setImmediate(() => this.#goOn());
  }
}

/** The kind of SQL statement that PostgreSQL would run. */
export type Kind = 'select' | 'insert' | 'update' | 'delete';

export interface MemoryOptions {
  readonly order?: RandomOrder | undefined;
  /** The range of the row keys that begin with the store's prefix. */
  readonly range: KeyRange;
  /** The store's option, in seconds. */
  readonly maxLifetime?: number | undefined;
  readonly retry: RetryOptions;
  /** The probability that a write finds its row locked by somebody else's statement. */
  readonly locked?: number | undefined;
}

/** The statements of one store. */
export class MemoryStatements implements Statements, RowStatements {
  readonly #table: MemoryTable;
  readonly #order: RandomOrder;
  readonly #range: KeyRange;
  readonly #maxLifetimeMs: number;
  readonly #retry: RetryOptions;
  readonly #locked: number;
  #loss: Loss | undefined;
  /** The kinds of the statements that were sent. */
  sent: Kind[] = [];

  constructor(table: MemoryTable, { order, range, maxLifetime, retry, locked }: MemoryOptions) {
    this.#table = table;
    this.#order = order ?? new RandomOrder();
    this.#range = range;
    this.#maxLifetimeMs = maxLifetime === undefined ? Number.POSITIVE_INFINITY : maxLifetime * 1000;
    this.#retry = retry;
    this.#locked = locked ?? 0;
  }

  /** Decides what happens to the next statement of a kind. */
  readonly lose = (loss: Loss): void => {
    this.#loss = loss;
  };

  readonly onShard = (): RowStatements => this;

  readonly read = (keys: readonly string[], deadline: number): Promise<StoredRow | undefined> =>
    this.#send('select', deadline, () => {
      const key = keys.find((one) => this.#table.rows.has(one));
      return key === undefined ? undefined : this.#stored(this.#table.rows.get(key) as MemoryRow);
    });

  readonly replace = (row: NewRow, deadline: number): Promise<boolean> =>
    this.#send('insert', deadline, () => {
      if (this.#skips(row.key)) return false;
      const old = this.#table.rows.get(row.key);
      if (old) this.#table.replace(old, row, this.#maxLifetimeMs);
      else this.#table.insert(row, this.#maxLifetimeMs);
      return true;
    });

  readonly insert = (row: NewRow, deadline: number): Promise<boolean> =>
    this.#send('insert', deadline, () => {
      if (this.#table.rows.has(row.key)) return false;
      this.#table.insert(row, this.#maxLifetimeMs);
      return true;
    });

  update(change: ChangedRow, deadline: number): Promise<boolean> {
    return this.#send('update', deadline, () => {
      const { key, oldKey, oldVersion } = change;
      const row = this.#live(oldKey);
      const isMoved = key !== oldKey;
      if (row?.version !== oldVersion) return false;
      if (isMoved ? this.#skipsKey(oldKey) : this.#skips(oldKey)) return false;
      // PostgreSQL would report a violation of the primary key.
      if (isMoved && this.#table.rows.has(key)) return false;
      this.#table.update(row, change, this.#maxLifetimeMs);
      return true;
    });
  }

  readonly touch = (touched: TouchedRow, deadline: number): Promise<boolean> =>
    this.#send('update', deadline, () => {
      const row = this.#live(touched.key);
      if (!row || this.#skips(touched.key)) return false;
      if (!touched.overwritesCookie && row.cookie !== touched.cookie) return false;
      this.#table.touch(row, touched, this.#maxLifetimeMs);
      return true;
    });

  readonly destroy = (key: string, deadline: number): Promise<boolean> =>
    this.#send('delete', deadline, () => !this.#skipsKey(key) && this.#table.rows.delete(key));

  readonly bury = (key: string, deadline: number): Promise<boolean> =>
    this.#send('update', deadline, () => {
      if (this.#skips(key)) return false;
      this.#table.bury(key);
      return true;
    });

  readonly destroyNamed = (name: RowName, deadline: number): Promise<Deletion> =>
    this.#send('delete', deadline, () => {
      const row = this.#table.rows.get(name.key);
      if (!row || creationTime(row) !== name.createdAt) return 'gone';
      if (name.user !== undefined && row.user !== name.user) return 'gone';
      return this.#delete(row);
    });

  readonly destroyWritten = ({ key, version }: WrittenRow, deadline: number): Promise<Deletion> =>
    this.#send('delete', deadline, () => {
      const row = this.#table.rows.get(key);
      return row?.version === version ? this.#delete(row) : 'gone';
    });

  check(rows: readonly WatchedRow[], soon: number, deadline: number): Promise<CheckedRow[]> {
    return this.#send('select', deadline, () =>
      rows.flatMap(({ key, createdAt }) => {
        const row = this.#table.rows.get(key);
        const stored = row && this.#stored(row);
        const isAsItWas = row && creationTime(row) === createdAt && stored && stored.expiresInMs > soon * 1000;
        if (isAsItWas) return [];
        return [{ key, createdAt: row && creationTime(row), expiresInMs: stored?.expiresInMs ?? 0 }];
      }),
    );
  }

  readonly findOfUser = (user: string, deadline: number): Promise<UserRow[]> =>
    this.#send('select', deadline, () =>
      this.#inRange((row) => row.user === user).map((row) => ({
        ...nameOf(row),
        user,
        isExpired: !this.#table.isLive(row, this.#maxLifetimeMs),
        updatedAt: row.updatedAt / 1000,
      })),
    );

  listOfUser(user: string, limit: number): Promise<ListedRow[]> {
    return this.#query('select', () => {
      const rows = this.#inRange((row) => row.user === user && this.#table.isLive(row, this.#maxLifetimeMs));
      rows.sort((one, other) => other.updatedAt - one.updatedAt);
      return rows.slice(0, limit).map((row) => this.#listed(row));
    });
  }

  async *pages(): AsyncGenerator<ListedRow[]> {
    yield* this.#pages(
      (row) => this.#table.isLive(row, this.#maxLifetimeMs),
      (row) => this.#listed(row),
    );
  }

  async *names({ time }: Moment): AsyncGenerator<RowName[]> {
    const wasThere = (row: MemoryRow) => row.createdAt <= BigInt(time) && row.expiresAt > 0;
    yield* this.#pages(wasThere, nameOf);
  }

  count(): Promise<number> {
    return this.#query('select', () => this.#inRange((row) => this.#table.isLive(row, this.#maxLifetimeMs)).length);
  }

  now(): Promise<Moment> {
    return this.#query('select', () => ({ time: String(Math.floor(this.#table.now() * 1000)) }));
  }

  async *deleteExpired(): AsyncGenerator<ExpiredRow[]> {
    yield await this.#query('delete', () => {
      const now = this.#table.now();
      const expired = [...this.#table.rows.values()].filter((row) => row.deleteAfter <= now && row.expiresAt <= now);
      for (const { key } of expired) this.#table.rows.delete(key);
      return expired.map(({ key, user, expiresAt }) => ({ key, user, wasSession: expiresAt > 0 }));
    });
  }

  #query<T>(kind: Kind, statement: () => T): Promise<T> {
    return this.#send(kind, Number.POSITIVE_INFINITY, statement);
  }

  /** Sends a statement, which takes effect in a later turn of the event loop and is answered in a still later one. */
  #send<T>(kind: Kind, deadline: number, statement: () => T): Promise<T> {
    return withRetries(
      this.#retry,
      deadline,
      () => {},
      () => this.#attempt(kind, statement),
    );
  }

  async #attempt<T>(kind: Kind, statement: () => T): Promise<T> {
    this.sent.push(kind);
    const loss = this.#loss?.kind === kind ? this.#loss : undefined;
    if (loss) this.#loss = undefined;
    await this.#order.turn();
    const result = loss?.fault === 'not sent' ? undefined : statement();
    await this.#order.turn();
    if (!loss) return result as T;
    await loss.meanwhile?.();
    throw Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' });
  }

  async *#pages<T>(isListed: (row: MemoryRow) => boolean, shown: (row: MemoryRow) => T): AsyncGenerator<T[]> {
    for (let last = ''; ; ) {
      const rows = await this.#query('select', () => this.#inRange((row) => isAfter(row.key, last) && isListed(row)));
      const page = rows.slice(0, PAGE);
      if (page.length > 0) yield page.map(shown);
      if (page.length < PAGE) return;
      last = page.at(-1)?.key as string;
    }
  }

  /** The rows of the prefix for which `isMeant` is true, in the order of their keys. */
  #inRange(isMeant: (row: MemoryRow) => boolean): MemoryRow[] {
    const [first, end] = this.#range;
    const isInRange = ({ key }: MemoryRow) => (key === first || isAfter(key, first)) && isAfter(end, key);
    const rows = [...this.#table.rows.values()].filter((row) => isMeant(row) && isInRange(row));
    return rows.sort((one, other) => (isAfter(one.key, other.key) ? 1 : -1));
  }

  #live(key: string): MemoryRow | undefined {
    const row = this.#table.rows.get(key);
    return row && this.#table.isLive(row, this.#maxLifetimeMs) ? row : undefined;
  }

  /** Whether a statement that changes the row, but not its key, skips it because it is locked. */
  #skips(key: string): boolean {
    return this.#table.isLocked(key) || this.#order.happens(this.#locked);
  }

  /** Whether a statement that deletes the row, or changes its key, skips it because it is locked. */
  #skipsKey(key: string): boolean {
    return this.#table.isKeyLocked(key) || this.#order.happens(this.#locked);
  }

  #delete(row: MemoryRow): Deletion {
    if (this.#skipsKey(row.key)) return 'locked';
    this.#table.rows.delete(row.key);
    return 'deleted';
  }

  #stored(row: MemoryRow): StoredRow {
    const { key, data, cookie, cookieExpires, version, expiresAt } = row;
    const endsInMs = createdMs(row) + this.#maxLifetimeMs - this.#table.now();
    const expiresInMs = Math.min(expiresAt - this.#table.now(), endsInMs);
    return { key, data, cookie, cookieExpires, version, expiresInMs, endsInMs };
  }

  #listed(row: MemoryRow): ListedRow {
    const times = { createdAt: createdMs(row), updatedAt: row.updatedAt, expiresAt: row.expiresAt };
    return { ...this.#stored(row), ...times, shard: undefined };
  }
}

function creationTime({ createdAt }: MemoryRow): string {
  return String(createdAt);
}

function nameOf(row: MemoryRow): RowName {
  return { key: row.key, shard: undefined, createdAt: creationTime(row), user: undefined };
}

/** Whether a key comes after another one in the order of `collate "C"`. */
function isAfter(one: string, other: string): boolean {
  return Buffer.compare(Buffer.from(one), Buffer.from(other)) > 0;
}
