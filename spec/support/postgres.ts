/** The PostgreSQL that specs share: an embedded one of their own, or the one that DATABASE_URL names. */

import { randomBytes } from 'node:crypto';
import postgres, { type Sql } from 'postgres';
import { PostgresServer } from '../../example/postgres-server.js';
import { createTableSql } from '../../lib/database/schema.js';
import { PgStore, type PgStoreOptions } from '../../lib/index.js';

let starting: Promise<PostgresServer> | undefined;
let admin: Sql | undefined;

/** Where the specs' PostgreSQL is. `fsync` is off there: specs that pull the plug start a server of their own. */
export async function postgresUri(): Promise<string> {
  if (process.env.DATABASE_URL) return process.env.DATABASE_URL;
  starting ??= PostgresServer.start({ settings: { fsync: 'off' } });
  return (await starting).uri;
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

/** Hash partitions of the tables that `openStore` uses on the specs' PostgreSQL; 0: plain tables, created by the store. */
const PARTITIONS = Number(process.env.SESSIONS_PARTITIONS || 0);
const made = new Map<string, Promise<unknown>>();

async function makePartitioned(table: string): Promise<void> {
  const sql = await sqlClient();
  const make = async () => {
    const [{ isThere }] = await sql`select to_regclass(format('public.%I', ${table}::text)) is not null as "isThere"`;
    if (!isThere) await sql.unsafe(createTableSql({ schema: 'public', table }, PARTITIONS)).simple();
  };
  if (!made.has(table)) made.set(table, make());
  await made.get(table);
}

const open = new Set<PgStore>();

/** A store on the specs' PostgreSQL with a table of its own; `closeStores()` closes it. */
export async function openStore(options: PgStoreOptions = {}): Promise<PgStore> {
  const table = options.table ?? freshTable();
  const place = options.sql || options.uri ? {} : { uri: await postgresUri() };
  // A spec that names a schema, or wants no table, is about the making of it.
  const isPlain = options.schema !== undefined || options.createTable === false || !place.uri;
  if (PARTITIONS > 0 && !isPlain) await makePartitioned(table);
  const store = new PgStore({ autodelete: false, ...place, ...options, table });
  open.add(store);
  return store;
}

/** For `afterEach`: closes what `openStore` opened. */
export async function closeStores(): Promise<void> {
  await Promise.all([...open].map((store) => store.close()));
  open.clear();
}

/** Runs with a schema of its own; the schema goes with it, and so do the stores that `openStore` opened. */
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
