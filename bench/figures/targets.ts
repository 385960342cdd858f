/** The goals for PgStore's speed, and whether a run has reached each of them. */

import type { PeerName } from '../stores/peers.js';
import { median, ratios, type Sample } from './measure.js';
import { figure, spread } from './report.js';
import type { Results } from './results.js';

export interface Target {
  readonly what: string;
  readonly goal: string;
  readonly measured: string;
  readonly reached: boolean;
}

const CALLS: Record<string, string> = {
  get: '`get`',
  set: '`set` of changed data',
  replace: '`set` of a plain object',
  touch: '`touch` that must write',
};
export const REQUESTS: Record<string, string> = {
  read: 'Express app, requests that read',
  'read-text': 'Express app, requests that read a session of one long string',
  change: 'Express app, requests that change',
};

export function titleOf({ what, inFlight }: { what: string; inFlight: number }): string {
  return REQUESTS[what] ?? `${CALLS[what]}, ${inFlight} in flight`;
}

/** The goals about which this run has measured something. */
export function targetsOf(results: Results): Target[] {
  const targets: Target[] = [];
  const { samples, wal, growth, deletion, heap, skipped, signOuts } = results;
  const add = (what: string, goal: string, measured: string, reached: boolean) =>
    targets.push({ what, goal, measured, reached });
  const pair = (against: PeerName, what: string, inFlight: number): [Sample[], Sample[]] | undefined => {
    const both: [Sample[], Sample[]] = [samples.of('PgStore', what, inFlight), samples.of(against, what, inFlight)];
    return both.every((own) => own.length > 0) ? both : undefined;
  };
  const rate = (against: PeerName, what: string, inFlight: number, least: number) => {
    const both = pair(against, what, inFlight);
    if (!both) return;
    const ratio = ratios(...both);
    add(titleOf({ what, inFlight }), `>= ${least} x ${against}`, `${spread(ratio)} x`, ratio.median >= least);
  };
  // One call at a time.
  for (const what of Object.keys(CALLS)) rate('connect-pg-simple', what, 1, 1);
  for (const what of Object.keys(CALLS)) {
    const both = pair('connect-pg-simple', what, 1);
    if (!both) continue;
    const ratio = ratios(...both, 'cpu');
    const title = `CPU of the process for ${titleOf({ what, inFlight: 1 })}`;
    add(title, "<= 1.2 x connect-pg-simple's", `${spread(ratio)} x`, ratio.median <= 1.2);
  }
  // Many calls at a time.
  rate('connect-pg-simple', 'get', 128, 7);
  rate('connect-pg-simple', 'set', 128, 5.5);
  rate('connect-pg-simple', 'replace', 128, 6);
  rate('connect-pg-simple', 'touch', 128, 8);
  rate('connect-redis (redis 5)', 'get', 128, 0.6);
  for (const what of ['get', 'set', 'touch']) {
    const both = pair('connect-pg-simple', what, 128);
    if (!both) continue;
    const ratio = ratios(...both, 'p99');
    const title = `p99 of ${CALLS[what]}, 128 in flight`;
    add(title, "<= 0.5 x connect-pg-simple's", `${spread(ratio)} x`, ratio.median <= 0.5);
  }
  if (skipped) {
    const { touches, statements } = skipped;
    add('skipped `touch`', 'no statement', `${statements} statements for ${touches} touches`, statements === 0);
  }
  // Apps.
  rate('MemoryStore', 'read', 100, 1);
  rate('MemoryStore', 'read-text', 100, 1);
  rate('MemoryStore', 'change', 100, 0.9);
  rate('connect-redis (redis 6)', 'read', 100, 1);
  rate('connect-redis (redis 6)', 'change', 100, 0.95);
  rate('connect-pg-simple', 'read', 100, 2.5);
  rate('connect-pg-simple', 'change', 100, 1.8);
  for (const what of ['read', 'change']) {
    const both = pair('MemoryStore', what, 100);
    if (!both) continue;
    const ours = median(both[0].map(({ delay }) => delay));
    const theirs = median(both[1].map(({ delay }) => delay));
    const measured = `${figure(ours)} against ${figure(theirs)} ms`;
    add(`${REQUESTS[what]}: event loop delay, p99`, "<= MemoryStore's + 2 ms", measured, ours <= theirs + 2);
  }
  const most = signOuts?.at(-1);
  if (most) {
    const { signIns, ours, plainSql, failed } = most;
    const title = `${signIns} sign-ins at once, each followed by \`destroySessionsOf\``;
    const sent = `${figure(ours.statements)} statements, plain SQL ${figure(plainSql.statements)}; ${failed} failed`;
    add(title, "no more statements than plain SQL's", sent, ours.statements <= plainSql.statements && failed === 0);
    const took = `${figure(ours.milliseconds)} ms, plain SQL ${figure(plainSql.milliseconds)} ms`;
    add(title, "<= 2 x plain SQL's time", took, ours.milliseconds <= 2 * plainSql.milliseconds);
  }
  if (wal) {
    const { ours, theirs } = wal;
    const measured = `${figure(ours)} against ${figure(theirs)} bytes`;
    add('WAL of a request that reads, `rolling`', "<= 1/20 of connect-pg-simple's", measured, ours <= theirs / 20);
  }
  if (growth) {
    for (const operation of ['get', 'set'] as const) {
      const [few, many] = growth[operation];
      add(`\`${operation}\`, 10^4 -> 10^6 rows`, 'keeps >= 0.8', figure(many / few), many / few >= 0.8);
    }
  }
  if (deletion) {
    const { before, during, longest } = deletion;
    const measured = `${figure(during / before)} x (${figure(before)} -> ${figure(during)} ms)`;
    add('p99 of 32 gets while 10^6 expired rows are deleted', '<= 2 x', measured, during <= 2 * before);
    add('longest statement of that deletion', '<= 200 ms', `${figure(longest)} ms`, longest <= 200);
  }
  if (heap) {
    const first = heap.megabytes[1] as number;
    const last = heap.megabytes.at(-1) as number;
    const measured = `${figure(first)} -> ${figure(last)} MB`;
    // The limit of 16 MB is above the noise of the garbage collector, and below a leak of 20 bytes for each call.
    add('heap while 10^6 calls pass', 'flat', measured, last - first < 16);
    add('a queue of 10^5 waiting calls', 'drains', `in ${figure(heap.drained)} s`, true);
  }
  return targets;
}
