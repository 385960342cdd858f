import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { SessionData } from 'express-session';
import type { PgStore } from '../../lib/index.js';
import { closeStores, freshTable, openStore, sqlClient } from '../support/postgres.js';
import { PostgresServer } from '../support/postgres-server.js';
import { type AnySession, load, plain } from '../support/sessions.js';

const NEIGHBOURS = 200;

/** First, last, and steps between that meet every place in a statement's half. */
const POSITIONS = [...Array.from({ length: 23 }, (_, n) => n * 9), NEIGHBOURS];

/** Calls with callbacks; says how often each was called back, and with which error. */
async function setAll(store: PgStore, sessions: [string, SessionData][]): Promise<(Error | null)[][]> {
  const answers: (Error | null)[][] = sessions.map(() => []);
  await new Promise<void>((resolve) => {
    let left = sessions.length;
    for (const [n, [sid, session]] of sessions.entries()) {
      store.set(sid, session, (error) => {
        answers[n].push(error ?? null);
        if (--left === 0) resolve();
      });
    }
  });
  // What comes twice comes by then.
  await store.get('nobody');
  return answers;
}

describe('batching on PostgreSQL', () => {
  afterEach(closeStores);

  describe('one bad call among many fails alone, at every position', () => {
    const poisons: [string, string, (sid: string) => [string, SessionData]][] = [
      ['a session ID that is too long', 'INVALID_SID', () => [randomBytes(9000).toString('hex'), plain({ n: -1 })]],
      ['a user ID with a NUL character', 'INVALID_USER', (sid) => [sid, plain({ passport: { user: 'a\0b' } })]],
      ['a value that a constraint refuses', '23514', (sid) => [sid, plain({ n: 'forbidden' })]],
    ];
    for (const [what, code, poison] of poisons) {
      it(what, async () => {
        const table = freshTable();
        const store = await openStore({ table });
        await store.ready();
        const sql = await sqlClient();
        await sql`alter table ${sql(table)} add constraint harmless check (data->>'n' is distinct from 'forbidden')`;
        for (const position of POSITIONS) {
          const sessions = Array.from({ length: NEIGHBOURS }, (_, n): [string, SessionData] => [
            `s${n}`,
            plain({ n: position }),
          ]);
          sessions.splice(position, 0, poison('bad'));
          const answers = await setAll(store, sessions);
          for (const [n, answer] of answers.entries()) {
            if (n === position)
              assert.deepEqual(
                answer.map((error) => (error as any)?.code),
                [code],
              );
            else assert.deepEqual(answer, [null]);
          }
          const [{ count }] = await sql`
            select count(*)::int from ${sql(table)} where sid ~ '^s\\d+$' and data->>'n' = ${String(position)}`;
          assert.equal(count, NEIGHBOURS);
        }
      });
    }

    it('a value that a constraint refuses, in sessions that were loaded', async () => {
      const table = freshTable();
      const store = await openStore({ table });
      const sids = Array.from({ length: NEIGHBOURS + 1 }, (_, n) => `s${n}`);
      await Promise.all(sids.map((sid) => store.set(sid, plain({ n: 0 }))));
      const sql = await sqlClient();
      await sql`alter table ${sql(table)} add constraint harmless check (data->>'n' is distinct from 'forbidden')`;
      for (const position of POSITIONS.filter((_, n) => n % 4 === 0)) {
        const sessions = (await Promise.all(sids.map((sid) => load(store, sid)))) as AnySession[];
        for (const [n, session] of sessions.entries()) session.n = n === position ? 'forbidden' : position + 1;
        const answers = await setAll(
          store,
          sessions.map((session, n) => [sids[n], session]),
        );
        for (const [n, answer] of answers.entries()) {
          assert.deepEqual(
            answer.map((error) => (error as any)?.code),
            n === position ? ['23514'] : [undefined],
          );
        }
        const [{ count }] = await sql`
          select count(*)::int from ${sql(table)} where data->>'n' = ${String(position + 1)}`;
        assert.equal(count, NEIGHBOURS);
      }
    });
  });

  for (const held of [1, 15]) {
    it(`rows locked for long (${held} of them, 3 connections) delay their own sessions only`, async () => {
      const table = freshTable();
      const store = await openStore({ table, maxConnections: 3, touchAfter: 0, timeout: 60_000 });
      const sids = Array.from({ length: 100 }, (_, n) => `s${n}`);
      await Promise.all(sids.map((sid) => store.set(sid, plain({ n: 0 }))));
      const sessions = (await Promise.all(sids.map((sid) => load(store, sid)))) as AnySession[];
      const sql = await sqlClient();
      let answered = 0;
      let waiting: Promise<unknown>[] = [];
      await sql.begin(async (lock) => {
        await lock`select from ${lock(table)} where sid = any(${sids.slice(0, held)}) for update`;
        waiting = sids.slice(0, held).map((sid, n) => {
          const session = sessions[n];
          session.n = 1;
          const call =
            n % 3 === 0 ? store.set(sid, session) : n % 3 === 1 ? store.touch(sid, session) : store.destroy(sid);
          return call.then(() => answered++);
        });
        for (let round = 1; round <= 3; round++) {
          await Promise.all(
            sids.slice(held).map(async (sid, n) => {
              const session = sessions[held + n];
              session.n = round;
              await Promise.all([store.set(sid, session), store.touch(sid, session), store.get(sid)]);
            }),
          );
        }
        assert.equal(answered, 0);
      });
      await Promise.all(waiting);
      const stored = (await Promise.all(sids.map((sid) => store.get(sid)))) as any[];
      for (const [n, session] of stored.entries()) {
        if (n >= held) assert.equal(session.n, 3);
        else assert.equal(session?.n, [1, 0, undefined][n % 3]);
      }
    });
  }

  it('keeps the order of calls on each session, whatever their kinds', async () => {
    const store = await openStore({ touchAfter: 0 });
    const kinds = ['set', 'touch', 'destroy', 'get'] as const;
    const expected = new Map<string, number | undefined>();
    const calls: Promise<unknown>[] = [];
    for (let n = 0; n < 3000; n++) {
      const sid = `s${Math.floor(Math.random() * 60)}`;
      const kind = kinds[Math.floor(Math.random() * kinds.length)];
      if (kind === 'set') {
        expected.set(sid, n);
        calls.push(store.set(sid, plain({ n })));
      } else if (kind === 'touch') calls.push(store.touch(sid, plain()));
      else if (kind === 'destroy') {
        expected.set(sid, undefined);
        calls.push(store.destroy(sid));
      } else {
        const now = expected.get(sid);
        calls.push(store.get(sid).then((session) => assert.equal((session as any)?.n, now)));
      }
    }
    await Promise.all(calls);
    for (const [sid, n] of expected) assert.equal(((await store.get(sid)) as any)?.n, n);
  });

  it('answers 100,000 calls that wait at once', async () => {
    const store = await openStore({ timeout: 60_000 });
    await Promise.all(Array.from({ length: 1000 }, (_, n) => store.set(`s${n}`, plain({ n }))));
    let answered = 0;
    await new Promise<void>((resolve, reject) => {
      for (let n = 0; n < 100_000; n++) {
        store.get(`s${n % 1000}`, (error, session: any) => {
          if (error || session.n !== n % 1000) reject(error ?? new Error(`call ${n} got another call's answer`));
          if (++answered === 100_000) resolve();
        });
      }
    });
    await store.get('s0');
    assert.equal(answered, 100_000);
  });

  it('finishes at close() what was called before', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    const calls = Array.from({ length: 2000 }, (_, n) => store.set(`s${n}`, plain({ n })));
    await store.close();
    await Promise.all(calls);
    const sql = await sqlClient();
    const [{ count }] = await sql`select count(*)::int from ${sql(table)}`;
    assert.equal(count, 2000);
    await assert.rejects(store.get('s0'), { code: 'CLOSED' });
  });

  it('causes no deadlock while four processes save, replace, touch and destroy the same 300 sessions', async () => {
    const server = await PostgresServer.start({ settings: { fsync: 'off' } });
    try {
      const script = fileURLToPath(new URL('../support/same-sessions.ts', import.meta.url));
      const args = ['--import', 'tsx', script, server.uri, 'sessions', '300', '3000'];
      // The table is there before they start: two that create it at once leave an error in the
      // server's log.
      await (await openStore({ uri: server.uri, table: 'sessions' })).get('nobody');
      await closeStores();
      const outputs = await Promise.all(
        Array.from({ length: 4 }, () => promisify(execFile)(process.execPath, args, { timeout: 250_000 })),
      );
      for (const { stdout } of outputs) {
        const calls = JSON.parse(stdout) as Record<string, number>;
        for (const [kind, count] of Object.entries(calls)) assert(count > 0, `no ${kind} in ${stdout}`);
      }
      assert.doesNotMatch(server.log, /deadlock|ERROR/);
    } finally {
      await server.close();
    }
  });
});
