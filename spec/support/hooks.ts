/**
 * Mocha's root hooks: one PostgreSQL for the whole run, started at first use, stopped at the end.
 */

import { stopPostgres } from './postgres.js';

export async function mochaGlobalTeardown(): Promise<void> {
  // What a spec left open, a failed one say, must not keep the run up for ever.
  setTimeout(() => {
    console.error(`Still open after the last spec: ${process.getActiveResourcesInfo().join(', ')}`);
    process.once('exit', () => {
      process.exitCode ||= 1;
    });
    process.exit();
  }, 20_000).unref();
  await stopPostgres();
}
