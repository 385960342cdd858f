/**
 * The PostgreSQL that specs share: an embedded one of their own, or the one that DATABASE_URL
 * names. Specs run at the same time in several processes, so each has tables, roles and databases
 * of its own names on it.
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
 * Settings of a server for specs. `fsync` is off: specs that pull the plug start a server of their
 * own. The specs of up to six processes connect at the same time.
 */
export const SPECS_SETTINGS = { fsync: 'off', max_connections: 600 };

/** Names the PostgreSQL that Mocha's main process has started, for its worker processes. */
const SHARED = 'SPECS_POSTGRES_URL';

/** Where the specs' PostgreSQL is; starts it if nobody has. */
export async function postgresUri(): Promise<string> {
  const given = process.env.DATABASE_URL || process.env[SHARED];
  if (given) return given;
  starting ??= PostgresServer.start({ settings: SPECS_SETTINGS });
  return (await starting).uri;
}

/** Starts the specs' PostgreSQL for this process and those that it starts from now on. */
export async function sharePostgres(): Promise<void> {
  process.env[SHARED] = await postgresUri();
}

/** The same past a pooler, for specs that count the connections which the server has. */
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
 * Of the tables that `openStore` uses on the specs' PostgreSQL: hash partitions, shards (each a
 * partition of its own), and whether Citus distributes them. Without: plain tables, created by the
 * store.
 */
const PARTITIONS = Number(process.env.SESSIONS_PARTITIONS || 0);
export const SHARDS = Number(process.env.SESSIONS_SHARDS || 0) || undefined;
export const ON_CITUS = process.env.CITUS_URL !== undefined && process.env.CITUS_URL === process.env.DATABASE_URL;
/** By table, whether it has shards or partitions. */
const created = new Map<string, Promise<boolean>>();

async function createTable(table: string): Promise<void> {
  const sql = await sqlClient();
  const create = async () => {
    const [found] =
      await sql`select obj_description(c.oid, 'pg_class') as comment from pg_class c where relname = ${table}`;
    const partitions = ON_CITUS ? 0 : (SHARDS ?? PARTITIONS);
    const name = { schema: 'public', table, shards: SHARDS };
    // Tables come and go: the default of 32 pieces on Citus's workers takes a second each time.
    const script = (ON_CITUS ? 'set citus.shard_count = 4; ' : '') + createTableSql(name, partitions, ON_CITUS);
    if (!found) await sql.unsafe(script).simple();
    return !found || / shards$/.test(found.comment);
  };
  if (!created.has(table)) created.set(table, create());
  await created.get(table);
}

/**
 * For rows that a spec inserts by hand: the column `shard` before `sid`, and its value for a
 * session, where there is one.
 */
export const shardColumn = SHARDS ? 'shard, ' : '';
export function shardValue(sid: string): string {
  return SHARDS ? `${crc32(sid) % SHARDS}, ` : '';
}

/** SQL for a time so many seconds before a column's; immutable, as Citus wants an update's. */
export function earlier(column: string, seconds: number): string {
  return `to_timestamp(date_part('epoch', ${column} - to_timestamp(0)) - ${seconds})`;
}

const open = new Set<PgStore>();
const pools = new WeakMap<PgStore, pg.Pool>();

/**
 * A pool of node-postgres with what an app may have set: parsers of its own for every type, its own
 * schemas first on the search path, columns in binary.
 */
export function appPool(settings: pg.PoolConfig): pg.Pool {
  const types = { getTypeParser: () => () => 'parsed by the app' } as pg.CustomTypesConfig;
  const odd = { types, binary: true, options: '-c search_path=app,pg_catalog' };
  const pool = new pg.Pool({ ...odd, ...settings });
  // Every app with a pool must: idle connections break, too.
  pool.on('error', () => {});
  return pool;
}

/**
 * Whether `openStore` gives stores a pool of node-postgres:
 * `npm run test:postgres -- 18 --client pg`.
 */
export const ON_POOL = process.env.SESSIONS_CLIENT === 'pg';

/** The options of the client: `uri`, `sql`, or a pool in its place. */
async function clientOf({ uri, sql, pool, postgres, ...options }: PgStoreOptions): Promise<PgStoreOptions> {
  if (sql) return { sql };
  if (pool) return { pool };
  const target = uri ?? (await postgresUri());
  // Settings and several hosts are for Postgres.js alone.
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
 * What stores get that a spec gives nothing else. A busy machine takes longer than the 10 s of
 * option `timeout`'s default for 200 saves of one session that are all merged.
 */
const DEFAULTS = { autodelete: false, timeout: 60_000 } as const;

/** The same on the store's own connections, for specs about those. */
export async function openOwnStore(options: PgStoreOptions = {}): Promise<PgStore> {
  const store = new PgStore({ ...DEFAULTS, uri: await postgresUri(), table: freshTable(), ...options });
  open.add(store);
  return store;
}

/** A store on the specs' PostgreSQL with a table of its own; `closeStores()` closes it. */
export async function openStore(options: PgStoreOptions = {}): Promise<PgStore> {
  const table = options.table ?? freshTable();
  // A spec that names a schema or a place, or wants no table, is about the creation of it.
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

/**
 * Runs with a schema of its own; the schema goes with it, and so do the stores that `openStore`
 * opened.
 */
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
