/** One statement in two forms, for a single row and for many, and how its values are sent. */

import { arrayLiteral, type BoundQuery as Query, type Value } from './query.js';

type Columns = Record<string, string>;

/** One statement in two forms: for a single row, and for many. */
export interface StatementForms {
  readonly one: string;
  readonly many: string;
  /** Which of the values are JSON. */
  readonly json?: readonly boolean[];
}

/** U+001F, never part of JSON's text: JSON.stringify escapes control characters. */
export const SEPARATOR = '\x1f';
/** The same as an SQL literal. */
export const SEPARATOR_SQL = "e'\\x1f'";

/**
 * Puts the input rows before a statement as `i`: scalars for one row, arrays for many. Everything
 * travels as text. In an array's text form each quote must be escaped, which for JSON is dear: its
 * texts travel joined by a separator instead.
 *
 * @param input the columns' types; `json`: the text of JSON
 * @param first the number of the first one's parameter
 */
export function statement(input: Columns, first: number, body: (input: string) => string): StatementForms {
  const columns = Object.entries(input);
  const scalars = Object.entries(scalarsOf(input, first)).map(([name, scalar]) => `${scalar} as ${name}`);
  const arrays = columns.map(([, type], n) => {
    const text = `$${n + first}::text`;
    const array = type === 'json' ? `string_to_array(${text}, ${SEPARATOR_SQL}, '')` : `${text}::${type}[]`;
    return `pg_catalog.unnest(${array})`;
  });
  const names = columns.map(([name]) => name);
  return {
    json: columns.map(([, type]) => type === 'json'),
    // Not a value that the planner knows: of a partitioned table it would plan each call anew.
    one: body(`with i as materialized (select ${scalars.join(', ')})`),
    many: body(`with i as (select * from rows from (${arrays.join(', ')}) as i (${names.join(', ')}))`),
  };
}

export function scalarsOf(input: Columns, first: number): Record<string, string> {
  const scalar = ([name, type]: [string, string], n: number) =>
    [name, `$${n + first}::text::${type === 'json' ? 'text' : type}`] as const;
  return Object.fromEntries(Object.entries(input).map(scalar));
}

export async function run<T extends { readonly key: string }>(
  query: Query,
  forms: StatementForms,
  rows: readonly T[],
  valuesOf: (row: T) => Value[],
): Promise<boolean[]> {
  const [first] = rows;
  if (first && rows.length === 1) {
    const written = await query(forms.one, valuesOf(first));
    return [written.length > 0];
  }
  const values = rows.map(valuesOf);
  const columns = (values[0] ?? []).map((_, n) => {
    const column = values.map((row) => row[n] ?? null);
    return forms.json?.[n] ? column.join(SEPARATOR) : arrayLiteral(column);
  });
  const written = new Set((await query(forms.many, columns)).map(([key]) => key));
  return rows.map((row) => written.has(row.key));
}
