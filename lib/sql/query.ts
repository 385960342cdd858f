/** Types and helpers for statements: values as text, quoted identifiers and array literals. */

import format from 'pg-format';

export type Value = string | null;
export type Row = readonly unknown[];

/**
 * Runs one statement and resolves with its rows, each an array of columns. Every column is cast to text, because
 * clients parse other types, each in its own way.
 *
 * @param deadline the moment at which the statement is given up, in milliseconds on the clock of `performance.now()`
 */
export type Query = (text: string, values: Value[], deadline: number) => Promise<Row[]>;

/** A `Query` to which the deadline has been bound. */
export type BoundQuery = (text: string, values: Value[]) => Promise<Row[]>;

/** The batch of calls that share a statement. */
export interface Batch {
  /** How many calls there are. */
  readonly rows: number;
  /** Returns the milliseconds since the first of these calls. */
  waited(): number;
}

/** Runs the statements of a store: creates the table first, and repeats what failed with a transient error. */
export interface StatementRunner {
  /**
   * @param kind the call that the statements are for, as events and diagnostics name it
   * @param deadline on the clock of `performance.now()`, in milliseconds; nothing is sent or tried again after it
   * @param work must be safe to repeat
   */
  run<T>(kind: string, deadline: number, work: (query: BoundQuery) => Promise<T>, batch?: Batch): Promise<T>;
}

export interface TableName {
  readonly schema: string;
  readonly table: string;
  /** The number of values of the column `shard`; `undefined` for a table without shards. It never changes. */
  readonly shards?: number | undefined;
}

/**
 * A quoted identifier. pg-format does not quote lower-case words that are not reserved, but its list of reserved words
 * is older than the present versions of PostgreSQL, so these are quoted here.
 */
export function identifier(name: string): string {
  const quoted = format.ident(name);
  return quoted.startsWith('"') ? quoted : `"${quoted}"`;
}

/** The quoted name of the table with its schema. */
export function qualified({ schema, table }: TableName): string {
  return `${identifier(schema)}.${identifier(table)}`;
}

/**
 * PostgreSQL's text form of an array. Nulls are not possible, because a role's setting `array_nulls` could turn `NULL`
 * into a text. The client does not serialize arrays, because it infers their type from the first element.
 */
export function arrayLiteral(values: readonly string[]): string {
  return `{${values.map((value) => `"${escaped(value)}"`).join()}}`;
}

function escaped(value: string): string {
  return /["\\]/.test(value) ? value.replace(/["\\]/g, '\\$&') : value;
}
