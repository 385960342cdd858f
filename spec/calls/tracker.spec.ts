/** Every call answers once, within the timeout, to its callback or its promise. */

import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { type Callback, CallTracker, NO_DEADLINE, refuseCallback } from '../../lib/calls/tracker.js';
import { memoryWorld, openMemoryStore } from '../support/memory-world.js';

const later = <T>(value: T) => new Promise<T>((resolve) => setImmediate(resolve, value));
const never = () => new Promise<never>(() => {});

/** Starts a call and gives what its callback got. */
function outcome<T>(start: (callback: Callback<T>) => unknown): Promise<[any, T | undefined]> {
  return new Promise((resolve) => {
    assert.equal(
      start((error, result) => resolve([error, result])),
      undefined,
      'a call with a callback returns nothing',
    );
  });
}

describe('calls', () => {
  afterEach(memoryWorld().closeStores);

  it('refuses a callback that is no function, at once', () => {
    for (const callback of [{}, 'text', 1] as any[]) {
      assert.throws(() => new CallTracker(100).run('get', callback, () => assert.fail('not run')), {
        name: 'TypeError',
        message: `PgStore.get: expected a function as callback, got ${typeof callback}`,
      });
    }
  });

  it('answers a promise where there is no callback', async () => {
    const calls = new CallTracker(1000);
    assert.equal(await calls.run('get', undefined, () => later(5)), 5);
    assert.equal(await calls.run('all', undefined, () => later(6), NO_DEADLINE), 6);
    await assert.rejects(calls.run('get', undefined, () => Promise.reject(new Error('no'))) as Promise<unknown>, {
      name: 'PgStoreError',
      message: 'PgStore.get: no',
    });
  });

  it('answers the callback with null and a result, or with an error alone', async () => {
    const calls = new CallTracker(1000);
    assert.deepEqual(await outcome((callback) => calls.run('get', callback, () => later(5))), [null, 5]);
    const [error, result] = await outcome((callback) =>
      calls.run('get', callback, () => Promise.reject(new Error('no'))),
    );
    assert.equal(error.message, 'PgStore.get: no');
    assert.equal(result, undefined);
  });

  it('never calls back in the same tick', async () => {
    const calls = new CallTracker(1000);
    let isLater = false;
    const answered = outcome((callback) =>
      calls.run(
        'get',
        (error, result) => {
          assert(isLater);
          callback(error, result);
        },
        () => Promise.resolve(1),
      ),
    );
    isLater = true;
    await answered;
  });

  it('fails a call without an answer in time, once', async () => {
    const calls = new CallTracker(20);
    let answers = 0;
    let finish = (_: string) => {};
    const late = new Promise<string>((resolve) => {
      finish = resolve;
    });
    const [error] = await outcome((callback) =>
      calls.run(
        'get',
        (error, result) => {
          answers++;
          callback(error, result);
        },
        () => late,
      ),
    );
    assert.equal(error.code, 'TIMEOUT');
    assert.equal(error.message, 'PgStore.get: no answer in time (option `timeout`)');
    finish('late');
    await later(0);
    assert.equal(answers, 1);
  });

  it('gives the work its deadline, by which the call fails', async () => {
    const calls = new CallTracker(20);
    const early = performance.now() + 20;
    let deadline = 0;
    const running = calls.promise('get', (given) => {
      deadline = given;
      return never();
    });
    assert(deadline >= early && deadline <= performance.now() + 20);
    await assert.rejects(running, { code: 'TIMEOUT' });
  });

  it('calls back in the async context of its own call, also after its time', async () => {
    const contexts = new AsyncLocalStorage<string>();
    const calls = new CallTracker(20);
    const seen: string[] = [];
    const callIn = (context: string) =>
      new Promise<void>((resolve) => {
        const answer = () => {
          seen.push(`${context} in ${contexts.getStore()}`);
          resolve();
        };
        contexts.run(context, () => calls.run('get', answer, never));
      });
    await Promise.all(['one', 'two', 'three'].map(callIn));
    assert.deepEqual(seen.sort(), ['one in one', 'three in three', 'two in two']);
  });

  it('refuses a callback of a method that returns promises alone', async () => {
    const { store } = openMemoryStore();
    const callback = () => assert.fail('it was called');
    const methods = {
      ids: [],
      sessionsOf: ['ann'],
      destroySessionsOf: ['ann'],
      limitSessionsOf: ['ann', 1],
      destroyByHandle: ['handle', { user: 'ann' }],
      update: ['a', () => {}],
      updateSessionsOf: ['ann', () => {}],
      takeOver: [],
      ready: [],
      autodelete: [],
      close: [],
    };
    for (const [name, given] of Object.entries(methods)) {
      const message = `PgStore.${name}: takes no callback, it returns a promise`;
      const method = (store as any)[name].bind(store);
      assert.throws(() => method(...given, callback), { name: 'TypeError', message });
      assert.throws(() => refuseCallback(name, ...given, callback), { name: 'TypeError', message });
    }
    for (const name of ['sessionsOf', 'destroySessionsOf'] as const) {
      assert.throws(() => (store as any)[name]('ann', {}, callback), TypeError);
    }
    // Nothing was done, and the store goes on.
    assert.equal(await store.length(), 0);
  });

  it('fails each of many calls at its own time', async () => {
    const calls = new CallTracker(60_000);
    const failed: string[] = [];
    const start = (name: string, milliseconds: number) => {
      const deadline = performance.now() + milliseconds;
      return calls.promise(name, never, deadline).catch(() => failed.push(name));
    };
    start('long', 60_000);
    const short = start('short', 20);
    start('longer', 90_000);
    await short;
    assert.deepEqual(failed, ['short']);
  });

  it('gives long calls all the time they need', async () => {
    const calls = new CallTracker(1);
    const slow = new Promise((resolve) => setTimeout(resolve, 30, 'done'));
    const long = calls.run('all', undefined, () => slow, NO_DEADLINE);
    await assert.rejects(calls.run('get', undefined, never) as Promise<unknown>, { code: 'TIMEOUT' });
    assert.equal(await long, 'done');
  });

  it('finishes what it has on `close`, and refuses what comes after', async () => {
    const calls = new CallTracker(1000);
    let isDone = false;
    const running = calls.run('set', undefined, async () => {
      await later(0);
      isDone = true;
    });
    const closing = calls.close();
    const refused = calls.run('get', undefined, () => later(1)) as Promise<unknown>;
    await assert.rejects(refused, { code: 'CLOSED', message: 'PgStore.get: the store is closed' });
    await closing;
    assert.equal(isDone, true);
    await running;
  });

  it('refuses calls on a closed store, `close` excepted', async () => {
    const { store } = openMemoryStore();
    await store.close();
    await store.close();
    for (const call of [() => store.get('a'), () => store.all(), () => store.ready(), () => store.sessions().next()]) {
      await assert.rejects(call, { code: 'CLOSED' });
    }
    const [error] = await outcome((callback) => store.length(callback));
    assert.equal(error.code, 'CLOSED');
  });
});
