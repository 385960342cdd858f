/** What `get` loaded is remembered in its async context, for a time, and nowhere else. */

import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { EventEmitter } from 'node:events';
import { setImmediate as tick } from 'node:timers/promises';
import { queryObjects } from 'node:v8';
import { install } from '@sinonjs/fake-timers';
import { SessionScopes } from '../../lib/session/scope.js';
import { attachSnapshot, LoadedSession, newSnapshot, REMEMBERED_MS } from '../../lib/session/snapshot.js';

const readFrom = async () => undefined;

/** As the store answers a `get`. */
function loaded(sid: string): object {
  const row = { key: sid, version: 1, expiresInMs: 60_000, endsInMs: Number.POSITIVE_INFINITY };
  const session = { sid };
  attachSnapshot(
    session,
    newSnapshot(sid, row, { data: JSON.stringify(session), cookie: null }, null, false, readFrom),
  );
  return session;
}

describe('scope', () => {
  let scopes: SessionScopes;
  let clock: ReturnType<typeof install>;

  beforeEach(() => {
    clock = install({ toFake: ['performance'] });
    scopes = new SessionScopes();
  });

  afterEach(() => {
    scopes.close();
    clock.uninstall();
  });

  /** Runs `work` after the callback of a `get`. */
  function afterGet(sid: string, work: () => void): void {
    scopes.follow<object>(sid, work, (callback) => void callback?.(null, loaded(sid)));
  }

  const isRemembered = (sid: string) => {
    const session = {};
    return scopes.standIn(sid, session, '{}') !== session;
  };

  it('remembers a session for ten minutes after its `get`, or after the last `set`', () => {
    afterGet('a', () => {
      clock.tick(REMEMBERED_MS - 1);
      assert(isRemembered('a'));
      clock.tick(REMEMBERED_MS - 1);
      assert(isRemembered('a'));
      clock.tick(REMEMBERED_MS);
      assert(!isRemembered('a'));
    });
    assert.equal(REMEMBERED_MS, 600_000);
  });

  it('remembers nothing in a context that has ended, or beside it', () => {
    afterGet('a', () => {});
    assert(!isRemembered('a'));
    afterGet('b', () => assert(!isRemembered('a')));
  });

  it('remembers a hundred of the sessions that are read one in the callback of the other', async () => {
    const remembered = await new Promise<number[]>((resolve) => {
      const read = (n: number) =>
        afterGet(`s${n}`, () => {
          // In a turn of its own, since the stack would be too deep.
          if (n < 300) setImmediate(read, n + 1);
          else resolve(Array.from({ length: 301 }, (_, one) => one).filter((one) => isRemembered(`s${one}`)));
        });
      read(0);
    });
    assert.deepEqual([remembered.length, remembered[0]], [100, 201]);
  });

  describe('memory', function () {
    this.timeout(120_000);

    /** How many loaded sessions there are. Each count collects the garbage first, which takes long in a large heap. */
    const count = () => queryObjects(LoadedSession, { format: 'count' });
    let ofOtherSpecs: number;

    before(() => {
      ofOtherSpecs = count();
    });

    /** Calls `load` a hundred times a minute for half an hour. */
    async function halfAnHour(load: (sid: string) => void): Promise<void> {
      for (let minute = 0; minute < 30; minute++) {
        for (let n = 0; n < 100; n++) load(`${minute} ${n}`);
        clock.tick(60_000);
        // The target of a new WeakRef cannot be garbage before the present job has ended.
        await tick();
      }
    }

    it('what contexts hold that timers keep alive is dropped in time', async () => {
      const timers: NodeJS.Timeout[] = [];
      await halfAnHour((sid) => afterGet(sid, () => timers.push(setInterval(() => {}, 1e9))));
      const left = count() - ofOtherSpecs;
      for (const timer of timers) clearInterval(timer);
      assert(left >= 900 && left <= 1200, `${left}`);
    });

    it('nothing is kept of contexts that nothing keeps alive', async () => {
      await halfAnHour((sid) => afterGet(sid, () => {}));
      const left = count() - ofOtherSpecs;
      assert(left < 10, `${left}`);
    });

    it('a context that lives for ever, and loads one session after another, does not grow', async () => {
      await scopes.runRequest(() => halfAnHour((sid) => afterGet(sid, () => {})));
      const left = count() - ofOtherSpecs;
      assert(left <= 1200, `${left}`);
    });
  });

  it('asks no AsyncLocalStorage once it is off, and disables its own', () => {
    afterGet('a', () => {
      scopes.turnOff();
      assert(!isRemembered('a'));
    });
    assert.equal(scopes.isOn, false);
    assert.equal(runsOfStorages(() => afterGet('a', () => {})).length, 0);
    const runs = runsOfStorages(() => scopes.runRequest(() => afterGet('a', () => assert(isRemembered('a')))));
    assert.equal(scopes.isOn, true);
    assert(runs.length > 0);
  });

  it('remembers nothing once it is closed, and leaves no AsyncLocalStorage enabled', () => {
    const request = new EventEmitter();
    const runs = runsOfStorages(() =>
      scopes.runRequest(
        () =>
          afterGet('a', () => {
            assert(isRemembered('a'));
            scopes.close();
            assert(!isRemembered('a'));
          }),
        request,
      ),
    );
    assert.equal(scopes.isOn, false);
    assert(runs.length > 0);
    // What Node.js 20 and 22 have; in later versions an enabled one costs nothing.
    assert(!runs.some((storage: any) => storage.enabled));
    assert.equal(runsOfStorages(() => scopes.runRequest(() => afterGet('b', () => {}))).length, 0);
    assert.equal(runsOfStorages(() => request.emit('end')).length, 0);
  });
});

/** Runs `work`. @returns the storages whose `run` was called meanwhile, one for each call */
function runsOfStorages(work: () => void): AsyncLocalStorage<unknown>[] {
  const original = AsyncLocalStorage.prototype.run;
  const runs: AsyncLocalStorage<unknown>[] = [];
  AsyncLocalStorage.prototype.run = function run(this: AsyncLocalStorage<any>, ...args: any) {
    runs.push(this);
    return (original as any).apply(this, args);
  };
  try {
    work();
  } finally {
    AsyncLocalStorage.prototype.run = original;
  }
  return runs;
}
