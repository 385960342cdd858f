/** Checks that the table exists and is the store's, and creates it, also in several processes at once. */

import { codeOf, PgStoreError } from '../errors.js';
import { qualified, type TableName } from '../sql/query.js';
import { COLUMNS, CREATION_LOCK_SQL, createSchemaSql, createTableSql, SHARD_COLUMN } from '../sql/schema.js';
import type { Client } from './client.js';

/**
 * Returns a row for each column of the table: the table's OID and comment, the column's name and type, and whether an
 * insert must give it a value. If the table is missing, it returns one row without an OID; if the schema is missing,
 * none. A sequence, an index and everything else that would take the name of the table is returned, too.
 */
const COLUMNS_SQL = `select c.oid::text, pg_catalog.obj_description(c.oid, 'pg_class'::name),
    a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
    (a.attnotnull and not a.atthasdef and a.attidentity = ''::"char")::text
  from pg_catalog.pg_namespace n
    left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = $2::text::name
    left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0::smallint and not a.attisdropped
  where n.nspname = $1::text::name`;

/**
 * Errors of `create … if not exists` when another transaction creates the same objects at that moment, without the
 * store's advisory lock: violations of the catalog's unique indexes, duplicate objects, deadlocks, and internal errors.
 */
const CONCURRENT_DDL_SQLSTATES = new Set(['23505', '42P07', '42P06', '42710', '40P01', 'XX000']);

interface Column {
  readonly name: string;
  readonly type: string;
  /** Whether the column is `not null` and has no default. */
  readonly mustBeGiven: boolean;
}

interface FoundTable {
  /** The table's comment, in which the store has kept the number of shards. */
  readonly comment: string;
  readonly columns: readonly Column[];
}

type TableOptions = TableName & { readonly createTable: boolean };

/**
 * Creates a missing schema and a missing table, if option `createTable` allows that. It looks for them first, so that a
 * role without the privilege to create anything can use a table that exists.
 *
 * @param deadline in milliseconds on the clock of `performance.now()`
 * @throws PgStoreError `TABLE_MISMATCH` or `SHARDS_MISMATCH` for a table that is not the store's, `42P01` for a missing
 * table that may not be created
 */
export async function ensureTable(client: Client, name: TableOptions, deadline: number): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const found = await findTable(client, name, deadline);
    if (found.table) return checkTable(name, found.table);
    if (!name.createTable) {
      throw new PgStoreError(`table ${qualified(name)} is missing, and option \`createTable\` is false`, '42P01');
    }
    try {
      const schema = found.hasSchema ? '' : createSchemaSql(name.schema);
      // The statements of one simple query are one transaction, so either all of them take effect or none.
      await client.script(CREATION_LOCK_SQL + schema + createTableSql(name), deadline);
    } catch (error) {
      // Another process, perhaps with another role, may have created it first.
      const { table } = await findTable(client, name, deadline);
      if (!table) refuseUnlessConcurrent(name, error, attempt);
    }
  }
}

/** @throws the error that has prevented the creation, unless another transaction may be the cause */
function refuseUnlessConcurrent(name: TableName, error: unknown, attempt: number): void {
  const code = codeOf(error);
  if (attempt < 10 && CONCURRENT_DDL_SQLSTATES.has(code)) return;
  // A table is also a type, so its name must not be another type's (42710, duplicate_object).
  if (code === '42710') refuse(name, 'has the name of a type; choose another name with option `table`');
  throw error;
}

async function findTable(
  client: Client,
  { schema, table }: TableName,
  deadline: number,
): Promise<{ hasSchema: boolean; table: FoundTable | undefined }> {
  const rows = await client.query(COLUMNS_SQL, [schema, table], deadline);
  const [first] = rows;
  if (!first?.at(0)) return { hasSchema: first !== undefined, table: undefined };
  const columns = rows
    .filter(([, , column]) => column !== null)
    .map(([, , column, type, mustBeGiven]) => ({
      name: String(column),
      // With a role's setting `quote_all_identifiers`, PostgreSQL quotes the names of types, too.
      type: String(type).replaceAll('"', ''),
      mustBeGiven: mustBeGiven === 'true',
    }));
  return { hasSchema: true, table: { comment: String(first[1]), columns } };
}

function checkTable(name: TableName, { comment, columns }: FoundTable): void {
  const expected = name.shards ? { ...COLUMNS, ...SHARD_COLUMN } : COLUMNS;
  refuse(name, columnFlaw(columns, COLUMNS));
  // The number of shards is compared before the column `shard`, because that error says more about the cause.
  checkShards(name, comment);
  refuse(name, columnFlaw(columns, expected) ?? unknownColumnFlaw(columns, expected));
}

/** @throws PgStoreError `TABLE_MISMATCH` if there is a flaw */
function refuse(name: TableName, flaw: string | undefined): void {
  if (flaw === undefined) return;
  throw new PgStoreError(`table ${qualified(name)} ${flaw}`, 'TABLE_MISMATCH');
}

/** Says which columns are missing or have another type, as the rest of a sentence; `undefined` if none. */
export function columnFlaw(
  columns: readonly Pick<Column, 'name' | 'type'>[],
  expected: Readonly<Record<string, string>>,
): string | undefined {
  const types = new Map(columns.map(({ name, type }) => [name, type]));
  if (types.has('expires_by') && !types.has('delete_after') && 'delete_after' in expected) {
    return 'is of an unreleased version of express-pg-store: drop it, or choose another name with option `table`';
  }
  const missing = Object.keys(expected).filter((column) => !types.has(column));
  const wrong = Object.entries(expected).filter(([column, type]) => types.has(column) && types.get(column) !== type);
  if (missing.length === 0 && wrong.length === 0) return undefined;
  const flaws = [
    ...(missing.length > 0 ? [`it has no column ${missing.join(', ')}`] : []),
    ...wrong.map(([column, type]) => `column ${column} is ${types.get(column)}, not ${type}`),
  ];
  return `is not a table of express-pg-store: ${flaws.join('; ')}. If it is another program's, choose another name with option \`table\``;
}

/** Names a column of the app's that prevents the store's inserts: any other column may be added to the table. */
function unknownColumnFlaw(columns: readonly Column[], expected: object): string | undefined {
  const column = columns.find(({ name, mustBeGiven }) => mustBeGiven && !Object.hasOwn(expected, name));
  return (
    column && `has a column ${column.name} that takes no null and has no default, so the store cannot insert a row`
  );
}

/**
 * Compares the number of shards in the table's comment with option `shards`. With another number the store would look
 * for sessions in the wrong shards.
 *
 * @throws PgStoreError `SHARDS_MISMATCH`
 */
function checkShards(name: TableName, comment: string): void {
  const created = Number(/, (\d+) shards$/.exec(comment)?.[1] ?? 0);
  const { shards = 0 } = name;
  if (created === shards) return;
  const hint =
    created > 0 ? '' : `; \`npx express-pg-store schema --shards ${shards}\` prints the SQL that creates one`;
  throw new PgStoreError(
    `table ${qualified(name)} was created with ${created || 'no'} shards, and option \`shards\` is ${shards || 'not set'}${hint}`,
    'SHARDS_MISMATCH',
  );
}
