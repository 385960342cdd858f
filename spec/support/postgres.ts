/** The PostgreSQL that specs share: an embedded one of their own, or the one that DATABASE_URL names. */

import { randomBytes } from 'node:crypto';
import postgres, { type Sql } from 'postgres';
import { PostgresServer } from '../../example/postgres-server.js';
import { PgStore, type PgStoreOptions } from '../../lib/index.js';

let starting: Promise<PostgresServer> | undefined;
let admin: Sql | undefined;

/** Where the specs' PostgreSQL is. `fsync` is off there: specs that pull the plug start a server of their own. */
export async function postgresUri(): Promise<string> {
  if (process.env.DATABASE_URL) return process.env.DATABASE_URL;
  starting ??= PostgresServer.start({ settings: { fsync: 'off' } });
  return (await starting).uri;
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

const open = new Set<PgStore>();

/** A store on the specs' PostgreSQL with a table of its own; `closeStores()` closes it. */
export async function openStore(options: PgStoreOptions = {}): Promise<PgStore> {
  const place = options.sql || options.uri ? {} : { uri: await postgresUri() };
  const store = new PgStore({ table: freshTable(), autodelete: false, ...place, ...options });
  open.add(store);
  return store;
}

/** For `afterEach`: closes what `openStore` opened. */
export async function closeStores(): Promise<void> {
  await Promise.all([...open].map((store) => store.close()));
  open.clear();
}
