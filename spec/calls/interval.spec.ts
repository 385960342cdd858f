import assert from 'node:assert/strict';
import { Interval, shorterOrLonger } from '../../lib/calls/interval.js';

/** Runs `work` with a `setInterval` that only writes down what it was asked for. */
function withTimers(work: () => void): { run: () => Promise<void>; period: number; isUnref: boolean }[] {
  const { setInterval } = globalThis;
  const timers: { run: () => Promise<void>; period: number; isUnref: boolean }[] = [];
  globalThis.setInterval = ((run: () => Promise<void>, period: number) => {
    const timer = { run, period, isUnref: false, unref: () => Object.assign(timer, { isUnref: true }) };
    timers.push(timer);
    return timer;
  }) as any;
  try {
    work();
  } finally {
    globalThis.setInterval = setInterval;
  }
  return timers;
}

describe('Interval', () => {
  it('varies its period by at most a quarter, once', () => {
    const { random } = Math;
    try {
      const periods = [0, 0.5, 1].map((value) => {
        Math.random = () => value;
        const [timer, ...others] = withTimers(() => new Interval(900, async () => {}));
        assert.equal(others.length, 0);
        return timer?.period;
      });
      assert.deepEqual(periods, [675_000, 900_000, 1_125_000]);
    } finally {
      Math.random = random;
    }
    const [timer] = withTimers(
      () =>
        new Interval(
          5,
          async () => {},
          (milliseconds) => milliseconds / 2,
        ),
    );
    assert.equal(timer?.period, 2500);
    assert(shorterOrLonger(1000) >= 750 && shorterOrLonger(1000) <= 1250);
  });

  it('has no timer where it is off, and none that keeps the process alive', () => {
    assert.deepEqual(
      withTimers(() => new Interval(false, async () => {})),
      [],
    );
    assert.equal(withTimers(() => new Interval(900, async () => {}))[0]?.isUnref, true);
  });

  it('leaves out a turn while the last one is still running, and goes on after one that failed', async () => {
    let runs = 0;
    let finish = (_error?: Error) => {};
    const [timer] = withTimers(
      () =>
        new Interval(1, () => {
          runs++;
          return new Promise((resolve, reject) => {
            finish = (error) => (error ? reject(error) : resolve());
          });
        }),
    );
    const first = timer?.run();
    void timer?.run();
    assert.equal(runs, 1);
    finish();
    await first;
    const second = timer?.run();
    assert.equal(runs, 2);
    finish(new Error('refused'));
    await assert.rejects(second as Promise<void>, /refused/);
    void timer?.run();
    assert.equal(runs, 3);
  });
});
