/** Transient errors are retried, others are not. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import {
  backoffDelay,
  isRowLevelError,
  isTransient,
  PASSING_CODES,
  type Verdict,
  verdictOn,
} from '../../lib/calls/retry.js';

const failing = (code: unknown) => Object.assign(new Error('failed'), { code });

const passing = [
  ...[
    '08000',
    '08001',
    '08003',
    '08004',
    '08006',
    '08P01',
    '25006',
    '25P02',
    '57P05',
    '57P01',
    '57P02',
    '57P03',
    '53300',
    '40001',
    '40P01',
  ],
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

  describe('docs/errors.md', () => {
    const text = fs.readFileSync('docs/errors.md', 'utf8');
    /** The codes in the first column of a section's table. */
    const codesIn = (title: string) => {
      const [section = ''] = text
        .slice(text.indexOf(`### ${title}`))
        .split(/^#+ /m)
        .slice(1);
      const cells = section.split('\n').map((line) => /^\| (`.*?) \|/.exec(line)?.[1] ?? '');
      return cells.flatMap((cell) => [...cell.matchAll(/`([A-Z0-9_]{5,})`/g)].map(([, code]) => code as string));
    };
    const sections: [title: string, verdict: Verdict][] = [
      ['Transient errors', 'transient'],
      ['Errors of a connection that is not fit', 'unfit'],
      ['Errors that stay until somebody acts', 'final'],
    ];
    for (const [title, verdict] of sections) {
      it(`${title}: each is ${verdict}, and has no other row`, () => {
        const codes = codesIn(title).filter((code) => code !== 'XX000');
        assert(codes.length > 3);
        assert.equal(new Set(codes).size, codes.length);
        for (const code of codes) assert.equal(verdictOn(failing(code)), verdict, code);
      });
    }

    it('names every code that passes, and each code of the store', () => {
      const documented = sections.slice(0, 2).flatMap(([title]) => codesIn(title));
      assert.deepEqual([...PASSING_CODES, 'XX000'].sort(), documented.sort());
    });

    it('all other codes of PostgreSQL’s Appendix A are final', () => {
      const known = new Set(PASSING_CODES);
      const classes =
        `00 01 02 03 08 09 0A 0B 0F 0L 0P 0Z 10 20 21 22 23 24 25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F 40 42 44
        53 54 55 57 58 F0 HV P0 XX`.split(/\s+/);
      const endings = [
        '000',
        '001',
        '002',
        '003',
        '004',
        '005',
        '006',
        '007',
        '008',
        'P01',
        'P02',
        'P03',
        'P04',
        'P05',
      ];
      const codes = classes.flatMap((name) => endings.map((ending) => name + ending));
      for (const code of codes.filter((code) => !known.has(code)))
        assert.equal(verdictOn(failing(code)), 'final', code);
      assert(codes.length > 500);
    });
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
