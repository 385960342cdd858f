/**
 * Mocha's global fixtures, which provide one PostgreSQL server for the run. They run in Mocha's main process. With
 * `--parallel` the specs run in worker processes, which find the server by an environment variable. Otherwise the specs
 * run in the main process, and the first one that needs the server starts it.
 */

import v8 from 'node:v8';
import type { RootHookObject, Runner } from 'mocha';
import { sharePostgres, stopPostgres } from './postgres.js';

/**
 * The command `mocha` starts Mocha's main process, which would continue if that command is killed. So it ends when it
 * gets another parent, and its end stops all servers that it has started.
 */
const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) process.exit(1);
}, 1000).unref();

/** Mocha kills its worker processes, so each file's coverage is written after it (`npm run coverage`). */
const measuresCoverage = process.env.NODE_V8_COVERAGE !== undefined;
// V8 forgets what it counted in a function whose bytecode it flushes.
if (measuresCoverage) v8.setFlagsFromString('--no-flush-bytecode');
export const mochaHooks: RootHookObject = measuresCoverage ? { afterAll: () => v8.takeCoverage() } : {};

export async function mochaGlobalSetup(this: Runner & { isParallelMode(): boolean }): Promise<void> {
  if (this.isParallelMode()) await sharePostgres();
}

export async function mochaGlobalTeardown(): Promise<void> {
  // A resource that a failed spec has left open must not keep the process alive for ever.
  setTimeout(() => {
    console.error(`Still open after the last spec: ${process.getActiveResourcesInfo().join(', ')}`);
    process.once('exit', () => {
      process.exitCode ||= 1;
    });
    process.exit();
  }, 20_000).unref();
  await stopPostgres();
}
