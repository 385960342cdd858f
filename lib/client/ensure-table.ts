/** Whether the table is there and is the store's, and how any number of processes create it at once. */

import { codeOf, PgStoreError } from '../errors.js';
import { qualified, type TableName } from '../sql/query.js';
import { COLUMNS, CREATION_LOCK_SQL, createSchemaSql, createTableSql, SHARD_COLUMN } from '../sql/schema.js';
import type { Client } from './client.js';

/**
 * A row for each column of the table: the table's comment, the column's name and type, and whether an insert must name
 * it. One row without a column where the table is missing, none where the schema is.
 */
const COLUMNS_SQL = `select c.oid::text, pg_catalog.obj_description(c.oid, 'pg_class'::name),
    a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
    (a.attnotnull and not a.atthasdef and a.attidentity = ''::"char")::text
  from pg_catalog.pg_namespace n
    left join pg_catalog.pg_class c
      on c.relnamespace = n.oid and c.relname = $2::text::name and c.relkind in ('r', 'p', 'f', 'v')
    left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0::smallint and not a.attisdropped
  where n.nspname = $1::text::name`;

/** Two processes that create at once, and one of them by other means than the store, meet on the catalog. */
const CONCURRENT_DDL_SQLSTATES = new Set(['23505', '42P07', '42P06', '42710', '40P01', 'XX000']);

interface Column {
  readonly name: string;
  readonly type: string;
  /** Whether it takes no null and has no default. */
  readonly mustBeGiven: boolean;
}

interface FoundTable {
  readonly comment: string;
  readonly columns: readonly Column[];
}

type TableOptions = TableName & { readonly createTable: boolean };

/**
 * Creates what is missing, where option `createTable` allows. Looks first: a role without the right
 * to create anything can use a table that is there.
 *
 * @throws PgStoreError for a table that is not the store's
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
      // One simple query is one transaction: all of it or nothing.
      await client.script(CREATION_LOCK_SQL + schema + createTableSql(name), deadline);
    } catch (error) {
      // Another process, perhaps with another role, may have created it first.
      const { table } = await findTable(client, name, deadline);
      if (!table && (attempt >= 10 || !CONCURRENT_DDL_SQLSTATES.has(codeOf(error)))) throw error;
    }
  }
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
      // A role's setting `quote_all_identifiers` quotes the names of types.
      type: String(type).replaceAll('"', ''),
      mustBeGiven: mustBeGiven === 'true',
    }));
  return { hasSchema: true, table: { comment: String(first[1]), columns } };
}

function checkTable(name: TableName, { comment, columns }: FoundTable): void {
  const shardColumn = name.shards ? SHARD_COLUMN : {};
  refuse(name, columnFlaw(columns, COLUMNS));
  // Its message says more than one about the column.
  checkShards(name, comment);
  refuse(
    name,
    columnFlaw(columns, { ...COLUMNS, ...shardColumn }) ?? unknownColumnFlaw(columns, { ...COLUMNS, ...shardColumn }),
  );
}

function refuse(name: TableName, flaw: string | undefined): void {
  if (flaw === undefined) return;
  throw new PgStoreError(`table ${qualified(name)} ${flaw}`, 'TABLE_MISMATCH');
}

/** What keeps a table with these columns from being the store's, or nothing. */
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

/** The app may add columns, if an insert need not name them. */
function unknownColumnFlaw(columns: readonly Column[], expected: object): string | undefined {
  const column = columns.find(({ name, mustBeGiven }) => mustBeGiven && !Object.hasOwn(expected, name));
  return (
    column && `has a column ${column.name} that takes no null and has no default, so the store cannot insert a row`
  );
}

/** A store that counted on another number of shards would look for each session in a wrong one. */
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
