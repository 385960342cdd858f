/** What did we set out to reach, and what was measured? */

import { medianRatio } from './measure.js';
import { figure } from './report.js';
import type { Results } from './results.js';

export interface Target {
  readonly what: string;
  readonly goal: string;
  readonly measured: string;
  readonly reached: boolean;
}

/** Only of what was measured in this run. */
export function targetsOf(results: Results): Target[] {
  const targets: Target[] = [];
  const { samples, wal, growth, deletion, heap, skipped } = results;
  const add = (what: string, goal: string, measured: string, reached: boolean) =>
    targets.push({ what, goal, measured, reached });
  const compare = (what: string, against: string, operation: string, inFlight: number, least: number) => {
    const ours = samples.of('PgStore', operation, inFlight);
    const theirs = samples.of(against, operation, inFlight);
    if (ours.length === 0 || theirs.length === 0) return;
    const ratio = medianRatio(ours, theirs);
    add(what, `>= ${least} x ${against}`, `${figure(ratio)} x`, ratio >= least);
  };
  const names = { get: 'get', set: 'set (changed data)', touch: 'touch that must write' };
  const least = { get: 5, set: 3.5, touch: 4 };
  for (const operation of ['get', 'set', 'touch'] as const) {
    compare(`${names[operation]}, 128 in flight`, 'connect-pg-simple', operation, 128, least[operation]);
    if (operation === 'get') compare('get, 128 in flight', 'connect-redis', 'get', 128, 1);
  }
  if (skipped) {
    const { touches, statements } = skipped;
    add('skipped touch', 'no statement', `${statements} statements for ${touches} touches`, statements === 0);
  }
  for (const operation of ['get', 'set', 'touch'] as const) {
    compare(`${names[operation]}, 1 in flight`, 'connect-pg-simple', operation, 1, 1);
  }
  for (const operation of ['get', 'set', 'touch'] as const) {
    const ours = samples.of('PgStore', operation, 128);
    const theirs = samples.of('connect-pg-simple', operation, 128);
    if (ours.length === 0) continue;
    const ratio = medianRatio(ours, theirs, 'p99');
    add(`p99 of ${operation}, 128 in flight`, '<= 0.5 x connect-pg-simple', `${figure(ratio)} x`, ratio <= 0.5);
  }
  compare('Express app, requests that read', 'MemoryStore', 'read', 100, 0.95);
  compare('Express app, requests that read', 'connect-pg-simple', 'read', 100, 2.5);
  compare('Express app, requests that change', 'MemoryStore', 'change', 100, 0.8);
  compare('Express app, requests that change', 'connect-pg-simple', 'change', 100, 1.8);
  if (wal) {
    const { ours, theirs } = wal;
    const measured = `${figure(ours)} against ${figure(theirs)} bytes`;
    add('WAL a request that reads, rolling', '<= 1/20 of connect-pg-simple', measured, ours <= theirs / 20);
  }
  if (growth) {
    for (const operation of ['get', 'set'] as const) {
      const [few, many] = growth[operation];
      add(`${operation}, 10^4 -> 10^6 rows`, 'keeps >= 0.8', figure(many / few), many / few >= 0.8);
    }
  }
  if (deletion) {
    const { before, during, longest } = deletion;
    const measured = `${figure(during / before)} x (${figure(before)} -> ${figure(during)} ms)`;
    add('p99 of 32 gets while 10^6 expired rows go', '<= 2 x', measured, during <= 2 * before);
    add('longest statement of that deletion', '<= 200 ms', `${figure(longest)} ms`, longest <= 200);
  }
  if (heap) {
    const [first, last] = [heap.megabytes[1], heap.megabytes.at(-1) as number];
    const measured = `${figure(first)} -> ${figure(last)} MB`;
    // Noise of the collector apart: a leak of 20 bytes a call would show.
    add('heap while 10^6 calls pass', 'flat', measured, last - first < 16);
    add('a queue of 10^5 waiting calls', 'drains', `in ${figure(heap.drained)} s`, true);
  }
  return targets;
}

/** The first column and the last to the left. */
export function targetTable(targets: Target[]): string {
  const measured = targets.map((target) => target.measured);
  const width = (cells: string[]) => Math.max(...cells.map((cell) => cell.length));
  const columns = [width(targets.map(({ what }) => what)), width(targets.map(({ goal }) => goal)), width(measured)];
  const line = (cells: string[]) => cells.map((cell, n) => cell.padEnd(columns[n] ?? 0)).join('  ');
  return targets
    .map(({ what, goal, measured, reached }) => line([what, goal, measured, reached ? 'reached' : 'NOT reached']))
    .join('\n');
}
