/** Calls on users and prefixes, on PostgreSQL. */

import assert from 'node:assert/strict';
import type { Sql } from 'postgres';
import { describeBulkCalls } from '../support/bulk-specs.js';
import { closeStores, freshTable, openStore, SHARDS, shardColumn, shardValue, sqlClient } from '../support/postgres.js';
import { postgresWorld } from '../support/postgres-world.js';
import { openCountedStore } from '../support/race-statements.js';
import { plain } from '../support/sessions.js';

const user = (session: any) => session.user;

describeBulkCalls(postgresWorld);

describe('calls on users and prefixes cost few statements', () => {
  afterEach(closeStores);

  it('clear ends while others add sessions faster than it deletes', async () => {
    const sql = await sqlClient();
    const table = freshTable();
    await (await openStore({ table })).ready();
    let added = 0;
    const unsafe = (text: string, values: any[], options: object) => ({
      simple: () => sql.unsafe(text).simple(),
      values: async () => {
        if (text.includes('delete from')) {
          // After all keys that are there.
          await sql`insert into ${sql(table)} (${sql.unsafe(shardColumn)}sid, data, expires_at, delete_after)
            select ${sql.unsafe(shardValue('z'))}'z' || ${added}::integer + n, '{}', t, t
            from generate_series(1, 600) n, lateral (select now() + interval '1 hour' as t) times`;
          added += 600;
        }
        return sql.unsafe(text, values, options).values();
      },
    });
    const store = await openStore({ table, sql: Object.assign(() => {}, { unsafe }) as unknown as Sql });
    await Promise.all(Array.from({ length: 1200 }, (_, n) => store.set(`s${n}`, plain())));
    await store.clear();
    assert.equal(await store.length(), added);
    assert(added > 0);
  });

  it('400 sign-ins at once, each of which signs the user out elsewhere, send at most 100 statements for that', async () => {
    const { store, sent } = await openCountedStore({ user });
    const count = 400;
    const sids = Array.from({ length: count * 3 }, (_, n) => `old${n}`);
    await Promise.all(sids.map((sid, n) => store.set(sid, plain({ user: `user ${n % count}` }))));
    let destroyed = 0;
    const statements = await sent(() =>
      Promise.all(
        Array.from({ length: count }, async (_, n) => {
          await store.set(`new${n}`, plain({ user: `user ${n}` }));
          const others = await store.destroySessionsOf(`user ${n}`, { except: `new${n}` });
          destroyed += others;
        }),
      ),
    );
    assert.equal(destroyed, count * 3);
    assert.equal(await store.length(), count);
    const signOuts = statements.filter(({ kind }) => kind === 'select' || kind === 'delete');
    assert(signOuts.length <= 100 * (SHARDS ?? 1), `${signOuts.length} statements`);
  });

  it('sign-outs of one user at once share their deletions, and count each session once', async () => {
    const { store, sent } = await openCountedStore({ user });
    const count = 2000;
    const signIn = () =>
      Promise.all(Array.from({ length: count }, (_, n) => store.set(`s${n}`, plain({ user: 'ann' }))));
    const deletionsOf = async (calls: number) => {
      await signIn();
      let destroyed: number[] = [];
      const statements = await sent(async () => {
        destroyed = await Promise.all(Array.from({ length: calls }, () => store.destroySessionsOf('ann')));
      });
      assert.equal(
        destroyed.reduce((sum, n) => sum + n),
        count,
      );
      assert.equal(await store.length(), 0);
      return statements.filter(({ kind }) => kind === 'delete').length;
    };
    const alone = await deletionsOf(1);
    const together = await deletionsOf(50);
    assert(together <= 3 * alone, `${together} deletions, ${alone} for one call`);
  });

  it('destroyByHandle reads no data, and no other user’s keys', async () => {
    const { store, sent } = await openCountedStore({ user });
    await Promise.all(['a', 'b', 'c'].map((sid) => store.set(sid, plain({ user: 'ann', text: 'the data' }))));
    const [{ handle }] = (await store.sessionsOf('ann')) as unknown as [{ handle: string }];
    const statements = await sent(async () => {
      assert.equal(await store.destroyByHandle(handle, { user: 'ann' }), true);
    });
    assert.equal(statements.length, 2);
    for (const { text } of statements) assert.doesNotMatch(text, /\bdata\b/);
  });

  it('names no more than the keys of a user who has 10,000 sessions, and nobody else waits', async () => {
    const { store, table } = await openCountedStore({ user });
    const sql = await sqlClient();
    await sql`insert into ${sql(table)} (${sql.unsafe(shardColumn)}sid, data, cookie, user_id, expires_at, delete_after)
      select ${sql.unsafe(shardValue('many'))}'many' || n, '{"user":"ann"}', '{}', 'ann', t, t
      from generate_series(1, 10000) n, lateral (select now() + interval '1 hour' as t) times`;
    await store.set('bob', plain({ user: 'bob' }));
    assert.equal((await store.sessionsOf('ann')).length, 1000);
    assert.equal((await store.sessionsOf('ann', { limit: 20_000 })).length, 10_000);
    assert.equal((await store.sessionsOf('ann', { limit: Number.MAX_SAFE_INTEGER })).length, 10_000);
    const destroying = store.limitSessionsOf('ann', 10);
    let answers = 0;
    let isDone = false;
    void destroying.then(() => {
      isDone = true;
    });
    for (; !isDone; answers++) assert(await store.get('bob'));
    assert(answers > 5, `${answers} answers meanwhile`);
    assert.equal(await destroying, 9990);
  });
});
