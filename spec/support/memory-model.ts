/** The model check without PostgreSQL: two processes on a table in memory, whose statements overlap in any order. */

import { RandomOrder } from './memory-statements.js';
import { MemoryTable } from './memory-table.js';
import { memoryWorld, openMemoryStore } from './memory-world.js';
import { checkByModel } from './race-programs.js';
import { random } from './random.js';

/** Now and then a write finds its row locked by a statement of somebody else, as on PostgreSQL. */
const LOCKED = 0.05;

/**
 * Runs 1 to 60 random programs side by side, so many times.
 *
 * @returns how many programs were run
 * @throws an error that shows one program whose answers no order of its calls explains
 */
export async function checkInMemory(runs: number, seed: number): Promise<number> {
  const table = new MemoryTable();
  const how = { order: new RandomOrder(random(seed)), locked: LOCKED };
  // A skipped touch does not notice a destroyed session: here each touch is sent.
  const options = { touchAfter: 0, timeout: 60_000, user: (session: any) => session.user };
  const open = () => openMemoryStore(options, table, how).store;
  try {
    return await checkByModel([open(), open()], { runs, seed, onRunEnd: () => table.rows.clear() });
  } finally {
    await memoryWorld().closeStores();
  }
}

export function seedOfRun(): number {
  const { SEED } = process.env;
  return SEED === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(SEED);
}
