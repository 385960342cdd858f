/**
 * Mocha's root hooks: one PostgreSQL for the whole run, started at first use, stopped at the end.
 */

import { stopPostgres } from './postgres.js';

export async function mochaGlobalTeardown(): Promise<void> {
  await stopPostgres();
}
