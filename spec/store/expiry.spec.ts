/**
 * A session expires when its cookie says, whatever its save waited for and whatever the clocks say.
 */

import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import type { Sql } from 'postgres';
import type { PgStore } from '../../lib/index.js';
import { eventually } from '../support/eventually.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { closeStores, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { generated, load, plain } from '../support/sessions.js';

describe('expiry', () => {
  const { now } = Date;

  afterEach(async () => {
    Date.now = now;
    await closeStores();
  });

  /** Resolves once a statement of this kind has been answered. */
  function nextStatement(table: string, kind: string): Promise<void> {
    return new Promise((resolve) => {
      const listener = (message: any) => {
        if (message.table !== `public.${table}` || message.kind !== kind) return;
        unsubscribe('express-pg-store:statement', listener);
        resolve();
      };
      subscribe('express-pg-store:statement', listener);
    });
  }

  const jsonOf = (value: unknown) => JSON.parse(JSON.stringify(value));

  /**
   * Saves sessions of many lifetimes at once; each must be read with the cookie that it was saved
   * with.
   */
  async function assertReadAsSet(store: PgStore, round = 0): Promise<void> {
    const sessions = Array.from({ length: 500 }, (_, n) => generated(store, `${round}-${n}`, { n }, 60_000 + 977 * n));
    const saved = sessions.map(jsonOf);
    await Promise.all(sessions.map((session) => store.set(session.id, session)));
    assert.deepEqual(await Promise.all(sessions.map(({ id }) => store.get(id))), saved);
  }

  for (const [how, options] of Object.entries({
    '': {},
    ', signed and encrypted': { secret: 's', encryptionKey: 'an encryption key for specs' },
    ', with `maxLifetime`': { maxLifetime: 86_400 },
  })) {
    it(`is read as it was set, to the millisecond${how}`, async () => {
      const store = await openStore(options);
      for (let round = 0; round < 4; round++) await assertReadAsSet(store, round);
    });
  }

  it('is read as it was set by a touch, by a save with changes, and in listings', async () => {
    const store = await openStore({ touchAfter: 0, user: () => 'ann' });
    await store.set('sid', plain({}, 30_000));
    for (const call of ['touch', 'set'] as const) {
      const request = await load(store, 'sid');
      assert(request);
      request.cookie.maxAge = 90_000;
      request[call] = true;
      await store[call]('sid', request);
      const { cookie } = jsonOf(request);
      assert.deepEqual((await store.get('sid'))?.cookie, cookie);
      assert.deepEqual((await store.all())[0]?.cookie, cookie);
      const [listed] = await store.sessionsOf('ann');
      assert.deepEqual(listed?.session.cookie, cookie);
      // By the database's clock.
      assert(Math.abs(Number(listed?.expiresAt) - Number(request.cookie.expires)) < 5000);
    }
  });

  it('is read as it was set after a save that waited for its connection', async () => {
    const port = Number(new URL(await postgresUri()).port);
    const proxy = await FaultProxy.start(() => port);
    try {
      const store = await openStore({ uri: proxy.uriTo(await postgresUri()) });
      proxy.silence();
      const saving = assertReadAsSet(store);
      const start = Date.now();
      await eventually(() => proxy.held > 0 && Date.now() > start);
      proxy.resume();
      await saving;
    } finally {
      await closeStores();
      await proxy.close();
    }
  });

  it('is read as it was set after a save that waited for the server to come back', async () => {
    const port = Number(new URL(await postgresUri()).port);
    const proxy = await FaultProxy.start(() => port);
    try {
      const store = await openStore({ uri: proxy.uriTo(await postgresUri()), retry: { attempts: 10, delay: 50 } });
      await store.ready();
      proxy.refuse(true);
      const retried = once(store, 'retry');
      const saving = assertReadAsSet(store);
      await retried;
      proxy.refuse(false);
      await saving;
    } finally {
      await closeStores();
      await proxy.close();
    }
  });

  it('is read as it was set after a save that waited for another call on its session', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    await store.set('sid', plain());
    const sql = await sqlClient();
    const sessions = [plain({ n: 1 }, 90_000), plain({ n: 2 }, 70_000)];
    await sql.begin(async (locking) => {
      await locking`select from ${sql(table)} where sid = 'sid' for update`;
      for (const session of sessions) store.set('sid', session, () => {});
      // It comes back without the row, which is locked.
      await nextStatement(table, 'set');
    });
    assert.deepEqual(await store.get('sid'), sessions[1]);
  });

  it('is at most as late as the event loop stood still while an answer waited, and right after the next touch', async () => {
    const table = freshTable();
    const { clocks, sql } = clocksThatStep(await sqlClient());
    const store = await openStore({ table, sql, touchAfter: 0 });
    try {
      const made = generated(store, 'sid', { n: 1 }, 60_000);
      await store.set('sid', made);
      const set = Number(made.cookie.expires);
      // The answer is in the socket when the event loop stops for six seconds.
      clocks.stepAfterAnswer = 6000;
      const request = await load(store, 'sid');
      assert(request);
      const late = Number(request.cookie.expires) - set;
      assert(late >= 0 && late <= 6100, `${late} ms late`);
      request.touch();
      await store.touch('sid', request);
      const admin = await sqlClient();
      const left = async () => {
        const [row] =
          await admin`select extract(epoch from expires_at - now())::float8 as seconds from ${admin(table)}`;
        return Number(row?.seconds);
      };
      assert((await left()) > 50 && (await left()) <= 60, `${await left()} s`);
      // Here it stops between a save and its answer.
      clocks.stepAfterAnswer = 6000;
      request.n = 2;
      await store.set('sid', request);
      assert((await left()) > 50 && (await left()) <= 60, `${await left()} s`);
    } finally {
      clocks.restore();
    }
  });

  it('tells clocks apart by a tenth of the lifetime, so that a short session lives its time', async () => {
    const store = await openStore();
    await store.ready();
    Date.now = () => now() - 4900;
    await store.set('sid', plain({ n: 1 }, 4800));
    assert.equal(((await store.get('sid')) as any)?.n, 1);
  });
});

/** A client whose answers the event loop gets late: it stood still, and all clocks of the process went on. */
function clocksThatStep(client: Sql) {
  const { now } = Date;
  const ticks = performance.now;
  const clocks = {
    stepAfterAnswer: 0,
    restore: () => {
      Date.now = now;
      performance.now = ticks;
    },
  };
  let ahead = 0;
  Date.now = () => now() + ahead;
  performance.now = () => ticks.call(performance) + ahead;
  const unsafe = (text: string, values: any[], options: object) => ({
    simple: () => client.unsafe(text).simple(),
    values: async () => {
      const rows = await client.unsafe(text, values, options).values();
      ahead += clocks.stepAfterAnswer;
      clocks.stepAfterAnswer = 0;
      return rows;
    },
  });
  return { clocks, sql: Object.assign(() => {}, { unsafe, options: client.options }) as unknown as Sql };
}
