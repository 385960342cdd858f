/** The commands of the command line. The parser and the help texts are made from the tables of flags in this file. */

import type { parseArgs } from 'node:util';
import { ConnectionPool } from '../client/pool.js';
import { type Options, type PgStoreOptions, parseOptions } from '../options.js';
import { PgStore } from '../pg-store.js';
import type { BoundQuery } from '../sql/query.js';
import { createSchemaSql, createTableSql } from '../sql/schema.js';
import { FORMATS } from './formats.js';
import { stats } from './stats.js';

/** A mistake in the command line's arguments: exit code 2. */
export class UsageError extends Error {}

/**
 * A flag that takes a value, and one that takes none. `type` is for `parseArgs` of node:util; `value`, a name for the
 * flag's value, and `help` are for the help text.
 */
const text = (value: string, help: string) => ({ type: 'string', value, help }) as const;
const flag = (help: string) => ({ type: 'boolean', value: '', help }) as const;

const TABLE = {
  table: text('NAME', "the store's table (default: sessions)"),
  schema: text('NAME', 'its schema (default: public)'),
};
const HELP = { help: { ...flag('print this help'), short: 'h' } } as const;
const SHARDS = { shards: text('N', "the store's option shards") };
const SCHEMA = {
  ...TABLE,
  ...SHARDS,
  citus: flag('distribute the shards with Citus; run the SQL on the coordinator'),
  partitions: text('N', 'divide the table into N partitions, by hash or, with --shards, by shard'),
  format: text('FORMAT', `one of ${Object.keys(FORMATS).join(', ')} (default: sql)`),
  ...HELP,
};
const SERVER = {
  ...TABLE,
  uri: text('URI', 'connection string (default: DATABASE_URL, else the PG* variables)'),
  json: flag('print JSON'),
  ...HELP,
};
const STATS = { prefix: text('TEXT', "the store's option prefix"), ...SERVER };
/** The flags of all commands. */
export const ALL_FLAGS = { ...SCHEMA, ...STATS };
export type Flags = typeof ALL_FLAGS;
type Values = ReturnType<typeof parseArgs<{ options: Flags }>>['values'];

export interface Command {
  /** What the command does, in one sentence. */
  readonly summary: string;
  /** The second sentence of the command's help. */
  readonly more: string;
  readonly flags: Partial<Flags>;
  /** Resolves with the output: a string is printed as it is, an object as lines, or as JSON with `--json`. */
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
      if (citus && (!shards || partitions)) throw new UsageError('--citus: needs --shards, and excludes --partitions');
      const format = Object.hasOwn(FORMATS, values.format ?? 'sql') ? FORMATS[values.format ?? 'sql'] : undefined;
      if (!format) {
        throw new UsageError(`--format: expected one of ${Object.keys(FORMATS).join(', ')}, got '${values.format}'`);
      }
      const schema = options.schema === 'public' ? '' : createSchemaSql(options.schema);
      return format(options, schema + createTableSql(options, partitions, citus));
    },
  },
  prune: {
    summary: 'Deletes expired sessions.',
    more: "It uses short statements, as the store's timer (option autodelete) and its method autodelete() do.",
    flags: { ...SHARDS, ...SERVER },
    run: (values, env) =>
      withStore(storeOptions(values, env), async (store) => ({ deleted: await store.autodelete() })),
  },
  stats: {
    summary: 'Counts sessions, users, bytes and dead tuples.',
    more: 'It reads the whole table, and lists the ten users who have the most sessions.',
    flags: STATS,
    run: async (values, env) => {
      const options = storeOptions(values, env);
      return withConnection(options, (query) => stats(query, options));
    },
  },
};

/** Checks the flags that are options of the store. @throws TypeError as the store's constructor does */
function storeOptions({ uri, table, schema, prefix, shards }: Values, env: NodeJS.ProcessEnv): Options {
  const count = wholeNumber('shards', shards, 32_767);
  const given = { uri, table, schema, shards: count, prefix, createTable: false };
  return parseOptions(given as PgStoreOptions, env);
}

/** Runs `work` on a store that has no timers and does not retry, so that a failure is reported at once. */
async function withStore<T>(options: Options, work: (store: PgStore) => Promise<T>): Promise<T> {
  const { uri, table, schema, shards } = options;
  const place = { table, schema, createTable: false, ...(uri !== undefined && { uri }), ...(shards && { shards }) };
  await using store = new PgStore({ ...place, autodelete: false, retry: { attempts: 1 } });
  return await work(store);
}

/** Runs `work` on one connection without a time limit, because its statements may read a large table. */
async function withConnection<T>(options: Options, work: (query: BoundQuery) => Promise<T>): Promise<T> {
  const connection = new ConnectionPool({ ...options, maxConnections: 1, timeout: 24 * 3_600_000 });
  try {
    return await work((text, values) => connection.query(text, values, Number.POSITIVE_INFINITY));
  } finally {
    await connection.end();
  }
}

/** A flag's value as a whole number from 1 on; `undefined` if the flag is not given. @throws UsageError */
function wholeNumber(flag: string, text: string | undefined, most: number): number | undefined {
  if (text === undefined) return undefined;
  if (/^[1-9]\d*$/.test(text) && Number(text) <= most) return Number(text);
  throw new UsageError(`--${flag}: expected a whole number from 1 to ${most}, got '${text}'`);
}
