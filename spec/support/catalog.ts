/** Reads the definition of a table from PostgreSQL's catalog. */

import assert from 'node:assert/strict';
import type { Sql } from 'postgres';

/** The columns, indexes, storage parameters and comment of a table. */
export async function catalogOf(sql: Sql, schema: string, table: string) {
  const [relation] = await sql`
    select c.oid, c.relkind, c.reloptions, obj_description(c.oid, 'pg_class') as comment
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where nspname = ${schema} and relname = ${table}`;
  assert(relation, `${schema}.${table} is missing`);
  const columns = await sql`
    select attname, format_type(atttypid, atttypmod) as type, attnotnull, collname, attgenerated, pg_get_expr(adbin, adrelid) as default
    from pg_attribute a left join pg_collation c on c.oid = attcollation
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where attrelid = ${relation.oid} and attnum > 0 and not attisdropped order by attnum`;
  const indexes = await sql`
    select relname, pg_get_indexdef(indexrelid) as definition, indisprimary, indisunique, indisvalid
    from pg_index join pg_class c on c.oid = indexrelid where indrelid = ${relation.oid} order by relname`;
  return {
    kind: relation.relkind,
    storage: relation.reloptions,
    comment: relation.comment,
    columns: columns.map((column) => ({ ...column })),
    indexes: indexes.map((index) => ({ ...index })),
  };
}
