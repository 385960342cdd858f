/** `get`: reads rows by their keys. */

import type { StoredRow } from '../session/row.js';
import { arrayLiteral, type BoundQuery, type Row } from './query.js';
import { ROW_TEXT, type RowReader } from './row-text.js';
import { FEW_EXPECTED } from './statement.js';
import type { TableSql } from './table.js';

/**
 * There are two forms, because the one for a single row takes half of the time. All keys of a session are read in one
 * statement, which sees one moment, so a row that is moved from one key to another at the same time is not missed.
 */
export function getStatement({ name, isSharded }: TableSql) {
  return {
    one: `select ${ROW_TEXT} from ${name}
      where ${isSharded ? 'shard = $2::smallint and' : ''} sid = $1::text`,
    many: `with i as materialized (
        select a.key from pg_catalog.unnest($1::text::text[]) as a (key) ${FEW_EXPECTED}
      )
      select ${ROW_TEXT} from i
      join ${name} s on ${isSharded ? 's.shard = $2::smallint and' : ''} s.sid = i.key`,
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
