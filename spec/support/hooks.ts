/**
 * Mocha's global fixtures: one PostgreSQL for the whole run. They run in Mocha's main process. With
 * `--parallel` the specs run in worker processes, which find that PostgreSQL by an environment
 * variable; without, the specs run in the main process, and the first one that needs PostgreSQL
 * starts it.
 */

import type { Runner } from 'mocha';
import { sharePostgres, stopPostgres } from './postgres.js';

/**
 * Mocha's command runs Mocha's main process, which does not notice when that command is killed, and
 * would go on. An exit stops all servers that were started.
 */
const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) process.exit(1);
}, 1000).unref();

export async function mochaGlobalSetup(this: Runner & { isParallelMode(): boolean }): Promise<void> {
  if (this.isParallelMode()) await sharePostgres();
}

export async function mochaGlobalTeardown(): Promise<void> {
  // A resource that a failed spec left open must not keep the run up forever.
  setTimeout(() => {
    console.error(`Still open after the last spec: ${process.getActiveResourcesInfo().join(', ')}`);
    process.once('exit', () => {
      process.exitCode ||= 1;
    });
    process.exit();
  }, 20_000).unref();
  await stopPostgres();
}
