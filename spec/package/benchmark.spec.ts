import assert from 'node:assert/strict';
import { quantile, ratios, type Sample, spreadOf } from '../../bench/measure.js';
import { describeQuietness, isQuiet, LIMITS, relativeSpread } from '../../bench/quiet.js';
import { describe as describeMachine } from '../../bench/results.js';

const samples = (rates: number[]) => rates.map((rate): Sample => ({ rate, p50: 1, p99: 2, cpu: 3, delay: 4 }));

describe('the benchmark’s figures', () => {
  it('are medians with their quartiles, interpolated', () => {
    assert.deepEqual(spreadOf([4, 1, 3, 2]), { median: 2.5, quartiles: [1.75, 3.25] });
    assert.deepEqual(spreadOf([7]), { median: 7, quartiles: [7, 7] });
    assert.equal(quantile([10, 30], 0.25), 15);
    assert.equal(quantile([], 0.5), Number.NaN);
  });

  it('compare stores round by round: a slow round is slow for both', () => {
    assert.equal(ratios(samples([100, 10, 400]), samples([50, 5, 200])).median, 2);
  });

  it('come from a quiet machine: each of its measures has a limit', () => {
    assert(isQuiet(LIMITS));
    for (const what of ['busy', 'loop', 'gets'] as const) {
      const busy = { ...LIMITS, [what]: LIMITS[what] + 0.01 };
      assert(!isQuiet(busy), what);
      assert.match(describeQuietness(busy), /NOT quiet/);
    }
    assert.equal(relativeSpread([90, 100, 110, 100, 100]), 0);
    assert.equal(relativeSpread([80, 90, 100, 110, 120]), 0.2);
  });

  it('say so where it was not quiet, before or after the run', () => {
    const busy = { ...LIMITS, busy: 1 };
    const machine = { date: '', cpu: '', cores: 2, memoryGb: 1, system: '', versions: {}, quietness: [LIMITS, busy] };
    assert.match(describeMachine(machine), /OTHER WORK/);
    assert.doesNotMatch(describeMachine({ ...machine, quietness: [LIMITS, LIMITS] }), /OTHER WORK/);
  });
});
