/**
 * The PostgreSQL server that specs share: an embedded one, or the one that DATABASE_URL names. Specs run in several
 * processes at the same time, so each uses names of its own for tables, roles and databases.
 */

import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import pg from 'pg';
import postgres, { type Sql } from 'postgres';
import { PgStore, type PgStoreOptions } from '../../lib/index.js';
import { createTableSql } from '../../lib/sql/schema.js';
import { PostgresServer } from './postgres-server.js';

let starting: Promise<PostgresServer> | undefined;
let admin: Sql | undefined;

/**
 * Settings of the specs' server. `fsync` is off, because specs that simulate a crash start servers of their own. Up to
 * six processes of specs connect at the same time.
 */
export const SPECS_SETTINGS = { fsync: 'off', max_connections: 600 };

/** The environment variable that tells Mocha's worker processes which server its main process has started. */
const SHARED = 'SPECS_POSTGRES_URL';

/** The connection string of the specs' server, which is started if that has not been done. */
export async function postgresUri(): Promise<string> {
  const given = process.env.DATABASE_URL || process.env[SHARED];
  if (given) return given;
  starting ??= PostgresServer.start({ settings: SPECS_SETTINGS });
  return (await starting).uri;
}

/** Starts the specs' server for this process, and for those that it starts from now on. */
export async function sharePostgres(): Promise<void> {
  process.env[SHARED] = await postgresUri();
}

/** A connection string that leads past the pooler, if there is one, for specs that count the server's connections. */
export async function directUri(): Promise<string> {
  return process.env.DIRECT_DATABASE_URL ?? (await postgresUri());
}

/** A client for looking at tables as SQL sees them. */
export async function sqlClient(): Promise<Sql> {
  admin ??= postgres(await postgresUri(), { onnotice: () => {}, max: 5 });
  return admin;
}

export async function stopPostgres(): Promise<void> {
  await admin?.end();
  admin = undefined;
  if (starting) await (await starting).close();
  starting = undefined;
}

/** A table name that no other spec uses. */
export function freshTable(): string {
  return `sessions_${randomBytes(6).toString('hex')}`;
}

/**
 * The kind of tables that `openStore` uses: with so many hash partitions, with so many shards, each of which is a
 * partition, or distributed by Citus. By default these are plain tables, which the store creates.
 */
const PARTITIONS = Number(process.env.SESSIONS_PARTITIONS || 0);
export const SHARDS = Number(process.env.SESSIONS_SHARDS || 0) || undefined;
export const ON_CITUS = process.env.CITUS_URL !== undefined && process.env.CITUS_URL === process.env.DATABASE_URL;
/** For each table that was created here, whether the store must be told the number of shards. */
const created = new Map<string, Promise<boolean>>();

async function createTable(table: string): Promise<void> {
  const sql = await sqlClient();
  const create = async () => {
    const [found] =
      await sql`select obj_description(c.oid, 'pg_class') as comment from pg_class c where relname = ${table}`;
    const partitions = ON_CITUS ? 0 : (SHARDS ?? PARTITIONS);
    const name = { schema: 'public', table, shards: SHARDS };
    // Specs create many tables. With Citus's default of 32 shards on its workers each would take a second.
    const script = (ON_CITUS ? 'set citus.shard_count = 4; ' : '') + createTableSql(name, partitions, ON_CITUS);
    if (!found) await sql.unsafe(script).simple();
    return !found || / shards$/.test(found.comment);
  };
  if (!created.has(table)) created.set(table, create());
  await created.get(table);
}

/** SQL for rows that a spec inserts by hand: the column `shard` before `sid`, if there is one, and its value. */
export const shardColumn = SHARDS ? 'shard, ' : '';
export function shardValue(sid: string): string {
  return SHARDS ? `${crc32(sid) % SHARDS}, ` : '';
}

/** SQL for the time that is so many seconds before a column's. It is immutable, as Citus requires in an update. */
export function earlier(column: string, seconds: number): string {
  return `to_timestamp(date_part('epoch', ${column} - to_timestamp(0)) - ${seconds})`;
}

const open = new Set<PgStore>();
const pools = new WeakMap<PgStore, pg.Pool>();

/**
 * A node-postgres pool with settings that an app may have: parsers of its own for every type, its own schemas first on
 * the search path, and columns in binary format.
 */
export function appPool(settings: pg.PoolConfig): pg.Pool {
  const types = { getTypeParser: () => () => 'parsed by the app' } as pg.CustomTypesConfig;
  const odd = { types, binary: true, options: '-c search_path=app,pg_catalog' };
  const pool = new pg.Pool({ ...odd, ...settings });
  // Idle connections may break, so every app must listen to its pool's errors.
  pool.on('error', () => {});
  return pool;
}

/** Whether `openStore` gives stores a node-postgres pool: `npm run test:postgres -- 18 --client pg`. */
export const ON_POOL = process.env.SESSIONS_CLIENT === 'pg';

/** The options that choose the client: the given ones, or those of a node-postgres pool instead of `uri`. */
async function clientOf({ uri, sql, pool, postgres, ...options }: PgStoreOptions): Promise<PgStoreOptions> {
  if (sql) return { sql };
  if (pool) return { pool };
  const target = uri ?? (await postgresUri());
  // Other settings, and several hosts, are only possible with the store's own connections.
  const others = Object.keys(postgres ?? {}).filter((name) => name !== 'prepare');
  if (!ON_POOL || others.length > 0 || !URL.canParse(target)) return { uri: target };
  const { searchParams } = new URL(target);
  if ([...searchParams.keys()].some((name) => name !== 'prepare' && name !== 'sslmode')) return { uri: target };
  const prepare = searchParams.get('prepare') !== 'false' && postgres?.prepare !== false;
  const settings = {
    connectionString: target.replace(/\?.*/, ''),
    max: options.maxConnections ?? 10,
    connectionTimeoutMillis: options.timeout ?? DEFAULTS.timeout,
    ssl: searchParams.has('sslmode') && { rejectUnauthorized: false },
  };
  return { pool: appPool(settings), postgres: { prepare } };
}

/**
 * The defaults of stores in specs. On a busy machine, 200 saves of one session that are all merged take longer than the
 * default `timeout` of 10 s.
 */
const DEFAULTS = { autodelete: false, timeout: 60_000 } as const;

/** A store on its own connections, whatever `ON_POOL` says, for specs about these. `closeStores()` closes it. */
export async function openOwnStore(options: PgStoreOptions = {}): Promise<PgStore> {
  const store = new PgStore({ ...DEFAULTS, uri: await postgresUri(), table: freshTable(), ...options });
  open.add(store);
  return store;
}

/** A store on the specs' PostgreSQL with a table of its own; `closeStores()` closes it. */
export async function openStore(options: PgStoreOptions = {}): Promise<PgStore> {
  const table = options.table ?? freshTable();
  // A spec that chooses the schema or the client, or wants no table, is about the creation of the table.
  const isPlain = options.schema ?? options.uri ?? options.sql ?? options.pool ?? options.createTable === false;
  if ((PARTITIONS > 0 || SHARDS !== undefined) && !isPlain) await createTable(table);
  const shards = SHARDS && (await created.get(table)) ? { shards: SHARDS } : {};
  const { uri, ...others } = options;
  const client = await clientOf(options);
  const store = new PgStore({ ...DEFAULTS, ...shards, ...others, ...client, table });
  if (client.pool && !options.pool) pools.set(store, client.pool as pg.Pool);
  open.add(store);
  return store;
}

/** For `afterEach`: closes what `openStore` opened. */
export async function closeStores(): Promise<void> {
  const closing = [...open];
  open.clear();
  await Promise.all(
    closing.map(async (store) => {
      await store.close();
      await pools.get(store)?.end();
    }),
  );
}

/** Runs `work` with a new schema. Afterwards it closes the stores that `openStore` opened, and drops the schema. */
export async function inFreshSchema(work: (schema: string, sql: Sql) => Promise<void>): Promise<void> {
  const sql = await sqlClient();
  const schema = `schema_${randomBytes(6).toString('hex')}`;
  await sql`create schema ${sql(schema)}`;
  try {
    await work(schema, sql);
  } finally {
    await closeStores();
    await sql`drop schema ${sql(schema)} cascade`;
  }
}
