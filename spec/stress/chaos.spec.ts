/** The checks of `npm run chaos`: they find what is wrong, and nothing else. */

import assert from 'node:assert/strict';
import { Destructions } from './chaos/destructions.js';
import { checkUpdates } from './chaos/log.js';
import type { Report, Subject } from './chaos/messages.js';
import { emptyReport } from './chaos/reporter.js';
import { WatchLog } from './chaos/watch-log.js';

const ANN = 'ann';

/** Calls of two processes, each told with its times. */
class History {
  readonly destructions = new Destructions();
  #calls = 0;

  /** A call that was made and acknowledged at these times. */
  call(subject: Subject, made: number, answered: number, process = 'a'): this {
    return this.#end(this.#begin(subject, made, process), made, answered, true);
  }

  failedCall(subject: Subject, made: number, answered: number): this {
    return this.#end(this.#begin(subject, made, 'a'), made, answered, false);
  }

  /** A call whose process was killed before it could tell more. */
  killedCall(subject: Subject, made: number, died: number): this {
    this.#begin(subject, made, 'killed');
    this.destructions.processDied('killed', died);
    return this;
  }

  #begin(subject: Subject, made: number, process: string): string {
    const id = String(this.#calls++);
    this.destructions.began({ id, process, at: made, subject });
    return id;
  }

  #end(id: string, made: number, at: number, isAcknowledged: boolean): this {
    this.destructions.ended({ id, made, at, isAcknowledged });
    return this;
  }
}

const signIn = (sid: string): Subject => ({ kind: 'signIn', sid, user: ANN });
const save = (sid: string): Subject => ({ kind: 'save', sid, user: ANN });
const destroy = (sid: string): Subject => ({ kind: 'destroy', sid });
const destroyAll = (except?: string): Subject => ({ kind: 'destroySessionsOf', user: ANN, except });
const limit = (most: number, except?: string): Subject => ({ kind: 'limitSessionsOf', user: ANN, most, except });

describe('chaos: what may be gone, and what must be', () => {
  it('a session is gone once its destroy was acknowledged, and may be as soon as one has begun', () => {
    const { destructions } = new History().failedCall(destroy('s'), 10, 20).call(destroy('s'), 30, 40);
    assert.equal(destructions.goneSince('s'), 40);
    assert.equal(destructions.mayBeGone('s', 9), false);
    assert.equal(destructions.mayBeGone('s', 10), true);
    assert.equal(destructions.mayBeGone('another', 50), false);
  });

  it('`destroySessionsOf` destroys what was stored before, except one, and never what is created after its answer', () => {
    const history = new History().call(signIn('old'), 1, 2).call(signIn('kept'), 1, 2);
    history.call(destroyAll('kept'), 10, 20).call(signIn('during'), 11, 12, 'b').call(signIn('new'), 21, 22);
    const { destructions } = history;
    assert.equal(destructions.goneSince('old'), 20);
    for (const sid of ['kept', 'during', 'new']) assert.equal(destructions.goneSince(sid), Number.POSITIVE_INFINITY);
    assert.deepEqual(
      ['old', 'kept', 'during', 'new'].map((sid) => destructions.mayBeGone(sid, 30)),
      [true, false, true, false],
    );
  });

  it('a call that failed, or whose process was killed, must not have destroyed what was created after it', () => {
    const failed = new History().failedCall(destroyAll(), 10, 20).call(signIn('new'), 21, 22);
    assert.equal(failed.destructions.mayBeGone('new', 30), false);
    const killed = new History()
      .killedCall(destroyAll(), 10, 20)
      .call(signIn('old'), 19, 25)
      .call(signIn('new'), 21, 22);
    assert.equal(killed.destructions.mayBeGone('old', 30), true);
    assert.equal(killed.destructions.mayBeGone('new', 30), false);
  });

  it('`destroySessionsOf` destroys what its own process was just storing, unless somebody has changed it', () => {
    const own = new History().call(signIn('s'), 9, 15).call(destroyAll(), 10, 20);
    assert.equal(own.destructions.goneSince('s'), 20);
    const changed = new History().call(signIn('s'), 9, 15).call(save('s'), 16, 17, 'b').call(destroyAll(), 10, 20);
    assert.equal(changed.destructions.goneSince('s'), Number.POSITIVE_INFINITY);
    const others = new History().call(signIn('s'), 9, 15, 'b').call(destroyAll(), 10, 20);
    assert.equal(others.destructions.goneSince('s'), Number.POSITIVE_INFINITY);
  });

  it('`limitSessionsOf` destroys only a session that was not among the most recently active', () => {
    const history = new History().call(signIn('first'), 1, 2).call(signIn('second'), 3, 4).call(signIn('third'), 5, 6);
    history.call(save('first'), 7, 8).call(limit(2), 10, 20);
    assert.deepEqual(
      ['first', 'second', 'third'].map((sid) => history.destructions.mayBeGone(sid, 30)),
      [false, true, false],
    );
  });

  it('activity that may have come later, and sessions that are gone, count for `limitSessionsOf`', () => {
    const late = new History().call(signIn('first'), 1, 2).call(signIn('second'), 3, 4);
    late.failedCall(save('first'), 3, 4).call(limit(1), 10, 20);
    assert.equal(late.destructions.mayBeGone('second', 30), true);
    const gone = new History().call(signIn('first'), 1, 2).call(signIn('second'), 3, 4);
    gone.call(destroy('second'), 5, 6).call(limit(1), 10, 20);
    assert.equal(gone.destructions.mayBeGone('first', 30), false);
  });

  it('`limitSessionsOf` leaves no more than it should, of what was stored before', () => {
    const history = new History().call(signIn('first'), 1, 2).call(signIn('second'), 3, 4).call(signIn('kept'), 5, 6);
    history.call(limit(2, 'kept'), 10, 20).call(signIn('new'), 15, 16);
    const exceeded = (...there: string[]) => history.destructions.exceededLimits((sid) => there.includes(sid)).length;
    assert.equal(exceeded('second', 'kept', 'new'), 0);
    assert.equal(exceeded('first', 'second', 'kept'), 1);
  });
});

describe('chaos: watches', () => {
  const report = (part: Partial<Report>): Report => ({ ...emptyReport(), ...part });
  const watched = report({ watched: [{ id: 'w', sid: 's' }] });
  const told = report({ told: [{ id: 'w', at: 10, reason: 'destroyed' }] });
  const isCreated = () => true;
  const isThere = () => false;

  it('an end that was not told is one of a process that lives', () => {
    const watches = new WatchLog(new Destructions());
    watches.add('a', watched);
    assert.equal(watches.untold(isThere).length, 1);
    watches.processDied('a');
    assert.deepEqual(watches.untold(isThere), []);
  });

  it('nothing is to be told of a watch that was told or stopped, or of a session that is there', () => {
    for (const after of [told, report({ stopped: ['w'] })]) {
      const watches = new WatchLog(new Destructions());
      watches.add('a', watched);
      assert.deepEqual(
        watches.untold(() => true),
        [],
      );
      watches.add('a', after);
      assert.deepEqual(watches.untold(isThere), []);
    }
  });

  it('an end is false if nobody had begun to destroy the session', () => {
    for (const began of [9, 11]) {
      const watches = new WatchLog(new History().call(destroy('s'), began, 20).destructions);
      watches.add('a', watched);
      watches.add('a', told);
      assert.deepEqual(watches.falseEnds(isCreated), began < 10 ? [] : ['s']);
    }
  });
});

describe('chaos: updates', () => {
  const update = (id: string, mayCountTwice = false) => ({ id, sid: 's', mayCountTwice });

  it('each acknowledged one counts once, others may count', () => {
    const found = checkUpdates({ count: 2, updates: { a: 1, unknown: 1 } }, [update('a'), update('b')]);
    assert.deepEqual(found, { lost: ['b'], miscounted: [], countedTwice: 0 });
  });

  it('one counts twice only where an answer was lost', () => {
    const data = { count: 2, updates: { a: 2 } };
    assert.deepEqual(checkUpdates(data, [update('a', true)]), { lost: [], miscounted: [], countedTwice: 1 });
    assert.equal(checkUpdates(data, [update('a')]).miscounted.length, 1);
  });

  it('the sum is that of the single ones', () => {
    assert.equal(checkUpdates({ count: 1, updates: { a: 1, b: 1 } }, []).miscounted.length, 1);
  });
});
