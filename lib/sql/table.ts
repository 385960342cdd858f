/** Pieces of SQL that several statements share. */

import { qualified, type TableName } from './query.js';

export interface TableSql {
  /** Schema and table, quoted. */
  readonly name: string;
  /** Whether the table has a column `shard`. */
  readonly isSharded: boolean;
  /** The time at which the row `s` expires. */
  readonly expiry: string;
  /**
   * The condition that the row `s` has not expired. Every call treats an expired session as destroyed, even if its row
   * still exists.
   */
  readonly isLive: string;
  /**
   * The time at which a row expires that is to live for `i.expires_in` milliseconds from now, by the database's clock.
   * It is used in a join of the input `i` and the table `s`.
   */
  readonly newExpiry: string;
  /** The same for a session that is created now. */
  readonly firstExpiry: string;
}

/** The pieces for a table. @param maxLifetime the store's option, in seconds */
export function tableSql(name: TableName, maxLifetime: number | undefined): TableSql {
  const due = `now() + i.expires_in * interval '1 millisecond'`;
  const shared = { name: qualified(name), isSharded: name.shards !== undefined };
  if (maxLifetime === undefined) {
    return { ...shared, expiry: 's.expires_at', isLive: 's.expires_at > now()', newExpiry: due, firstExpiry: due };
  }
  const life = `${maxLifetime}::float8 * interval '1 second'`;
  const expiry = `least(s.expires_at, s.created_at + ${life})`;
  return {
    ...shared,
    expiry,
    isLive: `${expiry} > now()`,
    newExpiry: `least(${due}, s.created_at + ${life})`,
    firstExpiry: `least(${due}, now() + ${life})`,
  };
}

/**
 * When autodelete may delete a new row: a tenth of its lifetime after its expiry, and at most half a year after it.
 *
 * It is used in a join with the input `i` and with `e`, which has the expiry.
 */
export const FIRST_DELETE_AFTER = `e.expires_at +
        least(greatest(i.expires_in, 0::float8) / 10::float8, 15778800000::float8) * interval '1 millisecond'`;

/**
 * When autodelete may delete an existing row `s`. The row keeps its `delete_after` while that lies between the new
 * expiry and a fifth of the lifetime later. So most updates change no indexed column, and are heap-only (PostgreSQL:
 * Heap-Only Tuples): 97 % of single-row updates when it was measured, and none with a `delete_after` that is computed
 * each time.
 */
export const NEXT_DELETE_AFTER = `case
          when s.delete_after between e.expires_at and e.expires_at +
            least(greatest(i.expires_in, 0::float8) / 5::float8, 31557600000::float8) * interval '1 millisecond'
          then s.delete_after
          else ${FIRST_DELETE_AFTER}
        end`;
