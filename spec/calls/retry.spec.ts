/** Transient errors are retried, others are not. */

import assert from 'node:assert/strict';
import { backoffDelay, isRowLevelError, isTransient } from '../../lib/calls/retry.js';

const failing = (code: unknown) => Object.assign(new Error('failed'), { code });

const passing = [
  ...['08000', '08001', '08003', '08004', '08006', '08P01', '57P01', '57P02', '57P03', '53300', '40001', '40P01'],
  ...['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'CONNECTION_CLOSED', 'CONNECT_TIMEOUT'],
];
const final = ['22021', '23505', '42501', '42P01', '28P01', '3D000', '57014', '40002', '53200', 'XX000', 'TIMEOUT'];

describe('retry', () => {
  it('knows the failures that pass', () => {
    for (const code of passing) assert.equal(isTransient(failing(code)), true, code);
  });

  it('knows a Citus coordinator’s lost connection to a worker by its message', () => {
    const lost = new Error('failure on connection marked as essential: worker-1:5432');
    assert.equal(isTransient(Object.assign(lost, { code: 'XX000' })), true);
    assert.equal(isTransient(Object.assign(new Error(lost.message), { code: 'P0001' })), false);
  });

  it('takes every other failure as final', () => {
    for (const code of final) assert.equal(isTransient(failing(code)), false, code);
    for (const error of [null, undefined, 'ECONNREFUSED', new Error('08006'), failing(8006), {}]) {
      assert.equal(isTransient(error), false);
    }
  });

  it('doubles its pauses, and adds up to half of each at random', () => {
    const pauses = (random: number) =>
      [1, 2, 3, 4, 5].map((attempt) => backoffDelay(attempt, { attempts: 6, delay: 100 }, () => random));
    assert.deepEqual(pauses(0), [100, 200, 400, 800, 1600]);
    assert.deepEqual(pauses(1), [150, 300, 600, 1200, 2400]);
    assert.equal(backoffDelay(3, { attempts: 6, delay: 0 }), 0);
    const random = new Set(Array.from({ length: 20 }, () => backoffDelay(1, { attempts: 6, delay: 100 })));
    assert(random.size > 1 && [...random].every((wait) => wait >= 100 && wait <= 150));
  });

  it('isolated a single row only where the statement itself could run', () => {
    for (const code of ['22P02', '22021', '23514', '42501', '54000', 'P0001', '55P03']) {
      assert.equal(isRowLevelError(failing(code)), true, code);
    }
    for (const code of [...passing, 'TIMEOUT', '42P01', '42703', '28P01', '3F000', '53100', '25006', '58030']) {
      assert.equal(isRowLevelError(failing(code)), false, code);
    }
  });
});
