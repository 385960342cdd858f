/** When a task that repeats runs. */

import assert from 'node:assert/strict';
import FakeTimers from '@sinonjs/fake-timers';
import { Interval, shorterOrLonger } from '../../lib/calls/interval.js';
import { eventually } from '../support/eventually.js';

describe('Interval', () => {
  const intervals: Interval[] = [];

  afterEach(() => {
    for (const interval of intervals.splice(0)) interval.stop();
  });

  /** An interval of a millisecond. */
  function often(task: () => Promise<void>): void {
    intervals.push(new Interval(1, task, () => 1));
  }

  it('varies its period by at most a quarter', () => {
    const { random } = Math;
    try {
      const periods = [0, 0.5, 1].map((value) => {
        Math.random = () => value;
        return shorterOrLonger(900_000);
      });
      assert.deepEqual(periods, [675_000, 900_000, 1_125_000]);
    } finally {
      Math.random = random;
    }
  });

  it('varies its period once', async () => {
    const varied: number[] = [];
    let runs = 0;
    const jitter = (milliseconds: number) => {
      varied.push(milliseconds);
      return 1;
    };
    const task = async () => {
      runs++;
    };
    intervals.push(new Interval(5, task, jitter));
    await eventually(() => runs > 2);
    assert.deepEqual(varied, [5000]);
  });

  it('has no timer where it is off, and none that keeps the process alive', () => {
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const before = timers();
    intervals.push(
      new Interval(
        false,
        async () => {},
        () => assert.fail('it is off'),
      ),
    );
    intervals.push(new Interval(900, async () => {}));
    assert.equal(timers(), before);
  });

  it('leaves out a turn while the last one is still running', async () => {
    let runs = 0;
    let turns = 0;
    let finish = () => {};
    often(() => {
      runs++;
      return new Promise((resolve) => (finish = resolve));
    });
    often(async () => {
      turns++;
    });
    await eventually(() => turns > 5);
    assert.equal(runs, 1);
    finish();
    await eventually(() => runs > 1);
    assert.equal(runs, 2);
  });

  it('keeps to Node.js’s own timer where tests of an app have replaced it', async () => {
    let runs = 0;
    const clock = FakeTimers.install({ toFake: ['setInterval'] });
    try {
      often(async () => {
        runs++;
      });
    } finally {
      clock.uninstall();
    }
    await eventually(() => runs > 1);
  });
});
