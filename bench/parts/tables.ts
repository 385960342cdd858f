/** Tables of sessions that the benchmark fills or changes by SQL. */

import type { Sql } from 'postgres';

/**
 * Copies the session `model`, which the store itself has saved, as often as `numbers` has rows, and deletes it. The
 * columns are asked for, so that this goes with each version of the table.
 *
 * @param numbers the rows: SQL that follows `from`, with its columns
 * @param values  SQL by column, in place of the model's value
 */
export async function copyModel(
  sql: Sql,
  table: string,
  numbers: string,
  values: Readonly<Record<string, string>>,
): Promise<void> {
  const columns = await sql<{ name: string }[]>`select attname as name from pg_attribute
    where attrelid = ${table}::regclass and attnum > 0 and not attisdropped and attgenerated = ''`;
  const names = columns.map(({ name }) => name);
  const expressions = names.map((name) => values[name] ?? `model.${name}`);
  await sql.unsafe(
    `insert into ${table} (${names.join(', ')}) select ${expressions.join(', ')} from ${table} model, ${numbers} where model.sid = 'model'`,
  );
  await sql`delete from ${sql(table)} where sid = 'model'`;
}

/** The index by which expired rows are found. */
export async function dropDeletionIndex(sql: Sql, table: string): Promise<void> {
  const indexes = await sql<{ name: string }[]>`select indexrelid::regclass::text as name
    from pg_index join pg_attribute on attrelid = indrelid and attnum = any(indkey)
    where indrelid = ${table}::regclass and attname in ('delete_after', 'expires_by')`;
  for (const { name } of indexes) await sql.unsafe(`drop index ${name}`);
}
