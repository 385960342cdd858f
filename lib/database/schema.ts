/** The table: its DDL, and how any number of processes create it at once. */

import { createHash } from 'node:crypto';
import { codeOf, PgStoreError } from '../errors.js';
import { identifier, type Query, qualified, type TableName } from './query.js';

/** One more with each additive change of the table; kept in the table's comment. */
export const SCHEMA_VERSION = 1;

export function createSchemaSql(schema: string): string {
  return `create schema if not exists ${identifier(schema)};\n`;
}

/** The table and its indexes. `partitions`: hash partitions to make; 0 for a plain table. */
export function createTableSql(name: TableName, partitions = 0): string {
  const table = qualified(name);
  const index = (suffix: string) => identifier(indexName(name.table, suffix));
  const parts = Array.from({ length: partitions }, (_, n) => {
    const part = qualified({ schema: name.schema, table: indexName(name.table, `p${n}`) });
    return `create table if not exists ${part} partition of ${table}
  for values with (modulus ${partitions}, remainder ${n});\n`;
  });
  return `create table if not exists ${table} (
  sid        text collate "C" primary key,
  data       json        not null,
  cookie     json,
  user_id    text,
  version    integer     not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  expires_at timestamptz not null
)${partitions > 0 ? ' partition by hash (sid)' : ''};
${parts.join('')}create index if not exists ${index('expires_at_idx')} on ${table} (expires_at);
create index if not exists ${index('user_id_idx')} on ${table} (user_id) where user_id is not null;
comment on table ${table} is 'express-pg-store schema ${SCHEMA_VERSION}';
`;
}

/**
 * A name made from the table's, within PostgreSQL's 63 bytes: a longer one would be cut, meet another table's, and
 * `if not exists` would then silently skip the index.
 */
export function indexName(table: string, suffix: string): string {
  const plain = `${table}_${suffix}`;
  if (Buffer.byteLength(plain) <= 63) return plain;
  const hash = createHash('sha256').update(table).digest('hex').slice(0, 8);
  const tail = `_${hash}_${suffix}`;
  let head = table;
  while (Buffer.byteLength(head + tail) > 63) head = [...head].slice(0, -1).join('');
  return head + tail;
}

const TABLE_EXISTS_SQL = `select exists (select from pg_catalog.pg_namespace where nspname = $1::text),
  exists (
    select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = $1::text and c.relname = $2::text and c.relkind in ('r', 'p', 'f', 'v'))`;

/**
 * Two processes that create at once meet on the catalog's unique indexes (23505), or find the thing made in between
 * (42P07 table, 42P06 schema, 42710 object), or a row of the catalog changed under them (XX000).
 */
const CONCURRENT_DDL_SQLSTATES = new Set(['23505', '42P07', '42P06', '42710', 'XX000']);

/** Makes what is missing. Looks first: a role without the right to create anything can use a table that is there. */
export async function ensureTable(
  query: Query,
  script: (ddl: string) => Promise<unknown>,
  name: TableName,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const [found] = await query(TABLE_EXISTS_SQL, [name.schema, name.table]);
    const [hasSchema, hasTable] = found ?? [];
    if (hasTable === true) return;
    try {
      // One simple query is one transaction: all of it or nothing.
      await script((hasSchema === true ? '' : createSchemaSql(name.schema)) + createTableSql(name));
      return;
    } catch (error) {
      if (attempt >= 10 || !CONCURRENT_DDL_SQLSTATES.has(codeOf(error))) throw error;
    }
  }
}

/** For apps that run migrations: no DDL, only a look. */
export async function requireTable(query: Query, name: TableName): Promise<void> {
  const [found] = await query(TABLE_EXISTS_SQL, [name.schema, name.table]);
  if (found?.[1] === true) return;
  throw new PgStoreError(`table ${qualified(name)} is missing, and option \`createTable\` is false`, '42P01');
}
