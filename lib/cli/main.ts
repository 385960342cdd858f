/** The command line: which command is meant, and how its outcome is reported. */

import { parseArgs } from 'node:util';
import postgres, { type Sql } from 'postgres';
import { createSchemaSql, createTableSql } from '../database/schema.js';
import { PgStoreError, toPgStoreError } from '../errors.js';
import { type Options, type PgStoreOptions, parseOptions } from '../options.js';
import { PgStore } from '../pg-store.js';
import { HELP, OVERVIEW } from './help.js';
import { importSessions } from './import.js';
import { stats, statsText } from './stats.js';

export interface Io {
  out(text: string): void;
  err(text: string): void;
  /** Whether `err` is a terminal, for a progress bar. */
  isTerminal: boolean;
  env: NodeJS.ProcessEnv;
}

const PROCESS_IO: Io = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  isTerminal: process.stderr.isTTY === true,
  env: process.env,
};

class UsageError extends Error {}

const TABLE = { table: { type: 'string' }, schema: { type: 'string' }, help: { type: 'boolean', short: 'h' } } as const;
const SERVER = { ...TABLE, uri: { type: 'string' }, json: { type: 'boolean' } } as const;
/** Each command's flags, as node:util's parseArgs takes them. */
export const COMMANDS = {
  schema: { ...TABLE, partitions: { type: 'string' } },
  import: {
    ...SERVER,
    from: { type: 'string' },
    'from-schema': { type: 'string' },
    since: { type: 'string' },
    ttl: { type: 'string' },
    'dry-run': { type: 'boolean' },
    prefix: { type: 'string' },
    secret: { type: 'string', multiple: true },
    'hash-ids': { type: 'boolean' },
    'encryption-key': { type: 'string', multiple: true },
  },
  prune: SERVER,
  stats: { ...SERVER, prefix: { type: 'string' } },
} as const;

type Command = keyof typeof COMMANDS;

/** Every flag of every command; those that a command does not have are undefined. */
interface Flags {
  table?: string;
  schema?: string;
  uri?: string;
  json?: boolean;
  help?: boolean;
  partitions?: string;
  from?: string;
  'from-schema'?: string;
  since?: string;
  ttl?: string;
  'dry-run'?: boolean;
  prefix?: string;
  secret?: string[];
  'hash-ids'?: boolean;
  'encryption-key'?: string[];
}

/** @returns the exit code: 0 fine, 1 failed, 2 called wrongly */
export async function main(args: string[], io: Io = PROCESS_IO): Promise<0 | 1 | 2> {
  const [name = '', ...rest] = args;
  const command = Object.hasOwn(COMMANDS, name) ? (name as Command) : undefined;
  try {
    if (command) {
      const flags = readFlags(command, rest);
      if (flags.help) io.out(HELP[command]);
      else await run(command, flags, io);
    } else if (['--help', '-h', 'help'].includes(name)) io.out(OVERVIEW);
    else throw new UsageError(name === '' ? 'which command?' : `unknown command '${name}'`);
    return 0;
  } catch (error) {
    const isUsage =
      error instanceof UsageError || (error instanceof TypeError && error.message.startsWith('PgStore: '));
    io.err(`express-pg-store: ${messageOf(error).replace(/^PgStore(\.\w*)?: /, '')}\n`);
    if (isUsage) io.err(`Try 'express-pg-store ${command ? `${command} ` : ''}--help'.\n`);
    return isUsage ? 2 : 1;
  }
}

function readFlags(command: Command, args: string[]): Flags {
  try {
    return parseArgs({ args, options: COMMANDS[command], strict: true, allowPositionals: false }).values as Flags;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

async function run(command: Command, flags: Flags, io: Io): Promise<void> {
  const options = parseOptions(storeOptions(flags, io.env), io.env);
  if (command === 'schema') {
    const partitions = wholeNumber('partitions', flags.partitions, 1000) ?? 0;
    io.out((options.schema === 'public' ? '' : createSchemaSql(options.schema)) + createTableSql(options, partitions));
  } else if (command === 'prune') {
    const rows = await withStore(options, (store) => store.autodelete());
    io.out(flags.json ? `${JSON.stringify({ deleted: rows })}\n` : `${count(rows, 'expired session')} deleted\n`);
  } else if (command === 'stats') {
    const found = await withClient(options, (sql) => stats(sql, options));
    io.out(flags.json ? `${JSON.stringify(found)}\n` : statsText(found));
  } else await runImport(options, flags, io);
}

async function runImport(options: Options, flags: Flags, io: Io): Promise<void> {
  const since = flags.since === undefined ? undefined : new Date(flags.since);
  if (Number.isNaN(since?.getTime())) throw new UsageError(`--since: expected a time, got '${flags.since}'`);
  const isDryRun = flags['dry-run'] ?? false;
  const showsBar = io.isTerminal && !flags.json;
  if (!isDryRun) await withStore({ ...options, createTable: true }, (store) => store.ready());
  const result = await withClient(options, (sql) =>
    importSessions(sql, options, {
      from: { schema: flags['from-schema'] ?? 'public', table: flags.from ?? 'session' },
      since,
      ttl: wholeNumber('ttl', flags.ttl, 1e11) ?? 86_400,
      isDryRun,
      onProgress: (done, all) => showsBar && io.err(bar(done, all)),
    }),
  );
  if (showsBar) io.err('\n');
  if (flags.json) return io.out(`${JSON.stringify({ dryRun: isDryRun, ...result })}\n`);
  const would = isDryRun ? 'would be ' : '';
  io.out(`${count(result.live, 'live session')} found: ${result.added} ${would}added, ${result.refreshed} ${would}refreshed, \
${result.kept} left as they are, ${result.unreadable} unreadable
To bring what the old app writes from now on, repeat with --since ${result.startedAt}\n`);
}

function storeOptions(flags: Flags, env: NodeJS.ProcessEnv): PgStoreOptions {
  const secret = flags.secret ?? env.PG_STORE_SECRET;
  const encryptionKey = flags['encryption-key'] ?? env.PG_STORE_ENCRYPTION_KEY;
  const given = {
    uri: flags.uri,
    table: flags.table,
    schema: flags.schema,
    prefix: flags.prefix,
    hashIds: flags['hash-ids'],
    secret: secret || undefined,
    encryptionKey: encryptionKey || undefined,
    createTable: false,
    autodelete: false as const,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as PgStoreOptions;
}

async function withStore<T>(options: Options, work: (store: PgStore) => Promise<T>): Promise<T> {
  const { uri, table, schema, createTable } = options;
  const place = uri === undefined ? {} : { uri };
  const store = new PgStore({ ...place, table, schema, createTable, autodelete: false, retry: { attempts: 1 } });
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}

async function withClient<T>({ uri }: Options, work: (sql: Sql) => Promise<T>): Promise<T> {
  const settings = { max: 1, onnotice: () => {}, connect_timeout: 10, fetch_types: false };
  const sql = uri === undefined ? postgres(settings) : postgres(uri, settings);
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

function wholeNumber(flag: string, text: string | undefined, most: number): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d+$/.test(text) || Number(text) > most || Number(text) === 0) {
    throw new UsageError(`--${flag}: expected a whole number from 1 to ${most}, got '${text}'`);
  }
  return Number(text);
}

/** What may be shown: PostgreSQL's messages on bad data quote them. */
function messageOf(error: unknown): string {
  if (error instanceof UsageError || error instanceof TypeError || error instanceof PgStoreError) return error.message;
  return toPgStoreError('', error).message;
}

function bar(done: number, all: number): string {
  const part = all === 0 ? 1 : Math.min(1, done / all);
  return `\r[${'#'.repeat(Math.floor(part * 30)).padEnd(30)}] ${Math.floor(part * 100)} % of ${all}`;
}

function count(number: number, thing: string): string {
  return `${number} ${thing}${number === 1 ? '' : 's'}`;
}
