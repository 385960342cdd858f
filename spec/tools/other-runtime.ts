/**
 * Do the store's main specs pass on Bun and on Deno?
 *
 *     npm run test:runtime -- bun|deno [spec files]
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { postgresUri, stopPostgres } from '../support/postgres.js';
import { areToolsInstalled, INSTALL_TOOLS, toolFile } from '../support/tools.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

if (!areToolsInstalled()) throw new Error(`run \`${INSTALL_TOOLS}\` first`);

/** How each runtime is started with a program in TypeScript; its imports name the files as `.js`. */
const RUNTIMES: Record<string, string[]> = {
  bun: [binary('@oven', 'bin/bun')],
  deno: [binary('@deno', 'deno'), 'run', '--allow-all', '--unstable-sloppy-imports'],
};

/** The contract, concurrent requests over HTTP, faults of server and network, and `close()`. */
const MAIN_SPECS = [
  'spec/store/contract.spec.ts',
  'spec/store/concurrency-http.spec.ts',
  'spec/store/pg-store.spec.ts',
  'spec/faults/faults.spec.ts',
  'spec/faults/faults-server.spec.ts',
  'spec/faults/faults-network.spec.ts',
];

const [name = '', ...specs] = process.argv.slice(2);
const command = RUNTIMES[name];
if (!command) throw new Error(`expected ${Object.keys(RUNTIMES).join(' or ')}, got ${name}`);
const [file = '', ...args] = command;
const mocha = path.join(import.meta.dirname, 'mocha-here.ts');
try {
  // The server that the specs share belongs to this process. Some specs start others of their own.
  const env = { ...process.env, DATABASE_URL: await postgresUri() };
  const files = specs.length > 0 ? specs : MAIN_SPECS;
  const child = spawn(file, [...args, mocha, ...files], { cwd: ROOT, env, stdio: 'inherit' });
  const [code] = await once(child, 'exit');
  process.exitCode = code ?? 1;
} finally {
  await stopPostgres();
}

/** The executable in the one package of a scope that npm has installed for this machine. */
function binary(scope: string, file: string): string {
  const [installed = ''] = fs.readdirSync(toolFile(scope, '.'));
  return toolFile(`${scope}/${installed}`, process.platform === 'win32' ? `${file}.exe` : file);
}
