/**
 * The model check in memory, with a hundred times the programs that the specs run on PostgreSQL: `npm run model`. SEED
 * runs the same programs again.
 */

import { checkInMemory, seedOfRun } from '../support/memory-model.js';

/** Times 1 to 60 programs side by side: about 110,000 programs. */
const RUNS = 4000;

const seed = seedOfRun();
const programs = await checkInMemory(RUNS, seed);
console.log(`${programs} programs, each of them explained (SEED=${seed})`);
