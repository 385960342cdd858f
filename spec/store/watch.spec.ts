/** `store.watch` calls back when a session has ended, whoever ended it, and at no other time. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { setImmediate as tick } from 'node:timers/promises';
import session from 'express-session';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { runNode } from '../support/child.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { closeStores, freshTable, openOwnStore, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { generated, loaded, plain } from '../support/sessions.js';
import { CheckCount, until, Watched } from '../support/watches.js';

/** So rarely that only what starts a check at once can be the reason for one. */
const NEVER = 1_000_000;
const SOON = 0.1;

const user = (data: any) => data.user;

describe('watch', () => {
  let table: string;
  let checks: CheckCount;

  beforeEach(() => {
    table = freshTable();
    checks = new CheckCount(table);
  });
  afterEach(async () => {
    checks.close();
    await closeStores();
  });

  const open = (options: PgStoreOptions = {}) => openStore({ table, user, watchInterval: SOON, ...options });

  async function saved(store: PgStore, ...sids: string[]): Promise<Watched[]> {
    return Promise.all(
      sids.map(async (sid) => {
        await store.set(sid, plain({ user: 'ann' }));
        return new Watched(store, sid);
      }),
    );
  }

  describe('reports at once what this process ends:', () => {
    const ways: Record<string, (store: PgStore) => Promise<unknown>> = {
      destroy: (store) => store.destroy('a'),
      clear: (store) => store.clear(),
      destroySessionsOf: (store) => store.destroySessionsOf('ann', { except: 'b' }),
      limitSessionsOf: (store) => store.limitSessionsOf('ann', 1, { except: 'b' }),
      destroyByHandle: async (store) => {
        const handles = await store.sessionsOf('ann');
        const { handle } = handles.find((one: any) => one.session.name === 'a') ?? { handle: '' };
        assert.equal(await store.destroyByHandle(handle, { user: 'ann' }), true);
      },
    };

    for (const [name, end] of Object.entries(ways)) {
      it(name, async () => {
        const store = await open({ watchInterval: NEVER });
        for (const sid of ['a', 'b']) await store.set(sid, plain({ user: 'ann', name: sid }));
        const [a, b] = [new Watched(store, 'a'), new Watched(store, 'b')];
        await until(() => checks.checks > 0);
        await end(store);
        assert.equal(await a.ended, 'destroyed');
        if (name === 'clear') assert.equal(await b.ended, 'destroyed');
        else assert.deepEqual(b.reasons, []);
        assert.deepEqual(a.reasons, ['destroyed']);
      });
    }

    it('regenerate of express-session', async () => {
      const store = await open({ watchInterval: NEVER });
      session({ store, secret: 'not a secret', resave: false, saveUninitialized: false });
      await store.set('a', generated(store, 'a'));
      const a = new Watched(store, 'a');
      const request: any = { sessionID: 'a', sessionStore: store };
      await new Promise((resolve) => store.regenerate(request, resolve));
      assert.equal(await a.ended, 'destroyed');
    });
  });

  it('reports in time what another process, or SQL, ends', async () => {
    const [store, other] = [await open(), await open()];
    const [a, b, c, d] = await saved(store, 'a', 'b', 'c', 'd');
    await checks.more();
    const sql = await sqlClient();
    await other.destroy('a');
    await sql`delete from ${sql(table)} where sid = 'b'`;
    await sql`update ${sql(table)} set expires_at = now() where sid = 'c'`;
    assert.deepEqual(await Promise.all([a.ended, b.ended, c.ended]), ['destroyed', 'destroyed', 'expired']);
    await checks.more();
    assert.deepEqual(
      [a, b, c, d].map(({ reasons }) => reasons.length),
      [1, 1, 1, 0],
    );
  });

  it('says why: expired where it is past the expiry, also if the row is gone by then', async () => {
    const store = await open();
    await store.set('expires', plain({}, 300));
    await store.set('deleted', plain({}, 300));
    const [expires, deleted] = [new Watched(store, 'expires'), new Watched(store, 'deleted')];
    assert.equal(await expires.ended, 'expired');
    assert.equal(await deleted.ended, 'expired');

    const limited = await open({ maxLifetime: 0.3 });
    await limited.set('limited', plain());
    assert.equal(await new Watched(limited, 'limited').ended, 'expired');
  });

  it('takes a session that was destroyed and created again for another one', async () => {
    const [store, other] = [await open(), await open()];
    const [before] = await saved(store, 'a');
    await checks.more();
    const sql = await sqlClient();
    // In one statement: no check sees it missing.
    await sql`update ${sql(table)} set created_at = now(), version = 1, data = '{}' where sid = 'a'`;
    assert.equal(await before.ended, 'destroyed');
    const after = new Watched(store, 'a');
    await checks.more();
    assert.deepEqual(after.reasons, []);
    await other.destroy('a');
    assert.equal(await after.ended, 'destroyed');
  });

  it('is about the session that is there at the call: a destroy before it does not count', async () => {
    const store = await open();
    await store.set('a', plain());
    const before = new Watched(store, 'a');
    void store.destroy('a');
    void store.set('a', plain());
    const after = new Watched(store, 'a');
    assert.equal(await before.ended, 'destroyed');
    await checks.more();
    assert.deepEqual(after.reasons, []);
  });

  it('reports a session that is nowhere, but not one that is just being saved', async () => {
    const store = await open();
    assert.equal(await new Watched(store, 'nowhere').ended, 'destroyed');
    const saving = Promise.all(Array.from({ length: 300 }, (_, n) => store.set(`s${n}`, plain())));
    const watched = Array.from({ length: 300 }, (_, n) => new Watched(store, `s${n}`));
    await saving;
    await checks.more();
    assert.deepEqual(
      watched.flatMap(({ reasons }) => reasons),
      [],
    );
  });

  it('sees saves, touches and changes of the data as no end', async () => {
    const store = await open({ touchAfter: 0 });
    const [a] = await saved(store, 'a');
    await checks.more();
    const changed = await loaded(store, 'a');
    changed.views = 1;
    await store.set('a', changed);
    await store.touch('a', changed);
    await store.set('a', plain());
    await store.update('a', (data: any) => {
      data.more = 1;
    });
    await checks.more();
    assert.deepEqual(a.reasons, []);
  });

  const combinations: Record<string, PgStoreOptions> = {
    prefix: { prefix: 'p"{},:' },
    secret: { secret: 'a secret of the spec' },
    hashIds: { hashIds: true },
    'hashIds and secret': { hashIds: true, secret: 'a secret of the spec' },
    encryptionKey: { encryptionKey: 'k'.repeat(32) },
    shards: { shards: 4 },
    'shards and secret': { shards: 4, secret: ['a newer secret', 'a secret of the spec'] },
  };
  for (const [name, options] of Object.entries(combinations)) {
    it(`works with ${name}`, async () => {
      // Its own table, where the suite's have other shards.
      if (options.shards) table = freshTable();
      const [store, other] = options.shards
        ? [await openOwnStore({ table, watchInterval: SOON, ...options }), await openOwnStore({ table, ...options })]
        : [await open(options), await open(options)];
      const sids = Array.from({ length: 20 }, (_, n) => `sid ${n}`);
      const watched = await saved(store, ...sids);
      await Promise.all(sids.slice(0, 10).map((sid) => other.destroy(sid)));
      const reasons = await Promise.all(watched.slice(0, 10).map(({ ended }) => ended));
      assert.deepEqual(new Set(reasons), new Set(['destroyed']));
      assert.deepEqual(
        watched.slice(10).flatMap(({ reasons }) => reasons),
        [],
      );
    });
  }

  for (const hashIds of [false, true]) {
    it(`sees no end where a session moves to the key of a newer secret${hashIds ? ', with hashIds' : ''}`, async () => {
      const older = await open({ hashIds, secret: 'older' });
      const rotated = { hashIds, secret: ['newer', 'older'] };
      const [store, other] = [await open(rotated), await open(rotated)];
      const sids = ['a', 'b', 'c'];
      for (const sid of sids) await older.set(sid, plain());
      const [a, b, c] = sids.map((sid) => new Watched(store, sid));
      await checks.more();
      for (const sid of ['a', 'b']) {
        const moved = await loaded(other, sid);
        moved.more = 1;
        await other.set(sid, moved);
      }
      await checks.more();
      assert.deepEqual([a.reasons, b.reasons, c.reasons], [[], [], []]);
      await other.destroy('a');
      await other.destroy('c');
      assert.deepEqual(await Promise.all([a.ended, c.ended]), ['destroyed', 'destroyed']);
      await checks.more();
      assert.deepEqual(b.reasons, []);
    });
  }

  describe('with option `previous`', () => {
    it('takes a session over first, and reports one that is in neither store', async () => {
      const previous = new session.MemoryStore();
      previous.set('there', plain() as any);
      const store = await open({ previous });
      const taken = once(store, 'takenOver');
      const [there, nowhere] = [new Watched(store, 'there'), new Watched(store, 'nowhere')];
      assert.equal(await nowhere.ended, 'destroyed');
      assert.deepEqual(await taken, [handleOf('there')]);
      await checks.more();
      assert.deepEqual(there.reasons, []);
      await (await open({ previous })).destroy('there');
      // Its tombstone is not a session that has expired.
      assert.equal(await there.ended, 'destroyed');
    });

    it('asks again while that store does not answer', async () => {
      const memory = new session.MemoryStore();
      let failures = 3;
      const previous = {
        get: (sid: string, callback: any) =>
          failures-- > 0 ? callback(new Error('not now')) : memory.get(sid, callback),
        destroy: memory.destroy.bind(memory),
      };
      memory.set('there', plain() as any);
      const store = await open({ previous });
      const taken = once(store, 'takenOver');
      const there = new Watched(store, 'there');
      await taken;
      await checks.more();
      assert.deepEqual(there.reasons, []);
    });
  });

  it('stops: one that was stopped is not called, nor is any after close()', async () => {
    const [store, other] = [await open(), await open()];
    const [a, b, c] = await saved(store, 'a', 'b', 'c');
    a.stop();
    a.stop();
    await Promise.all([other.destroy('a'), other.destroy('b')]);
    await b.ended;
    await tick();
    assert.deepEqual(a.reasons, []);
    await store.destroy('c').then(() => store.close());
    assert.equal(await store.watch('c', () => assert.fail())(), undefined);
    await tick();
    await tick();
    assert.deepEqual(c.reasons, []);
  });

  it('can be stopped by a callback of the same turn', async () => {
    const store = await open();
    await store.set('a', plain());
    const reasons: string[] = [];
    let stopSecond = () => {};
    store.watch('a', (reason) => {
      reasons.push(reason);
      stopSecond();
    });
    stopSecond = store.watch('a', (reason) => void reasons.push(reason));
    await store.destroy('a');
    await until(() => reasons.length > 0);
    await tick();
    assert.deepEqual(reasons, ['destroyed']);
  });

  it('refuses what is no session ID, no function, and too short an interval', async () => {
    const store = await open();
    for (const sid of [undefined, null, 5, {}, 'a\0']) {
      assert.throws(() => store.watch(sid as string, () => {}), {
        name: 'TypeError',
        message: /^PgStore\.watch: expected a string as session ID, got /,
      });
    }
    for (const onEnd of [undefined, null, 'f']) {
      assert.throws(() => store.watch('a', onEnd as any), {
        name: 'TypeError',
        message: 'PgStore.watch: `onEnd`: expected a function',
      });
    }
    for (const watchInterval of [0.05, 0, -1, Number.NaN, Number.POSITIVE_INFINITY, '5', false]) {
      await assert.rejects(
        open({ watchInterval: watchInterval as number }),
        /option `watchInterval`: expected a number/,
      );
    }
  });

  describe('while the database does not answer', function () {
    this.timeout(120_000);

    const outages: Record<string, [(proxy: FaultProxy) => void, (proxy: FaultProxy) => void]> = {
      'and refuses connections': [(proxy) => proxy.refuse(true), (proxy) => proxy.refuse(false)],
      'and no packet arrives': [(proxy) => proxy.silence(), (proxy) => proxy.resume()],
    };
    for (const [name, [begin, end]] of Object.entries(outages)) {
      it(`${name}: calls nothing back, tells of it by \`retry\`, and reports all of it afterwards`, async () => {
        const uri = new URL(await postgresUri());
        const { port } = uri;
        const proxy = await FaultProxy.start(() => Number(port));
        uri.host = `127.0.0.1:${proxy.port}`;
        const retry = { attempts: 2, delay: 1 };
        const store = await openOwnStore({ uri: uri.href, table, watchInterval: SOON, retry, timeout: 500 });
        const direct = await openOwnStore({ table });
        const [a, b] = await saved(store, 'a', 'b');
        await checks.more();
        begin(proxy);
        await direct.destroy('a');
        let failures = 0;
        store.on('retry', (kind, attempt, error) => {
          if (kind === 'watch' && attempt > 1 && error.message.startsWith('PgStore.watch: ')) failures++;
        });
        await until(() => failures > 2);
        assert.deepEqual([...a.reasons, ...b.reasons], []);
        end(proxy);
        assert.equal(await a.ended, 'destroyed');
        await checks.more();
        assert.deepEqual(b.reasons, []);
        await closeStores();
        await proxy.close();
      });
    }
  });

  it('leaves what `onEnd` throws to the app, as an uncaught exception, and calls the others', async () => {
    const { stdout, stderr, code } = await runNode(`
      import { PgStore } from './lib/index.js';
      const store = new PgStore({ uri: '${await postgresUri()}', table: '${table}', autodelete: false });
      const thrown = [];
      process.on('uncaughtException', (error) => thrown.push(error.message));
      const ended = [];
      for (const n of [1, 2, 3]) {
        store.watch('nowhere', () => { ended.push(n); if (n < 3) throw new Error('thrown by ' + n); });
      }
      while (ended.length < 3 || thrown.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
      console.log(JSON.stringify({ thrown, ended }));
      await store.close();`);
    assert.equal(stderr, '');
    assert.deepEqual(JSON.parse(stdout), { thrown: ['thrown by 1', 'thrown by 2'], ended: [1, 2, 3] });
    assert.equal(code, 0);
  });

  it('keeps no process alive', async () => {
    const { stdout, code } = await runNode(`
      import postgres from 'postgres';
      import { PgStore } from './lib/index.js';
      const sql = postgres('${await postgresUri()}', { onnotice() {} });
      const store = new PgStore({ sql, table: '${table}', autodelete: false, watchInterval: 3600 });
      await store.set('a', { cookie: { maxAge: 60000 } });
      store.watch('a', () => {});
      await store.get('a');
      await sql.end();
      console.log('at its end');`);
    assert.deepEqual([stdout.trim(), code], ['at its end', 0]);
  });
});
