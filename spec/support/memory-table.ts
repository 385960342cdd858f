/** A table of sessions in memory, which several processes may use at once: rows, locks, and the database's clock. */

import type { ChangedRow, NewRow, TouchedRow } from '../../lib/session/row.js';

/** A row of the table. Times are milliseconds since 1970 by the database's clock, if nothing else is said. */
export interface MemoryRow {
  key: string;
  data: string;
  cookie: string | null;
  cookieExpires: number | null;
  user: string | null;
  version: number;
  /** In microseconds since 1970. No two rows have the same time. */
  createdAt: bigint;
  updatedAt: number;
  expiresAt: number;
  deleteAfter: number;
}

/** How a transaction has locked a row: to change it, or because a row of another table references it. */
export type Lock = 'update' | 'key share';

const DAY = 86_400_000;

/** Each method stands for one statement, which takes effect at one moment. The caller checks locks. */
export class MemoryTable {
  readonly rows = new Map<string, MemoryRow>();
  readonly #locks = new Map<string, Lock>();
  /** How far the database's clock is ahead of this process's, in milliseconds. */
  clockOffset = 0;
  #lastCreated = 0n;

  /** The time by the database's clock. It does not use `Date.now`, which a spec may replace. */
  now(): number {
    return performance.timeOrigin + performance.now() + this.clockOffset;
  }

  isLive(row: MemoryRow, maxLifetimeMs: number): boolean {
    return Math.min(row.expiresAt, createdMs(row) + maxLifetimeMs) > this.now();
  }

  /** Runs `work` while a transaction of somebody else holds a lock on the row. */
  async whileLocked<T>(key: string, lock: Lock, work: () => Promise<T>): Promise<T> {
    this.#locks.set(key, lock);
    try {
      return await work();
    } finally {
      this.#locks.delete(key);
    }
  }

  /** Whether a statement that changes the row, but not its key, would skip it. */
  isLocked(key: string): boolean {
    return this.#locks.get(key) === 'update';
  }

  /** Whether a statement that deletes the row, or changes its key, would skip it. */
  isKeyLocked(key: string): boolean {
    return this.#locks.has(key);
  }

  insert(row: NewRow, maxLifetimeMs: number): void {
    const now = this.now();
    const expiresIn = row.expires - Date.now();
    const expiresAt = Math.min(now + expiresIn, now + maxLifetimeMs);
    const { key, data, cookie, cookieExpires, user, version } = row;
    const times = { createdAt: this.#newCreationTime(), updatedAt: now, expiresAt };
    const deleteAfter = expiresAt + Math.max(0, expiresIn) / 10;
    this.rows.set(key, { key, data, cookie, cookieExpires, user, version, ...times, deleteAfter });
  }

  /** Replaces an existing row. If that row had expired, the new one is a new session. */
  replace(old: MemoryRow, row: NewRow, maxLifetimeMs: number): void {
    const isLive = this.isLive(old, maxLifetimeMs);
    this.insert(row, maxLifetimeMs);
    if (!isLive) return;
    const replaced = this.rows.get(row.key) as MemoryRow;
    replaced.createdAt = old.createdAt;
    replaced.expiresAt = Math.min(replaced.expiresAt, createdMs(old) + maxLifetimeMs);
  }

  update(old: MemoryRow, change: ChangedRow, maxLifetimeMs: number): void {
    const { key, data, cookie, user, version } = change;
    this.rows.delete(old.key);
    const updated = { ...old, key, data, cookie, user, version, updatedAt: this.now() };
    this.rows.set(key, updated);
    if (change.movesExpiry) this.#moveExpiry(updated, change, maxLifetimeMs);
  }

  touch(row: MemoryRow, touched: TouchedRow, maxLifetimeMs: number): void {
    const { cookie, version, overwritesCookie } = touched;
    row.cookie = cookie;
    if (overwritesCookie) row.version = version;
    row.updatedAt = this.now();
    this.#moveExpiry(row, touched, maxLifetimeMs);
  }

  /** Replaces a row by a tombstone, or inserts one. */
  bury(key: string): void {
    const old = this.rows.get(key);
    const now = this.now();
    const times = { createdAt: old?.createdAt ?? this.#newCreationTime(), updatedAt: old?.updatedAt ?? now };
    const empty = { data: 'null', cookie: null, cookieExpires: null, user: null, version: old?.version ?? 1 };
    this.rows.set(key, { key, ...empty, ...times, expiresAt: 0, deleteAfter: now + 400 * DAY });
  }

  #moveExpiry(row: MemoryRow, { cookieExpires, expires }: TouchedRow | ChangedRow, maxLifetimeMs: number): void {
    const expiresIn = expires - Date.now();
    row.cookieExpires = cookieExpires;
    row.expiresAt = Math.min(this.now() + expiresIn, createdMs(row) + maxLifetimeMs);
    row.deleteAfter = row.expiresAt + Math.max(0, expiresIn) / 10;
  }

  #newCreationTime(): bigint {
    const now = BigInt(Math.floor(this.now() * 1000));
    this.#lastCreated = now > this.#lastCreated ? now : this.#lastCreated + 1n;
    return this.#lastCreated;
  }
}

export function createdMs({ createdAt }: MemoryRow): number {
  return Number(createdAt) / 1000;
}
