/** The commands and their flags: parser and help are generated from these tables. */

import type { parseArgs } from 'node:util';
import { ConnectionPool } from '../client/pool.js';
import { type Options, type PgStoreOptions, parseOptions } from '../options.js';
import { PgStore } from '../pg-store.js';
import type { BoundQuery } from '../sql/query.js';
import { createSchemaSql, createTableSql } from '../sql/schema.js';
import { FORMATS } from './formats.js';
import { stats } from './stats.js';

export class UsageError extends Error {}

const text = (value: string, help: string) => ({ type: 'string', value, help }) as const;
const flag = (help: string) => ({ type: 'boolean', value: '', help }) as const;

// As node:util's parseArgs takes them; `value` and `help` are for the help text.
const TABLE = {
  table: text('NAME', "the store's table (default: sessions)"),
  schema: text('NAME', 'its schema (default: public)'),
};
const HELP = { help: { ...flag('print this help'), short: 'h' } } as const;
const SHARDS = { shards: text('N', "the store's option shards") };
const SCHEMA = {
  ...TABLE,
  ...SHARDS,
  citus: flag('distribute its shards with Citus: for a coordinator'),
  partitions: text('N', 'a table of N partitions, by hash or, with --shards, by shard'),
  format: text('FORMAT', `of ${Object.keys(FORMATS).join(', ')} (default: sql)`),
  ...HELP,
};
const SERVER = {
  ...TABLE,
  uri: text('URI', 'connection string (default: DATABASE_URL, else the PG* variables)'),
  json: flag('print JSON'),
  ...HELP,
};
const STATS = { prefix: text('TEXT', "the store's option prefix"), ...SERVER };
export type Flags = typeof SCHEMA & typeof STATS;
type Values = ReturnType<typeof parseArgs<{ options: Flags }>>['values'];

export interface Command {
  readonly summary: string;
  /** What else the help says. */
  readonly more: string;
  readonly flags: Partial<Flags>;
  /** Resolves with what is printed: a text as it is, a record as lines or as JSON. */
  run(values: Values, env: NodeJS.ProcessEnv): Promise<string | object>;
}

export const COMMANDS: Record<string, Command> = {
  schema: {
    summary: 'Prints the SQL that creates the table, for migrations.',
    more: 'Connects to nothing.',
    flags: SCHEMA,
    run: async (values, env) => {
      const options = storeOptions(values, env);
      const { citus, shards } = values;
      const partitions = wholeNumber('partitions', values.partitions, Math.min(options.shards ?? 1000, 1000));
      if (citus && (!shards || partitions)) throw new UsageError('--citus: goes with --shards, without --partitions');
      const format = Object.hasOwn(FORMATS, values.format ?? 'sql') ? FORMATS[values.format ?? 'sql'] : undefined;
      if (!format)
        throw new UsageError(`--format: expected ${Object.keys(FORMATS).join(', ')}, got '${values.format}'`);
      const schema = options.schema === 'public' ? '' : createSchemaSql(options.schema);
      return format(options, schema + createTableSql(options, partitions, citus));
    },
  },
  prune: {
    summary: 'Deletes expired sessions.',
    more: "In short statements, as the store's timer (option autodelete) and its method autodelete() do.",
    flags: { ...SHARDS, ...SERVER },
    run: (values, env) =>
      withStore(storeOptions(values, env), async (store) => ({ deleted: await store.autodelete() })),
  },
  stats: {
    summary: 'Counts sessions, users, bytes and dead tuples.',
    more: 'With the ten users who have the most sessions. Reads the whole table.',
    flags: STATS,
    run: async (values, env) => {
      const options = storeOptions(values, env);
      return withConnection(options, (query) => stats(query, options));
    },
  },
};

/** The flags that are options of the store, checked as those. */
function storeOptions({ uri, table, schema, prefix, shards }: Values, env: NodeJS.ProcessEnv): Options {
  const count = wholeNumber('shards', shards, 32_767);
  const given = { uri, table, schema, shards: count, prefix, createTable: false };
  return parseOptions(given as PgStoreOptions, env);
}

async function withStore<T>(options: Options, work: (store: PgStore) => Promise<T>): Promise<T> {
  const { uri, table, schema, shards } = options;
  const place = { table, schema, createTable: false, ...(uri !== undefined && { uri }), ...(shards && { shards }) };
  await using store = new PgStore({ ...place, autodelete: false, retry: { attempts: 1 } });
  return await work(store);
}

/** One connection, for statements that may take long. */
async function withConnection<T>(options: Options, work: (query: BoundQuery) => Promise<T>): Promise<T> {
  const connection = new ConnectionPool({ ...options, maxConnections: 1, timeout: 24 * 3_600_000 });
  try {
    return await work((text, values) => connection.query(text, values, Number.POSITIVE_INFINITY));
  } finally {
    await connection.end();
  }
}

function wholeNumber(flag: string, text: string | undefined, most: number): number | undefined {
  if (text === undefined) return undefined;
  if (/^[1-9]\d*$/.test(text) && Number(text) <= most) return Number(text);
  throw new UsageError(`--${flag}: expected a whole number from 1 to ${most}, got '${text}'`);
}
