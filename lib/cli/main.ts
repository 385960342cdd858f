/** The command line: which command runs, its help, and how its outcome is reported. */

import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';
import { codeOf, PgStoreError, toPgStoreError } from '../errors.js';
import { COMMANDS, FLAGS, UsageError } from './commands.js';

export interface Io {
  out(text: string): void;
  err(text: string): void;
  env: NodeJS.ProcessEnv;
}

const PROCESS_IO: Io = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  env: process.env,
};

const EXIT_CODES = 'Exit codes: 0 success, 1 failure, 2 usage error.\n';

/** @returns the exit code: 0 success, 1 failure, 2 usage error */
export async function main(args: string[], io: Io = PROCESS_IO): Promise<0 | 1 | 2> {
  const isHelp = args.length === 0 || ['help', '--help', '-h'].includes(args[0] as string);
  const name = (isHelp ? args[1] : args[0]) ?? '';
  const isCommand = Object.hasOwn(COMMANDS, name);
  try {
    if (name === '--version') io.out(`${createRequire(import.meta.url)('../../package.json').version}\n`);
    else if (isHelp && name === '') io.out(overview());
    else if (!isCommand) throw new UsageError(`unknown command '${name}'`);
    else io.out(isHelp ? help(name) : await run(name, args.slice(1), io.env));
    return 0;
  } catch (error) {
    const { message } = error as Error;
    const isUsage =
      error instanceof UsageError || codeOf(error).startsWith('ERR_PARSE_ARGS') || message.startsWith('PgStore: ');
    io.err(`express-pg-store: ${isUsage ? message.replace('PgStore: ', '') : explain(error, name, io.env)}\n`);
    if (isUsage) io.err(`Try 'express-pg-store ${isCommand ? `help ${name}` : 'help'}'.\n`);
    return isUsage ? 2 : 1;
  }
}

async function run(name: string, args: string[], env: NodeJS.ProcessEnv): Promise<string> {
  const options = Object.fromEntries(flagsOf(name)) as typeof FLAGS;
  const { values } = parseArgs({ args, options });
  if (values.help) return help(name);
  const result = await COMMANDS[name]?.run(values, env);
  if (typeof result !== 'object') return result ?? '';
  return values.json ? `${JSON.stringify(result)}\n` : lines(result);
}

/** A line for each property, several where it is a list. */
function lines(result: object): string {
  const entries = Object.entries(result).flatMap(([name, value]) => [value].flat().map((one) => [name, one] as const));
  const label = (name: string) => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`).padEnd(13);
  const show = (value: unknown) =>
    typeof value === 'object' && value
      ? Object.values(value)
          .map((one) => JSON.stringify(one))
          .join(': ')
      : (value ?? '-');
  return entries.map(([name, value]) => `${label(name)}${show(value)}\n`).join('');
}

/** In words that may be shown: PostgreSQL's own messages on bad data quote them. */
function explain(error: unknown, command: string, env: NodeJS.ProcessEnv): string {
  const { message } = error instanceof PgStoreError ? error : toPgStoreError('', error);
  const reason = message.replace(/^PgStore\.\w*: /, '');
  if (codeOf(error) === '42P01') {
    return command === 'import'
      ? `${reason}\n--from and --from-schema name connect-pg-simple's table.`
      : `${reason}\n'express-pg-store schema' prints the SQL that creates the store's table.`;
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

function help(command: string): string {
  const flags = flagsOf(command).map(([name, { value, help }]) => `  ${`--${name} ${value}`.padEnd(23)}${help}\n`);
  const { summary, more } = COMMANDS[command] ?? {};
  return `Usage: express-pg-store ${command} [OPTIONS]\n\n${summary}\n${more}\n\n${flags.join('')}\n${EXIT_CODES}`;
}

function flagsOf(command: string) {
  return (COMMANDS[command]?.flags ?? []).map((name) => [name, FLAGS[name]] as const);
}
