/** What watching sessions costs, and when it calls back: without a database. */

import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { setImmediate as tick } from 'node:timers/promises';
import { onlyShorter } from '../../lib/calls/interval.js';
import { KeyedReadWriteLock } from '../../lib/calls/order.js';
import type { SessionEnd } from '../../lib/session/public-types.js';
import type { CheckedRow, Statements, WatchedRow } from '../../lib/session/row.js';
import { SessionIds } from '../../lib/session/session-id.js';
import { SessionWatches } from '../../lib/session/watch.js';
import { eventually } from '../support/eventually.js';

const NEVER = 1_000_000;
const MINUTE = 60_000;

/** Rows by key, and the statements that checked them. */
class FakeRows {
  readonly createdAt = new Map<string, string>();
  readonly expiresInMs = new Map<string, number>();
  readonly checked: (readonly WatchedRow[])[] = [];
  failure: Error | undefined;
  duringCheck = () => {};

  readonly statements = {
    onShard: () => ({ check: (rows: readonly WatchedRow[], soon: number) => this.#check(rows, soon) }),
  } as unknown as Statements;

  async #check(rows: readonly WatchedRow[], soon: number): Promise<CheckedRow[]> {
    this.checked.push(rows);
    this.duringCheck();
    await tick();
    if (this.failure) throw this.failure;
    return rows.flatMap(({ key, createdAt }) => {
      const row = this.createdAt.get(key);
      const expiresInMs = this.expiresInMs.get(key) ?? 24 * 60 * MINUTE;
      if (row !== undefined && row === createdAt && expiresInMs > soon * 1000) return [];
      return [{ key, createdAt: row, expiresInMs: row === undefined ? 0 : expiresInMs }];
    });
  }
}

describe('SessionWatches', () => {
  let rows: FakeRows;
  let retries: unknown[][];
  let order: KeyedReadWriteLock;
  const open: SessionWatches[] = [];

  beforeEach(() => {
    rows = new FakeRows();
    retries = [];
    order = new KeyedReadWriteLock();
  });
  afterEach(() => {
    for (const watches of open.splice(0)) watches.close();
  });

  function create(seconds: number, secrets: string[] = []): SessionWatches {
    const ids = new SessionIds({ prefix: '', secrets, hashIds: false });
    const call = <T>(work: (deadline: number) => Promise<T>) => work(Number.POSITIVE_INFINITY);
    const emit = (...args: unknown[]) => void retries.push(args);
    open.push(new SessionWatches(rows.statements, ids, order, undefined, seconds, call, emit as any));
    return open.at(-1) as SessionWatches;
  }

  function store(...sids: string[]): void {
    for (const sid of sids) rows.createdAt.set(sid, `created with ${sid}`);
  }

  const checkedKeys = () => rows.checked.flat().length;

  it('checks any number of sessions in statements of a thousand keys, each session once', async () => {
    const watches = create(NEVER);
    const sids = Array.from({ length: 2500 }, (_, n) => `s${n}`);
    store(...sids);
    const wrong = () => assert.fail('none has ended');
    for (const sid of sids) for (let n = 0; n < 2; n++) watches.watch(sid, wrong);
    await eventually(() => checkedKeys() >= 2500);
    for (const sid of sids) watches.checkKey(sid);
    await eventually(() => checkedKeys() >= 5000);
    assert.deepEqual(
      rows.checked.map((page) => page.length),
      [1000, 1000, 500, 1000, 1000, 500],
    );
  });

  it('sends nothing where nothing is watched, or everything was stopped', async () => {
    const [idle, stopped, clock] = [create(0.1), create(0.1), create(0.1)];
    store('a', 'b');
    const stop = stopped.watch('a', () => {});
    await eventually(() => rows.checked.length > 0);
    stop();
    idle.checkKey('a');
    rows.checked.splice(0);
    clock.watch('b', () => {});
    await eventually(() => rows.checked.length > 5);
    assert.deepEqual(new Set(rows.checked.flat().map(({ key }) => key)), new Set(['b']));
  });

  it('sends nothing for watches that were stopped before their turn came', async () => {
    const watches = create(NEVER);
    const stops = Array.from({ length: 1500 }, (_, n) => watches.watch(`nowhere ${n}`, () => {}));
    // While the first page is checked, the others are due.
    rows.duringCheck = () => {
      for (const stop of stops) stop();
    };
    await eventually(() => rows.checked.length > 0);
    for (let turn = 0; turn < 5; turn++) await tick();
    assert.deepEqual(
      rows.checked.map((page) => page.length),
      [1000],
    );
  });

  it('calls back in the async context of the call of `watch`, whoever ends the session', async () => {
    const contexts = new AsyncLocalStorage<string>();
    const watches = create(NEVER);
    store('one', 'two', 'three');
    const seen: string[] = [];
    for (const sid of rows.createdAt.keys()) {
      contexts.run(sid, () => watches.watch(sid, () => seen.push(`${sid} in ${contexts.getStore()}`)));
    }
    await eventually(() => rows.checked.length > 0);
    contexts.run('another request', () => watches.end(watches.ofSession('one')));
    rows.createdAt.clear();
    contexts.run('another request', () => watches.checkKey('two'));
    watches.checkKey('three');
    await eventually(() => seen.length === 3);
    assert.deepEqual(seen.sort(), ['one in one', 'three in three', 'two in two']);
  });

  it('calls nothing back after close(), even in the same turn', async () => {
    const watches = create(NEVER);
    const called: number[] = [];
    for (const n of [1, 2, 3]) {
      watches.watch('nowhere', () => {
        called.push(n);
        watches.close();
      });
    }
    await eventually(() => called.length > 0);
    await tick();
    await tick();
    assert.deepEqual(called, [1]);
  });

  it('calls back at most 100 in a turn of the event loop', async () => {
    const watches = create(NEVER);
    let turn = 0;
    let called = 0;
    const inTurn: number[] = [];
    const count = () => {
      called++;
      inTurn[turn] = (inTurn[turn] ?? 0) + 1;
    };
    for (let n = 0; n < 1050; n++) watches.watch(`nowhere ${n}`, count);
    for (; called < 1050; turn++) await tick();
    assert.equal(Math.max(...inTurn.filter(Boolean)), 100);
    assert(inTurn.filter(Boolean).length >= 11);
  });

  it('calls back once, with the reason that the last check knows', async () => {
    const watches = create(0.1);
    store('destroyed', 'put off and destroyed', 'expired', 'replaced', 'expired and deleted', 'expired and replaced');
    const reasons: Record<string, SessionEnd[]> = {};
    for (const sid of rows.createdAt.keys()) {
      reasons[sid] = [];
      watches.watch(sid, (reason) => reasons[sid].push(reason));
    }
    await eventually(() => rows.checked.length > 0);
    // Soon: the check that learns it comes before.
    const moreChecks = async () => {
      const { length } = rows.checked;
      await eventually(() => rows.checked.length > length + 1);
    };
    for (const sid of ['expired and deleted', 'expired and replaced', 'put off and destroyed']) {
      rows.expiresInMs.set(sid, 1);
    }
    await moreChecks();
    rows.expiresInMs.delete('put off and destroyed');
    await moreChecks();
    rows.createdAt.delete('destroyed');
    rows.createdAt.delete('put off and destroyed');
    rows.createdAt.delete('expired and deleted');
    rows.createdAt.set('replaced', 'later').set('expired and replaced', 'later');
    rows.expiresInMs.set('expired', -1);
    await eventually(() => Object.values(reasons).every((all) => all.length > 0));
    assert.deepEqual(reasons, {
      destroyed: ['destroyed'],
      'put off and destroyed': ['destroyed'],
      expired: ['expired'],
      replaced: ['destroyed'],
      'expired and deleted': ['expired'],
      'expired and replaced': ['expired'],
    });
  });

  it('first waits for what the session ID has under way', async () => {
    const watches = create(NEVER);
    let save = () => {};
    void order.write('a', () => new Promise<void>((resolve) => (save = resolve)));
    const reasons: SessionEnd[] = [];
    watches.watch('a', (reason) => reasons.push(reason));
    watches.watch('nowhere', (reason) => reasons.push(reason));
    await eventually(() => reasons.length > 0);
    assert.deepEqual(checkedKeys(), 1);
    store('a');
    save();
    await eventually(() => checkedKeys() > 1);
    await tick();
    await tick();
    assert.deepEqual(reasons, ['destroyed']);
  });

  it('looks under each key of a session before it takes it for ended, and then at the key where it is', async () => {
    const ids = new SessionIds({ prefix: '', secrets: ['newer', 'older'], hashIds: false });
    const watches = create(0.1, ['newer', 'older']);
    const [newer, older] = ids.rowKeysFor('a') as unknown as [string, string];
    rows.createdAt.set(older, 'then');
    const reasons: SessionEnd[] = [];
    watches.watch('a', (reason) => reasons.push(reason));
    const keysOf = (page: readonly WatchedRow[]) => page.map(({ key }) => key);
    await eventually(() => rows.checked.length > 2);
    assert.deepEqual(rows.checked.slice(0, 3).map(keysOf), [[newer, older], [older], [older]]);
    rows.createdAt.delete(older);
    rows.createdAt.set(newer, 'then');
    await eventually(() => rows.checked.some((page) => keysOf(page).join() === newer));
    assert.deepEqual(reasons, []);
    rows.createdAt.delete(newer);
    await eventually(() => reasons.length > 0);
    assert.deepEqual(reasons, ['destroyed']);
  });

  it('tells of failed checks, counts them, and reports what has ended since', async () => {
    const watches = create(0.1);
    store('a');
    const reasons: SessionEnd[] = [];
    watches.watch('a', (reason) => reasons.push(reason));
    await eventually(() => rows.checked.length > 0);
    rows.failure = new Error('no answer');
    rows.createdAt.delete('a');
    await eventually(() => retries.length > 1);
    assert.deepEqual(retries.slice(0, 2), [
      ['retry', 'watch', 1, rows.failure],
      ['retry', 'watch', 2, rows.failure],
    ]);
    assert.deepEqual(reasons, []);
    rows.failure = undefined;
    await eventually(() => reasons.length > 0);
  });

  it('keeps nothing of watches that are over', async () => {
    const watches = create(NEVER);
    for (let n = 0; n < 1000; n++) watches.watch('a', () => {})();
    assert.deepEqual(watches.ofSession('a'), []);
    await eventually(() => order.idle('a').then(() => true));
  });

  it('is checked a little more often than the interval says, never less', () => {
    for (let n = 0; n < 1000; n++) {
      const varied = onlyShorter(1000);
      assert(varied > 750 && varied <= 1000);
    }
  });
});
