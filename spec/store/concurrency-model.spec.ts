/**
 * Every history of calls is one that a plain model could have produced, whatever their order and
 * timing.
 */

import assert from 'node:assert/strict';
import { closeStores, freshTable, openStore } from '../support/postgres.js';
import { checkByModel } from '../support/race-programs.js';

describe('concurrency by model', () => {
  afterEach(closeStores);

  it('explains about a thousand random programs of several requests in two processes', async () => {
    // A skipped touch does not notice a destroyed session: here each touch is sent.
    const options = { table: freshTable(), touchAfter: 0, user: (session: any) => session.user };
    const stores = [await openStore(options), await openStore(options)] as const;
    const seed = process.env.SEED === undefined ? undefined : Number(process.env.SEED);
    const programs = await checkByModel(stores, { runs: 40, seed });
    assert(programs >= 500, `only ${programs} programs were run`);
  });
});
