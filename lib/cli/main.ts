/** The command line: chooses the command, prints help, and reports errors. */

import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { codeOf, PgStoreError, toPgStoreError } from '../errors.js';
import { COMMANDS, type Command, type Flags, UsageError } from './commands.js';

export interface Outcome {
  /** The exit code: 0 success, 1 failure, 2 usage error. */
  readonly code: 0 | 1 | 2;
  /** The text for standard output. */
  readonly out: string;
  /** The text for standard error. */
  readonly err: string;
}

const EXIT_CODES = 'Exit codes: 0 success, 1 failure, 2 usage error.\n';

/** Runs the command line. It never rejects: errors become an exit code and a text. @param args without the program */
export async function main(args: string[], env: NodeJS.ProcessEnv): Promise<Outcome> {
  const isHelp = args.length === 0 || /^(help|--help|-h)$/.test(args[0] as string);
  const name = (isHelp ? args[1] : args[0]) ?? '';
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  const success = (out: string) => ({ code: 0, out, err: '' }) as const;
  try {
    if (name === '--version') return success(`${createRequire(import.meta.url)('../../package.json').version}\n`);
    if (isHelp && name === '') return success(overview());
    if (!command) throw new UsageError(`unknown command '${name}'`);
    return success(isHelp ? help(name, command) : await run(name, command, args.slice(1), env));
  } catch (error) {
    const { message } = error as Error;
    if (!(error instanceof UsageError || codeOf(error).startsWith('ERR_PARSE_ARGS') || /^PgStore: /.test(message))) {
      return { code: 1, out: '', err: `express-pg-store: ${explain(error, env)}\n` };
    }
    const help = command ? `help ${name}` : 'help';
    const err = `express-pg-store: ${message.replace('PgStore: ', '')}\nTry 'express-pg-store ${help}'.\n`;
    return { code: 2, out: '', err };
  }
}

async function run(name: string, command: Command, args: string[], env: NodeJS.ProcessEnv): Promise<string> {
  const { values } = parseArgs({ args, options: command.flags as Flags });
  if (values.help) return help(name, command);
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
function explain(error: unknown, env: NodeJS.ProcessEnv): string {
  const { message } = error instanceof PgStoreError ? error : toPgStoreError('', error);
  const reason = message.replace(/^PgStore\.\w*: |, and option `createTable` is false$/g, '');
  if (codeOf(error) === '42P01') {
    return `${reason}\n'express-pg-store schema' prints the SQL that creates the store's table.`;
  }
  const isSet = Object.keys(env).some((name) => env[name] && /^(DATABASE_URL|PG[A-Z]+)$/.test(name));
  return isSet ? reason : `${reason}\nNeither --uri nor DATABASE_URL nor a PG* variable is set.`;
}

function overview(): string {
  const commands = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(10)}${summary}\n`);
  return `Usage: express-pg-store COMMAND [OPTIONS]

${commands.join('')}
'express-pg-store help COMMAND' describes a command, --version prints the version.
${EXIT_CODES}`;
}

/** The help of one command. */
function help(name: string, { summary, more, flags }: Command): string {
  const lines = Object.entries(flags).map(([flag, { value, help }]) => `  ${`--${flag} ${value}`.padEnd(23)}${help}\n`);
  return `Usage: express-pg-store ${name} [OPTIONS]\n\n${summary}\n${more}\n\n${lines.join('')}\n${EXIT_CODES}`;
}
