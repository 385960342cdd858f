/** `get`: reads rows. */

import type { StoredRow } from '../session/row.js';
import { arrayLiteral, type BoundQuery, type Row } from './query.js';
import { ROW_TEXT, type RowReader } from './row-text.js';
import type { TableSql } from './table.js';

/**
 * Two forms, since `sid = $1` takes 0.04 to 0.07 ms and `sid = any($1)` 0.07 to 0.13 ms for one row. One statement sees
 * one moment: a row that moves from key to key meanwhile is not missed.
 */
export function getStatement({ name, isSharded }: TableSql) {
  return {
    one: `select ${ROW_TEXT} from ${name}
      where ${isSharded ? 'shard = $2::smallint and' : ''} sid = $1::text`,
    many: `select ${ROW_TEXT} from ${name}
      where ${isSharded ? 'shard = $2::smallint and' : ''} sid = any($1::text::text[])`,
  };
}

/** Reads for each session the row under the first of its keys that has one. */
export async function get(
  query: BoundQuery,
  { one, many }: { readonly one: string; readonly many: string },
  sessions: readonly (readonly string[])[],
  shard: number | undefined,
  reader: RowReader,
): Promise<(StoredRow | undefined)[]> {
  const keys = sessions.flat();
  const shardValue = shard === undefined ? [] : [String(shard)];
  if (keys.length === 1) {
    const [row] = await query(one, [keys[0] as string, ...shardValue]);
    return [row && reader.stored(row)];
  }
  const rows = await query(many, [arrayLiteral([...new Set(keys)]), ...shardValue]);
  const found = new Map(rows.map((row: Row) => reader.stored(row)).map((row) => [row.key, row]));
  return sessions.map((own) => {
    const key = own.find((one) => found.has(one));
    return key === undefined ? undefined : found.get(key);
  });
}
