/** What a statement is made of: its text, its values as text, quoted identifiers and array literals. */

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

/** A `Query` that has its deadline already: what a statement is run with. */
export type BoundQuery = (text: string, values: Value[]) => Promise<Row[]>;

/** What is known of a statement that carries several calls. */
export interface Batch {
  readonly rows: number;
  /** Milliseconds since its first call. */
  waited(): number;
}

/** Runs the statements of a store: creates the table first, and repeats what failed with a transient error. */
export interface StatementRunner {
  /**
   * @param kind the call that it is for
   * @param deadline on the clock of `performance.now()`, in milliseconds; nothing is sent or tried again after it
   * @param work must be safe to repeat
   */
  run<T>(kind: string, deadline: number, work: (query: BoundQuery) => Promise<T>, batch?: Batch): Promise<T>;
}

export interface TableName {
  readonly schema: string;
  readonly table: string;
  /** How many values the column `shard` has, where the table has one. Fixed when the table is created. */
  readonly shards?: number | undefined;
}

/**
 * A quoted identifier. pg-format leaves plain lower-case words bare, and its list of reserved ones is older than
 * PostgreSQL.
 */
export function identifier(name: string): string {
  const quoted = format.ident(name);
  return quoted.startsWith('"') ? quoted : `"${quoted}"`;
}

export function qualified({ schema, table }: TableName): string {
  return `${identifier(schema)}.${identifier(table)}`;
}

/**
 * PostgreSQL's text form of an array. It holds no `NULL`, which a role's setting `array_nulls` would turn into a text.
 * It is not left to the client, which infers an array's type from its first element.
 */
export function arrayLiteral(values: readonly string[]): string {
  return `{${values.map((value) => `"${escaped(value)}"`).join()}}`;
}

function escaped(value: string): string {
  return /["\\]/.test(value) ? value.replace(/["\\]/g, '\\$&') : value;
}
