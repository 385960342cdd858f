/** Parallel requests keep their changes, and a logout lasts, over HTTP. */

import assert from 'node:assert/strict';
import { setImmediate as tick } from 'node:timers/promises';
import type { Store } from 'express-session';
import type { Sql } from 'postgres';
import type { PgStore } from '../../lib/index.js';
import { closeStores, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { Gate, type Listening, listen, type RaceAppOptions, raceApp, Visitor } from '../support/race-app.js';
import { RaceProcess } from '../support/race-process.js';

const HOUR = 3_600_000;
const VERSIONS = [4, 5] as const;

describe('concurrency over HTTP', () => {
  const servers: Listening[] = [];

  afterEach(async () => {
    for (const server of servers.splice(0)) await server.close();
    await closeStores();
  });

  async function start(store: Store, options: Omit<RaceAppOptions, 'store' | 'gate'> = {}) {
    const gate = new Gate();
    const errors: unknown[] = [];
    const server = await listen(raceApp({ store, gate, onError: (error) => errors.push(error), ...options }));
    servers.push(server);
    return { url: server.url, gate, errors };
  }

  async function loggedIn(url: string): Promise<Visitor> {
    const visitor = new Visitor();
    await visitor.post(`${url}/login/ann`);
    return visitor;
  }

  /** Requests that all have loaded the session before the first of them saves it. */
  async function overlap(gate: Gate, requests: Promise<unknown>[]): Promise<void> {
    await gate.arrived(requests.length);
    gate.open();
    await Promise.all(requests);
  }

  function assertAllThere(data: Record<string, any>, count: number): void {
    const names = Array.from({ length: count }, (_, n) => `r${n}`);
    const each = (value: (name: string) => unknown) => Object.fromEntries(names.map((name) => [name, value(name)]));
    assert.deepEqual(data, {
      user: 'ann',
      ...each((name) => name),
      files: each((name) => ({ name })),
      deep: { in: { side: each((name) => [name]) } },
    });
  }

  for (const express of VERSIONS) {
    describe(`Express ${express}`, () => {
      for (const count of [2, 20, 200]) {
        it(`keeps what each of ${count} parallel requests changed, at each depth`, async () => {
          const { url, gate } = await start(await openStore(), { express });
          const visitor = await loggedIn(url);
          await overlap(
            gate,
            Array.from({ length: count }, (_, n) => visitor.twin().post(`${url}/everywhere/r${n}`)),
          );
          assertAllThere((await visitor.session(url)).data, count);
        });
      }

      it('keeps what a request saved in mid-request, at its end, and what others saved between', async () => {
        const { url, gate } = await start(await openStore(), { express });
        const visitor = await loggedIn(url);
        await overlap(gate, [
          visitor.twin().post(`${url}/steps/a`),
          visitor.twin().post(`${url}/steps/b`),
          visitor.twin().post(`${url}/key/c`),
        ]);
        const { data } = await visitor.session(url);
        const saved = ['a 1', 'a 2', 'a 3', 'b 1', 'b 2', 'b 3', 'c'];
        assert.deepEqual(Object.keys(data).sort(), [...saved, 'deep', 'files', 'user'].sort());
      });

      it('starts afresh after a reload', async () => {
        const { url, gate } = await start(await openStore(), { express });
        const visitor = await loggedIn(url);
        await overlap(gate, [
          visitor.twin().post(`${url}/reload/a`),
          visitor.twin().post(`${url}/reload/b`),
          visitor.twin().post(`${url}/nested/c`),
        ]);
        assert.deepEqual((await visitor.session(url)).data.files, {
          'a reloaded': true,
          'b reloaded': true,
          c: { name: 'c' },
        });
      });

      it('leaves what others changed alone with `resave: true`', async () => {
        const { url, gate, errors } = await start(await openStore(), { express, session: { resave: true } });
        const visitor = await loggedIn(url);
        const slow = Array.from({ length: 5 }, () => visitor.twin().post(`${url}/look`));
        await gate.arrived(5);
        const quick = visitor.twin().post(`${url}/key/kept`);
        await gate.arrived(6);
        gate.open();
        await Promise.all([...slow, quick]);
        assert.equal((await visitor.session(url)).data.kept, 'kept');
        // The other way round: what was saved before the slow requests end.
        const late = visitor.twin().post(`${url}/look`);
        await gate.arrived(1);
        await visitor.post(`${url}/max-age/${2 * HOUR}`);
        await visitor.post(`${url}/login/bob`);
        gate.open();
        await late;
        const after = await visitor.session(url);
        assert.deepEqual([after.data.user, after.maxAge], ['bob', 2 * HOUR]);
        assert.deepEqual(errors, []);
      });

      it('keeps a changed `cookie.maxAge` and `sameSite`, also against a parallel request', async () => {
        const { url, gate } = await start(await openStore({ touchAfter: 0 }), { express });
        const visitor = await loggedIn(url);
        const others = ['look', 'key/a'].map((path) => visitor.twin().post(`${url}/${path}`));
        await gate.arrived(2);
        await visitor.post(`${url}/max-age/${24 * HOUR}`);
        await visitor.post(`${url}/same-site/strict`);
        gate.open();
        await Promise.all(others);
        const { data, maxAge, sameSite } = await visitor.session(url);
        assert.deepEqual([data.a, maxAge, sameSite], ['a', 24 * HOUR, 'strict']);
      });

      it('logs in by `regenerate` with parallel requests on the old session', async () => {
        const store = await openStore();
        const { url, gate, errors } = await start(store, { express, session: { saveUninitialized: true } });
        const visitor = new Visitor();
        await visitor.session(url);
        const old = visitor.twin();
        const slow = Array.from({ length: 10 }, (_, n) => visitor.twin().post(`${url}/key/r${n}`));
        await gate.arrived(10);
        await visitor.post(`${url}/regenerate/ann`);
        gate.open();
        await Promise.all(slow);
        assert.notEqual(visitor.cookie, old.cookie);
        assert.equal(await store.length(), 1);
        assert.deepEqual((await visitor.session(url)).data, { user: 'ann' });
        assert.deepEqual((await old.session(url)).data, {});
        assert.deepEqual(errors, []);
      });

      it('destroys after a save that was not awaited', async () => {
        const store = await openStore();
        const { url } = await start(store, { express });
        const visitor = await loggedIn(url);
        await visitor.post(`${url}/save-and-leave`);
        assert.equal(await store.length(), 0);
      });
    });
  }

  describe('does not revive a session', () => {
    const endings: Record<string, (url: string, visitor: Visitor, store: PgStore, sql: Sql, table: string) => unknown> =
      {
        'a logout': (url, visitor) => visitor.twin().post(`${url}/logout`),
        regenerate: (url, visitor) => visitor.twin().post(`${url}/regenerate/bob`),
        clear: (_url, _visitor, store) => store.clear(),
        'an expiry and autodelete': async (_url, _visitor, store, sql, table) => {
          await sql`update ${sql(table)} set expires_at = now() - interval '1 second', delete_after = now()`;
          await store.autodelete();
        },
        'plain SQL': (_url, _visitor, _store, sql, table) => sql`delete from ${sql(table)}`,
      };
    const settings = [false, true].flatMap((resave) =>
      [false, true].flatMap((rolling) =>
        [false, true].map((saveUninitialized) => ({ resave, rolling, saveUninitialized })),
      ),
    );

    for (const express of VERSIONS) {
      for (const [ending, end] of Object.entries(endings)) {
        it(`after ${ending}, whatever resave, rolling and saveUninitialized say, in Express ${express}`, async () => {
          const table = freshTable();
          const [store, sql] = [await openStore({ table, touchAfter: 0 }), await sqlClient()];
          const dropped: string[] = [];
          store.on('dropped', (_handle, call) => dropped.push(call));
          for (const session of settings) {
            const { url, gate, errors } = await start(store, { express, session });
            const visitor = await loggedIn(url);
            const key = decodeURIComponent(visitor.cookie).replace(/^connect\.sid=s:([^.]*)\..*$/, '$1');
            assert.equal((await sql`select from ${sql(table)} where sid = ${key}`).length, 1);
            const slow = ['key/late', 'nested/late', 'look'].map((path) => visitor.twin().post(`${url}/${path}`));
            await gate.arrived(3);
            await end(url, visitor, store, sql, table);
            dropped.length = 0;
            gate.open();
            await Promise.all(slow);
            await tick();
            const what = JSON.stringify(session);
            assert.equal((await sql`select from ${sql(table)} where sid = ${key}`).length, 0, what);
            assert.deepEqual(dropped.sort(), ['set', 'set', session.resave ? 'set' : 'touch'], what);
            assert.deepEqual(errors, [], what);
            assert.equal((await visitor.session(url)).data.user, undefined, what);
            await servers.pop()?.close();
          }
        });
      }
    }
  });

  describe('in four processes', () => {
    let processes: RaceProcess[] = [];

    before(async () => {
      const [uri, table] = [await postgresUri(), freshTable()];
      processes = await Promise.all([1, 2, 3, 4].map(() => RaceProcess.start(uri, table)));
    });

    after(() => Promise.all(processes.map((each) => each.close())));

    /**
     * Sends one request to each process in turn; all have loaded their session before the first one
     * saves.
     */
    async function everywhere(count: number, send: (process: RaceProcess, n: number) => Promise<unknown>) {
      const requests = Array.from({ length: count }, (_, n) => send(processes[n % 4] as RaceProcess, n));
      await Promise.all(processes.map((each, n) => each.arrived(Math.ceil((count - n) / 4))));
      return requests;
    }

    for (const express of VERSIONS) {
      for (const count of [2, 20, 200]) {
        it(`keeps what each of ${count} parallel requests changed, in Express ${express}`, async () => {
          const url = processes[0]?.urls[express] as string;
          const visitor = await loggedIn(url);
          const requests = await everywhere(count, (process, n) =>
            visitor.twin().post(`${process.urls[express]}/everywhere/r${n}`),
          );
          for (const each of processes) each.open();
          await Promise.all(requests);
          for (const process of processes) {
            assertAllThere((await visitor.session(process.urls[express])).data, count);
          }
        });
      }

      it(`does not revive a session after a logout in another process, in Express ${express}`, async () => {
        const url = processes[0]?.urls[express] as string;
        const visitor = await loggedIn(url);
        const requests = await everywhere(20, (process, n) =>
          visitor.twin().post(`${process.urls[express]}/everywhere/r${n}`),
        );
        await visitor.twin().post(`${processes[1]?.urls[express]}/logout`);
        for (const each of processes) each.open();
        await Promise.all(requests);
        for (const process of processes) assert.deepEqual((await visitor.session(process.urls[express])).data, {});
      });
    }
  });
});
