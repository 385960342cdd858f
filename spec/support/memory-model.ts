/**
 * Checks random programs against the model without PostgreSQL: two stores use a table in memory, and their statements
 * overlap in any order.
 */

import { RandomOrder } from './memory-statements.js';
import { MemoryTable } from './memory-table.js';
import { memoryWorld, openMemoryStore } from './memory-world.js';
import { checkByModel } from './race-programs.js';
import { random } from './random.js';

/** The probability that a write finds its row locked by somebody else's statement, as can happen on PostgreSQL. */
const LOCKED = 0.05;

/**
 * Runs 1 to 60 random programs side by side, and repeats that `runs` times.
 *
 * @returns how many programs were run
 * @throws an error that shows one program whose answers no order of its calls explains
 */
export async function checkInMemory(runs: number, seed: number): Promise<number> {
  const table = new MemoryTable();
  const how = { order: new RandomOrder(random(seed)), locked: LOCKED };
  // With `touchAfter: 0` each touch is sent. A touch that is skipped would not notice that its session was destroyed.
  const options = { touchAfter: 0, timeout: 60_000, user: (session: any) => session.user };
  const open = () => openMemoryStore(options, table, how).store;
  try {
    return await checkByModel([open(), open()], { runs, seed, onRunEnd: () => table.rows.clear() });
  } finally {
    await memoryWorld().closeStores();
  }
}

/** The seed in environment variable SEED, or a random one. */
export function seedOfRun(): number {
  const { SEED } = process.env;
  return SEED === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(SEED);
}
