/** Whether the table is there, and how any number of processes create it at once. */

import { codeOf, PgStoreError } from '../errors.js';
import { qualified, type TableName } from '../sql/query.js';
import { createSchemaSql, createTableSql } from '../sql/schema.js';
import type { Client } from './client.js';

/** A row where the schema exists, with the table's name and comment where that exists, too. */
const TABLE_SQL = `select c.relname::text, obj_description(c.oid, 'pg_class'::name)
  from pg_catalog.pg_namespace n left join pg_catalog.pg_class c
    on c.relnamespace = n.oid and c.relname = $2::text and c.relkind in ('r', 'p', 'f', 'v')
  where n.nspname = $1::text`;

/**
 * Two processes that create at once meet on the catalog's unique indexes (23505), or find the thing
 * created in between (42P07 table, 42P06 schema, 42710 object), or a row of the catalog changed
 * under them (XX000).
 */
const CONCURRENT_DDL_SQLSTATES = new Set(['23505', '42P07', '42P06', '42710', 'XX000']);

/**
 * Creates what is missing, where option `createTable` allows. Looks first: a role without the right
 * to create anything can use a table that is there.
 */
export async function ensureTable(
  client: Client,
  name: TableName & { readonly createTable: boolean },
  deadline: number,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const [schema] = await client.query(TABLE_SQL, [name.schema, name.table], deadline);
    const [table, comment] = schema ?? [];
    if (table) return checkShards(name, comment);
    if (!name.createTable) {
      throw new PgStoreError(`table ${qualified(name)} is missing, and option \`createTable\` is false`, '42P01');
    }
    try {
      // One simple query is one transaction: all of it or nothing.
      await client.script((schema ? '' : createSchemaSql(name.schema)) + createTableSql(name), deadline);
      return;
    } catch (error) {
      if (attempt >= 10 || !CONCURRENT_DDL_SQLSTATES.has(codeOf(error))) throw error;
    }
  }
}

/** A store that counted on another number of shards would look for each session in a wrong one. */
function checkShards(name: TableName, comment: unknown): void {
  const created = Number(/, (\d+) shards$/.exec(String(comment))?.[1] ?? 0);
  const { shards = 0 } = name;
  if (created === shards) return;
  const hint =
    created > 0 ? '' : `; \`npx express-pg-store schema --shards ${shards}\` prints the SQL that creates one`;
  throw new PgStoreError(
    `table ${qualified(name)} was created with ${created || 'no'} shards, and option \`shards\` is ${shards || 'not set'}${hint}`,
    'SHARDS_MISMATCH',
  );
}
