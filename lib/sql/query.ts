/**
 * What a statement is made of: its text, its values as text, quoted identifiers and array literals.
 */

import format from 'pg-format';

export type Value = string | null;
export type Row = readonly unknown[];

/**
 * Runs one statement and resolves with its rows, each an array of columns. Every column is cast to text, because clients
 * parse other types, each in its own way.
 *
 * @param deadline the moment at which the statement is given up, in milliseconds on the clock of `performance.now()`
 */
export type Query = (text: string, values: Value[], deadline: number) => Promise<Row[]>;

/** A `Query` that has its deadline already: what a statement is run with. */
export type BoundQuery = (text: string, values: Value[]) => Promise<Row[]>;

export interface TableName {
  readonly schema: string;
  readonly table: string;
  /** Of a table with a column `shard`: how many values it has. Fixed when the table is created. */
  readonly shards?: number | undefined;
}

/** Statements on one shard have it as their first parameter. */
export function onShard(query: BoundQuery, shard: number | undefined): BoundQuery {
  return shard === undefined ? query : (text, values) => query(text, [String(shard), ...values]);
}

/**
 * A quoted identifier. pg-format leaves plain lower-case words bare, and its list of reserved ones
 * is older than PostgreSQL.
 */
export function identifier(name: string): string {
  const quoted = format.ident(name);
  return quoted.startsWith('"') ? quoted : `"${quoted}"`;
}

export function qualified({ schema, table }: TableName): string {
  return `${identifier(schema)}.${identifier(table)}`;
}

/**
 * PostgreSQL's text form of an array. Not left to the client: it infers an array's type from its
 * first element.
 */
export function arrayLiteral(values: readonly Value[]): string {
  return `{${values.map((value) => (value === null ? 'NULL' : `"${escaped(value)}"`)).join()}}`;
}

function escaped(value: string): string {
  return /["\\]/.test(value) ? value.replace(/["\\]/g, '\\$&') : value;
}
