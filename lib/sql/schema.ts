/** The DDL that creates the table. */

import { createHash } from 'node:crypto';
import format from 'pg-format';
import { identifier, qualified, type TableName } from './query.js';

/** The version of the table, which the table's comment contains. Each additive change of the table increments it. */
const SCHEMA_VERSION = 1;

/**
 * The table's columns with their types, as PostgreSQL's function format_type() names them. The store compares an
 * existing table with these.
 */
export const COLUMNS: Readonly<Record<string, string>> = {
  sid: 'text',
  data: 'json',
  cookie: 'json',
  cookie_expires: 'double precision',
  user_id: 'text',
  version: 'integer',
  created_at: 'timestamp with time zone',
  updated_at: 'timestamp with time zone',
  expires_at: 'timestamp with time zone',
  delete_after: 'timestamp with time zone',
};

/** The additional column of a table with shards. */
export const SHARD_COLUMN: Readonly<Record<string, string>> = { shard: 'smallint' };

/**
 * Takes an advisory lock, so that the stores of a database create tables one after the other. Two transactions that run
 * `create … if not exists` at the same time can fail by a violation of the catalog's unique indexes, or by a deadlock.
 * The lock ends with the transaction, so it also works through a pooler. Its number is the beginning of the SHA-256
 * hash of "express-pg-store".
 *
 * What another process has created meanwhile is skipped, with a notice that Postgres.js (option `sql`) would print to
 * the console. So there are no notices in this transaction.
 */
export const CREATION_LOCK_SQL = `select pg_catalog.pg_advisory_xact_lock(24430145236162994::bigint),
  pg_catalog.set_config('client_min_messages'::text, 'warning'::text, true);
`;

export function createSchemaSql(schema: string): string {
  return `create schema if not exists ${identifier(schema)};\n`;
}

/** Keeps free space on each page, which heap-only updates need for the new versions of rows. */
const STORAGE = ' with (fillfactor = 90)';

/**
 * The table and its indexes.
 *
 * @param partitions how many partitions to create: by hash of the row key, or by list of shards if there are shards; 0
 * for a plain table
 * @param citus whether to distribute the table by its shards with Citus
 */
export function createTableSql(name: TableName, partitions = 0, citus = false): string {
  const { shards } = name;
  const table = qualified(name);
  const index = (suffix: string) => identifier(indexName(name.table, suffix));
  const parts = Array.from({ length: partitions }, (_, n) => {
    const part = qualified({ schema: name.schema, table: indexName(name.table, `p${n}`) });
    const own = Array.from({ length: shards ?? 0 }, (_, shard) => shard).filter((shard) => shard % partitions === n);
    const values = shards ? `in (${own.join(', ')})` : `with (modulus ${partitions}, remainder ${n})`;
    return `create table if not exists ${part} partition of ${table}\n  for values ${values}${STORAGE};\n`;
  });
  return `create table if not exists ${table} (${shards ? '\n  shard          smallint not null,' : ''}
  sid            text collate "C" ${shards ? 'not null' : 'primary key'},
  data           json not null,
  cookie         json,
  cookie_expires double precision,
  user_id        text,
  version        integer not null default 1,
  created_at     timestamptz not null default now(),
  updated_at     timestamptz not null default now(),
  expires_at     timestamptz not null,
  delete_after   timestamptz not null${shards ? ',\n  primary key (shard, sid)' : ''}
)${partitions > 0 ? ` partition by ${shards ? 'list (shard)' : 'hash (sid)'}` : STORAGE};
${parts.join('')}create index if not exists ${index('delete_after_idx')} on ${table} (${shards ? 'shard, ' : ''}delete_after);
create index if not exists ${index('user_id_idx')} on ${table} (user_id) where user_id is not null;
comment on table ${table} is 'express-pg-store schema ${SCHEMA_VERSION}${shards ? `, ${shards} shards` : ''}';
${citus ? distributionSql(table) : ''}`;
}

/**
 * An administrator runs this, perhaps in a database where others may create functions. The arguments have exactly the
 * types that Citus's function takes, so that no other function in the search path is a better match (CVE-2018-1058).
 */
function distributionSql(table: string): string {
  const name = `${format.literal(table)}::regclass`;
  return `select pg_catalog.create_distributed_table(${name}, 'shard'::text)
  where not exists (
    select from pg_catalog.pg_dist_partition where logicalrelid::oid = ${name}::oid
  );\n`;
}

/**
 * The name of an index or partition: the table's name and a suffix, in at most 63 bytes. PostgreSQL truncates longer
 * names. Two tables could then get the same name for their indexes, and `if not exists` would silently leave one out.
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
