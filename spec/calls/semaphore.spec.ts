/** Does a semaphore let so many in, in order, and no more? */

import assert from 'node:assert/strict';
import { Semaphore } from '../../lib/calls/semaphore.js';

describe('semaphore', () => {
  it('lets so many in at once, the others in the order in which they came', async () => {
    const semaphore = new Semaphore(2);
    const entered: number[] = [];
    const releases: (() => void)[] = [];
    for (let n = 0; n < 5; n++) {
      void semaphore.acquire().then((release) => {
        entered.push(n);
        releases.push(release);
      });
    }
    const immediate = () => new Promise(setImmediate);
    await immediate();
    assert.deepEqual(entered, [0, 1]);
    for (const expected of [
      [0, 1, 2],
      [0, 1, 2, 3],
      [0, 1, 2, 3, 4],
    ]) {
      releases.shift()?.();
      await immediate();
      assert.deepEqual(entered, expected);
    }
  });
});
