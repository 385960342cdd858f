/** Fills and changes tables of sessions by SQL. */

import type { Sql } from 'postgres';

/**
 * Copies the session `model`, which the store has saved, once for each row of `numbers`, and deletes the model. It asks
 * the database for the table's columns, so it works with every version of the table.
 *
 * @param numbers an item of SQL's `from` clause
 * @param values  by column, SQL expressions that replace the model's values; they may use the columns of `numbers`
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

/** Drops the index by which autodelete finds expired rows, also in earlier versions of the table. */
export async function dropDeletionIndex(sql: Sql, table: string): Promise<void> {
  const indexes = await sql<{ name: string }[]>`select indexrelid::regclass::text as name
    from pg_index join pg_attribute on attrelid = indrelid and attnum = any(indkey)
    where indrelid = ${table}::regclass and attname in ('delete_after', 'expires_by')`;
  for (const { name } of indexes) await sql.unsafe(`drop index ${name}`);
}
