/** The same model check as on PostgreSQL, with many times its programs. */

import assert from 'node:assert/strict';
import { checkInMemory, seedOfRun } from '../support/memory-model.js';

describe('concurrency by model, in memory', () => {
  it('explains thousands of random programs of several requests in two processes', async () => {
    // `npm run model` runs a hundred times those of spec/store/concurrency-model.spec.ts.
    const programs = await checkInMemory(120, seedOfRun());
    assert(programs >= 1500, `only ${programs} programs were run`);
  });
});
