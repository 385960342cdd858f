/** The DDL of the table. */

import { createHash } from 'node:crypto';
import format from 'pg-format';
import { identifier, qualified, type TableName } from './query.js';

/** One more with each additive change of the table; kept in the table's comment. */
export const SCHEMA_VERSION = 1;

/** The table's columns, with their types as PostgreSQL's format_type() has them; `ready()` compares a table with these. */
export const COLUMNS: Readonly<Record<string, string>> = {
  sid: 'text',
  data: 'json',
  cookie: 'json',
  user_id: 'text',
  version: 'integer',
  created_at: 'timestamp with time zone',
  updated_at: 'timestamp with time zone',
  expires_at: 'timestamp with time zone',
  expires_by: 'timestamp with time zone',
};

/** The column that a table with option `shards` has besides those. */
export const SHARD_COLUMN: Readonly<Record<string, string>> = { shard: 'smallint' };

/**
 * Lets one transaction after the other create what is missing, in all stores of the database: `create … if not exists` of two
 * at once fails on the catalog's unique indexes, or in a deadlock of its locks. The lock ends with the transaction, so a
 * pooler does not matter. The number is the beginning of the SHA-256 hash of "express-pg-store".
 */
export const CREATION_LOCK_SQL = 'select pg_catalog.pg_advisory_xact_lock(24430145236162994::bigint);\n';

export function createSchemaSql(schema: string): string {
  return `create schema if not exists ${identifier(schema)};\n`;
}

/**
 * `expires_at` rounded up to the next of a row's own steps, which are counted from its creation: a
 * power of two of microseconds, at most a tenth of the row's lifetime. Indexed in place of
 * `expires_at`, it keeps nearly all updates heap-only (PostgreSQL: Heap-Only Tuples). Generated, so
 * that no write can leave it earlier than `expires_at`. All of it is immutable, which is why each
 * epoch is that of an interval, and of exact types (CVE-2018-1058).
 */
const EXPIRES_BY = `greatest(expires_at, case
    when isfinite(created_at) and isfinite(updated_at) and isfinite(expires_at) then to_timestamp(
      date_part('epoch', created_at - to_timestamp(0::float8)) + (1 + (
        (date_part('epoch', expires_at - created_at) * 1e6::float8)::bigint
        | (2::float8 ^ floor(ln(greatest(date_part('epoch', expires_at - updated_at) * 1e5::float8, 1::float8))
          / ln(2::float8)))::bigint - 1
      ))::float8 / 1e6::float8)
  end)`;

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
  return `create table if not exists ${table} (${shards ? '\n  shard      smallint    not null,' : ''}
  sid        text collate "C" ${shards ? 'not null' : 'primary key'},
  data       json        not null,
  cookie     json,
  user_id    text,
  version    integer     not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  expires_at timestamptz not null,
  -- expires_at rounded up to a step of at most a tenth of the lifetime: indexed, it leaves most updates heap-only
  expires_by timestamptz generated always as (${EXPIRES_BY}) stored${shards ? ',\n  primary key (shard, sid)' : ''}
)${partitions > 0 ? ` partition by ${shards ? 'list (shard)' : 'hash (sid)'}` : STORAGE};
${parts.join('')}create index if not exists ${index('expires_by_idx')} on ${table} (${shards ? 'shard, ' : ''}expires_by);
create index if not exists ${index('user_id_idx')} on ${table} (user_id) where user_id is not null;
comment on table ${table} is 'express-pg-store schema ${SCHEMA_VERSION}${shards ? `, ${shards} shards` : ''}';
${citus ? distributionSql(table) : ''}`;
}

function distributionSql(table: string): string {
  const name = format.literal(table);
  return `select create_distributed_table(${name}, 'shard')
  where not exists (select from pg_dist_partition where logicalrelid = ${name}::regclass);\n`;
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
