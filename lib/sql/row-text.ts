/** Reads a row as one text, and parses that text. */

import type { ListedRow, StoredRow } from '../session/row.js';
import type { Row } from './query.js';
import { SEPARATOR, SEPARATOR_SQL } from './statement.js';

/**
 * The columns of a row, joined to one text. Casting, sending, receiving and decoding each column separately would cost
 * server and client more than its content; one text gave 15 % more gets at 128 in flight. The key comes last, because
 * it may contain the separator.
 *
 * Times are `numeric`, so that their text does not depend on the role's settings `DateStyle` and `extra_float_digits`,
 * and because `numeric` can represent `infinity`.
 */
export const ROW_TEXT = `pg_catalog.concat(version, ${SEPARATOR_SQL}, extract(epoch from created_at), ${SEPARATOR_SQL},
    extract(epoch from expires_at), ${SEPARATOR_SQL}, extract(epoch from now()), ${SEPARATOR_SQL},
    cookie_expires::numeric, ${SEPARATOR_SQL}, cookie, ${SEPARATOR_SQL}, data, ${SEPARATOR_SQL}, sid)`;

/** The columns of a row in a listing. On a table with shards, the column `shard::text` follows. */
export const LISTED_COLUMNS = `${ROW_TEXT}, extract(epoch from updated_at)::text`;

/** Parses the rows of results. */
export class RowReader {
  /** How long a session may live, in milliseconds. */
  readonly #maxLifetimeMs: number;

  /** @param maxLifetime seconds */
  constructor(maxLifetime: number | undefined) {
    this.#maxLifetimeMs = maxLifetime === undefined ? Number.POSITIVE_INFINITY : maxLifetime * 1000;
  }

  stored([text]: Row): StoredRow {
    return this.#read(text as string).row;
  }

  listed([text, updatedAt, shard]: Row): ListedRow {
    const { row, createdAt, expiresAt } = this.#read(text as string);
    return {
      ...row,
      createdAt,
      expiresAt,
      updatedAt: Number(updatedAt) * 1000,
      shard: shard === undefined ? undefined : Number(shard),
    };
  }

  #read(text: string) {
    const parts = text.split(SEPARATOR);
    const createdAt = Number(parts[1]) * 1000;
    const now = Number(parts[3]) * 1000;
    const end = createdAt + this.#maxLifetimeMs;
    const expiresAt = Math.min(Number(parts[2]) * 1000, end);
    const row: StoredRow = {
      key: parts.length === 8 ? (parts[7] as string) : parts.slice(7).join(SEPARATOR),
      data: parts[6] as string,
      cookie: parts[5] || null,
      cookieExpires: parts[4] ? Number(parts[4]) : null,
      version: Number(parts[0]),
      expiresInMs: expiresAt - now,
      endsInMs: end - now,
    };
    return { row, createdAt, expiresAt };
  }
}
