import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { backOffFromLockedRow } from '../../lib/calls/backoff.js';

describe('backOffFromLockedRow', () => {
  it('does not wait the first time: the row may have been changed while the statement ran', async () => {
    let isOver = false;
    void backOffFromLockedRow(1, Number.POSITIVE_INFINITY).then(() => {
      isOver = true;
    });
    for (let n = 0; n < 3; n++) await Promise.resolve();
    assert.equal(isOver, true, 'no timer was set');
  });

  it('fails after the deadline, the first time too', async () => {
    for (const tries of [1, 9]) {
      await assert.rejects(backOffFromLockedRow(tries, performance.now()), { code: 'TIMEOUT' });
    }
  });

  it('waits ever longer, up to 100 ms', async () => {
    const delays: number[] = [];
    const hook = createHook({
      init: (_id, type, _trigger, resource) => {
        if (type === 'Timeout') delays.push((resource as { _idleTimeout: number })._idleTimeout);
      },
    });
    hook.enable();
    try {
      for (const tries of [2, 3, 6, 7, 50]) await backOffFromLockedRow(tries, Number.POSITIVE_INFINITY);
    } finally {
      hook.disable();
    }
    // Mocha has set some of its own.
    assert.deepEqual(
      delays.filter((delay) => delay < 1000),
      [4, 8, 64, 100, 100],
    );
  });
});
