/** The command line: chooses the command, prints help, and reports errors. */

import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { codeOf, PgStoreError, toPgStoreError } from '../errors.js';
import { ALL_FLAGS, COMMANDS, type Command, type Flags, UsageError } from './commands.js';

export interface Outcome {
  /** The exit code: 0 success, 1 failure, 2 usage error. */
  readonly code: 0 | 1 | 2;
  /** The text for standard output. */
  readonly out: string;
  /** The text for standard error. */
  readonly err: string;
}

/** The end of each help text. */
const NOTES = `Commands that connect use DATABASE_URL, or the PG* variables with a password file (PGPASSFILE).
Every user of the machine can read the connection string in --uri, and a password in it, with 'ps'.

Exit codes: 0 success, 1 failure, 2 usage error.
`;

/** Runs the command line. It never rejects: errors become an exit code and a text. @param args without the program */
export async function main(args: string[], env: NodeJS.ProcessEnv): Promise<Outcome> {
  const { name, others, isHelp, isVersion, hasUri } = read(args);
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  const success = (out: string) => ({ code: 0, out, err: '' }) as const;
  try {
    if (isVersion) return success(`${createRequire(import.meta.url)('../../package.json').version}\n`);
    if (isHelp && name === '') return success(overview());
    if (!command) throw new UsageError(name === '' ? 'expected a command' : `unknown command '${name}'`);
    return success(isHelp ? help(name, command) : await run(command, others, env));
  } catch (error) {
    const { message } = error as Error;
    if (!(error instanceof UsageError || codeOf(error).startsWith('ERR_PARSE_ARGS') || /^PgStore: /.test(message))) {
      return { code: 1, out: '', err: `express-pg-store: ${explain(error, hasUri, env)}\n` };
    }
    const help = command ? `help ${name}` : 'help';
    const err = `express-pg-store: ${message.replace('PgStore: ', '')}\nTry 'express-pg-store ${help}'.\n`;
    return { code: 2, out: '', err };
  }
}

interface Reading {
  /** The name of the command, whether it exists or not; empty if there is none. */
  readonly name: string;
  /** The arguments without the name of the command. */
  readonly others: string[];
  readonly isHelp: boolean;
  readonly isVersion: boolean;
  readonly hasUri: boolean;
}

/** Finds the command among the arguments: options may stand before it. The command itself checks its options. */
function read(args: string[]): Reading {
  const { values, tokens } = parseArgs({
    args,
    options: ALL_FLAGS,
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const words = tokens.filter(({ kind }) => kind === 'positional').map(({ index }) => index);
  const asksForHelp = args[words[0] ?? -1] === 'help';
  if (asksForHelp) words.shift();
  // The value of an unknown option counts as a word, too, so a command that exists is preferred to the first word.
  const place = words.find((index) => Object.hasOwn(COMMANDS, args[index] as string)) ?? words[0] ?? -1;
  return {
    name: args[place] ?? '',
    others: args.filter((_, index) => index !== place),
    isHelp: args.length === 0 || asksForHelp || values.help === true,
    isVersion: values.version === true,
    hasUri: values.uri !== undefined,
  };
}

async function run(command: Command, args: string[], env: NodeJS.ProcessEnv): Promise<string> {
  const { values } = parseArgs({ args, options: command.flags as Flags });
  const result = await command.run(values, env);
  if (typeof result === 'string') return result;
  return values.json ? `${JSON.stringify(result)}\n` : lines(result);
}

/** An object as text: one line for each property, and for each element of a property that is an array. */
function lines(result: object): string {
  const entries = Object.entries(result).flatMap(([name, value]) => [value].flat().map((one) => [name, one] as const));
  const label = (name: string) => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`).padEnd(13);
  return entries
    .map(([name, value]) => `${label(name)}${typeof value === 'string' ? value : JSON.stringify(value)}\n`)
    .join('');
}

/**
 * An error as a text for the terminal, with a hint what to do. PostgreSQL's messages about wrong values quote these, so
 * the text is that of a `PgStoreError`, which quotes none.
 */
function explain(error: unknown, hasUri: boolean, env: NodeJS.ProcessEnv): string {
  const { message } = error instanceof PgStoreError ? error : toPgStoreError('', error);
  const reason = message.replace(/^PgStore\.\w*: |, and option `createTable` is false$/g, '');
  if (codeOf(error) === '42P01') {
    return `${reason}\n'express-pg-store schema' prints the SQL that creates the store's table.`;
  }
  const isSet = hasUri || Object.keys(env).some((name) => env[name] && /^(DATABASE_URL|PG[A-Z]+)$/.test(name));
  return isSet ? reason : `${reason}\nNeither --uri nor DATABASE_URL nor a PG* variable is set.`;
}

function overview(): string {
  const commands = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(10)}${summary}\n`);
  return `Usage: express-pg-store COMMAND [OPTIONS]

${commands.join('')}
'express-pg-store help COMMAND' describes a command. Options may stand before the command, too.
--version prints the version.

${NOTES}`;
}

/** The help of one command. */
function help(name: string, { summary, more, flags }: Command): string {
  const lines = Object.entries(flags).map(([flag, { value, help }]) => `  ${`--${flag} ${value}`.padEnd(23)}${help}\n`);
  return `Usage: express-pg-store ${name} [OPTIONS]\n\n${summary}\n${more}\n\n${lines.join('')}\n${NOTES}`;
}
