/** Statements on rows: their forms for one row and for many, and how their input is passed to PostgreSQL. */

import { arrayLiteral, type BoundQuery, type Row } from './query.js';

/**
 * A statement that takes rows as its input. The form for one row plans and runs faster; the form for many takes each
 * column of the input as an array.
 *
 * Both forms begin with the input rows as `i`, in a materialized CTE. The planner does not know the values in it, so it
 * plans a statement on a partitioned table once, and not for each call. Types match exactly, and `unnest` is written
 * with its schema, so that no function that others have created in the search path is a better match (CVE-2018-1058).
 */
export interface RowStatement<Item> {
  readonly one: string;
  readonly many: string;
  /** The values of an item, in the order of the parameters. None is null; the SQL converts some values to null. */
  values(item: Item): readonly string[];
  /** The indexes of the values that are JSON. */
  readonly json: readonly number[];
}

/**
 * U+001F separates JSON texts in one value. JSON.stringify escapes control characters, so no JSON text contains it. A
 * PostgreSQL array would be slower, because each of JSON's many quotes would have to be escaped.
 */
export const SEPARATOR = '\x1f';
/** The same as an SQL literal. */
export const SEPARATOR_SQL = "e'\\x1f'";

/**
 * Ends the input rows of a form for many. The limit omits no row, but makes the planner expect few rows: it assumes a
 * tenth of the rows for a limit whose value it does not know. So it plans to look up each row by its key. Without the
 * limit, a statement that was planned while the table was small would read the whole table, and PostgreSQL keeps that
 * plan until the connection ends or the table is analyzed (7 ms instead of 2 ms with 10,000 rows). Citus refuses a
 * sub-select as a limit.
 */
export const FEW_EXPECTED = 'limit pg_catalog.cardinality($1::text::text[])';

/** Runs a statement on items. On a table with shards, the shard is the last parameter. */
export function run<Item>(
  query: BoundQuery,
  statement: RowStatement<Item>,
  items: readonly Item[],
  shard: number | undefined,
): Promise<Row[]> {
  const [first] = items;
  const isOne = items.length === 1 && first !== undefined;
  const values = isOne ? [...statement.values(first)] : columns(statement, items);
  if (shard !== undefined) values.push(String(shard));
  return query(isOne ? statement.one : statement.many, values);
}

/**
 * Runs a statement that returns, for each row that it wrote, the columns that identify the row: its key, and perhaps
 * its version.
 *
 * @param idOf returns the same columns of an item, joined by a space
 * @returns for each item whether it was written
 */
export async function write<Item>(
  query: BoundQuery,
  statement: RowStatement<Item>,
  items: readonly Item[],
  shard: number | undefined,
  idOf: (item: Item) => string,
): Promise<boolean[]> {
  const rows = await run(query, statement, items, shard);
  if (items.length === 1) return [rows.length > 0];
  const written = new Set(rows.map((columns) => columns.join(' ')));
  return items.map((item) => written.has(idOf(item)));
}

function columns<Item>({ json, values }: RowStatement<Item>, items: readonly Item[]): string[] {
  const rows = items.map(values);
  const count = rows[0]?.length ?? 0;
  return Array.from({ length: count }, (_, n) => {
    const column = rows.map((row) => row[n] as string);
    return json.includes(n) ? column.join(SEPARATOR) : arrayLiteral(column);
  });
}
