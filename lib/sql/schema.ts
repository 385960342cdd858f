/** The DDL of the table. */

import { createHash } from 'node:crypto';
import format from 'pg-format';
import { identifier, qualified, type TableName } from './query.js';

/** One more with each additive change of the table; kept in the table's comment. */
export const SCHEMA_VERSION = 1;

/**
 * The table's columns, with their types as PostgreSQL's format_type() has them; `ready()` compares a table with these.
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

/** The column that a table with option `shards` has besides those. */
export const SHARD_COLUMN: Readonly<Record<string, string>> = { shard: 'smallint' };

/**
 * Lets one transaction after the other create what is missing, in all stores of the database: `create … if not exists`
 * of two at once fails on the catalog's unique indexes, or in a deadlock of its locks. The lock ends with the
 * transaction, so a pooler does not matter. The number is the beginning of the SHA-256 hash of "express-pg-store".
 */
export const CREATION_LOCK_SQL = 'select pg_catalog.pg_advisory_xact_lock(24430145236162994::bigint);\n';

export function createSchemaSql(schema: string): string {
  return `create schema if not exists ${identifier(schema)};\n`;
}

/** Leaves room in each page for the next version of some of its rows. */
const STORAGE = ' with (fillfactor = 90)';

/**
 * The table and its indexes.
 *
 * @param partitions how many to create: by hash of the row key or, with shards, by list of the
 *                   shard; 0 for a plain table
 * @param citus distributes the table by its shards
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

/** Types match exactly: an administrator runs this, perhaps where others may create functions (CVE-2018-1058). */
function distributionSql(table: string): string {
  const name = `${format.literal(table)}::regclass`;
  return `select pg_catalog.create_distributed_table(${name}, 'shard'::text)
  where not exists (
    select from pg_catalog.pg_dist_partition where logicalrelid::oid = ${name}::oid
  );\n`;
}

/**
 * A name derived from the table's, within PostgreSQL's 63 bytes: a longer one would be cut, meet
 * another table's, and `if not exists` would then silently skip the index.
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
