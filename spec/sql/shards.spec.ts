/**
 * Does each session have one shard, each statement on single rows one partition, and each store the
 * table's number of shards?
 */

import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { NOW_SQL } from '../../lib/sql/find.js';
import type { BoundQuery } from '../../lib/sql/query.js';
import { createTableSql } from '../../lib/sql/schema.js';
import { PgStatements } from '../../lib/sql/statements.js';
import { closeStores, freshTable, ON_CITUS, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { load, plain } from '../support/sessions.js';
import { changedRow, row } from '../support/sql-table.js';

const SHARDS = 8;

/** A table of eight shards, each a partition of its own. */
async function sharded() {
  const sql = await sqlClient();
  const name = { schema: 'public', table: freshTable(), shards: SHARDS };
  await sql.unsafe(createTableSql(name, ON_CITUS ? 0 : SHARDS, ON_CITUS)).simple();
  const open = async (options: PgStoreOptions = {}) =>
    openStore({ uri: await postgresUri(), table: name.table, shards: SHARDS, touchAfter: 0, ...options });
  const places = async () => [...(await sql`select sid, shard from ${sql(name.table)} order by sid`)];
  return { sql, name, open, places };
}

interface Plan {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly Plans?: Plan[];
}

/** The tables that a plan names. What changes rows names the partitioned table itself. */
function relationsOf(plan: Plan): string[] {
  return [plan['Relation Name'] ?? [], (plan.Plans ?? []).flatMap(relationsOf)].flat();
}

describe('shards', () => {
  afterEach(closeStores);

  it('a statement on single rows, a page and a deletion touch one partition each', async () => {
    const sql = await sqlClient();
    const name = { schema: 'public', table: freshTable(), shards: SHARDS };
    await sql.unsafe(createTableSql(name, SHARDS)).simple();
    /** The partitions that each statement names in its plan. */
    const found = new Map<string, Set<string>>();
    const query: BoundQuery = async (text, values) => {
      const [{ 'QUERY PLAN': plans }] = (await sql.unsafe(`explain (format json) ${text}`, values, {
        prepare: false,
      })) as any;
      const relations = plans.flatMap(({ Plan }: { Plan: Plan }) => relationsOf(Plan)) as string[];
      found.set(text, new Set(relations.filter((relation) => relation !== name.table)));
      return sql.unsafe(text, values).values() as any;
    };
    const shard = 5;
    const range = ['', '\u{10FFFF}'] as const;
    const statements = new PgStatements({ run: (_, __, work) => work(query) }, name, range, undefined, () => Infinity);
    const rows = statements.onShard(shard);
    const late = Number.POSITIVE_INFINITY;
    for (const keys of [['a'], ['b', 'c']]) {
      /** Sends them together, so that they share a statement. */
      const each = <T>(send: (key: string) => Promise<T>) => Promise.all(keys.map(send));
      const all = <T>(value: T): T[] => keys.map(() => value);
      const change = (key: string) => changedRow(key, { user: 'ann' });
      assert.deepEqual(await each((key) => rows.insert(row(key), late)), all(true));
      assert.deepEqual(await each((key) => rows.replace(row(key), late)), all(true));
      assert.deepEqual(await each((key) => rows.touch({ ...row(key), overwritesCookie: false }, late)), all(true));
      assert.deepEqual(await each((key) => rows.update(change(key), late)), all(true));
      assert.deepEqual(await each((key) => statements.onShard(4).read([key], late)), all(undefined));
      for (const stored of await each((key) => rows.read([key], late))) assert.equal(stored?.version, 8);
      const written = await each((key) => rows.destroyWritten({ key, version: 7, user: 'ann' }, late));
      assert.deepEqual(written, all('gone'));
      assert.deepEqual(await each((key) => rows.bury(key, late)), all(true));
      assert.deepEqual(await each((key) => rows.destroy(key, late)), all(true));
      assert.deepEqual(await each((key) => rows.bury(key, late)), all(true), 'where there is none');
      assert.deepEqual(await each((key) => rows.replace(row(key, { user: 'ann' }), late)), all(true));
    }
    const moved = { ...changedRow('a', { user: 'ann' }), key: 'moved' };
    assert.equal(await rows.update(moved, late), true);
    const names = await statements.findOfUser('ann', late);
    assert.deepEqual(names.map(({ key, shard }) => [key, shard]).sort(), [
      ['b', 5],
      ['c', 5],
      ['moved', 5],
    ]);
    assert.deepEqual(
      await Promise.all(names.map((name) => rows.destroyNamed(name, late))),
      names.map(() => 'deleted'),
    );
    await rows.replace(row('expired', { expires: Date.now() - 1 }), late);
    const ofShard = [...found];
    for await (const _ of statements.pages('all'));
    for await (const _ of statements.names(await statements.now()));
    for await (const _ of statements.deleteExpired());
    for (const [text, relations] of ofShard) {
      if (text.includes('user_id = any')) continue;
      // An insert of tombstones reads nothing.
      const isInsert = text.includes("'null'::json");
      assert.deepEqual([...relations], isInsert ? [] : [`${name.table}_p5`], text);
    }
    // These go through the shards one by one, each statement in the last one as in all others.
    for (const [text, relations] of [...found].slice(ofShard.length)) {
      if (text === NOW_SQL) continue;
      assert.deepEqual([...relations], [`${name.table}_p7`], text);
    }
    assert.equal(found.size, ofShard.length + 4);
  });

  it('a session is in the shard of its prefix and session ID, whatever its row key', async () => {
    for (const options of [
      {},
      { prefix: 'app:' },
      { secret: 's', prefix: 'ä:' },
      { hashIds: true },
      { hashIds: true, secret: 's' },
    ]) {
      const { open, places, sql, name } = await sharded();
      const store = await open(options);
      const sids = Array.from({ length: 40 }, (_, n) => `sid-${n}`);
      for (const sid of sids) {
        await store.set(sid, plain({ sid }));
        const [row] = await sql`select shard from ${sql(name.table)} where data ->> 'sid' = ${sid}`;
        assert.equal(row?.shard, crc32(Buffer.from(`${options.prefix ?? ''}${sid}`)) % SHARDS);
      }
      assert.equal(new Set((await places()).map(({ shard }) => shard)).size, SHARDS);
      for (const sid of sids) assert.equal(((await store.get(sid)) as any).sid, sid);
    }
  });

  it('every method works', async () => {
    const { open } = await sharded();
    const store = await open({ maxConnections: 2 });
    const sids = Array.from({ length: 600 }, (_, n) => `s${n}`);
    await Promise.all(sids.map((sid, n) => store.set(sid, plain({ n, passport: { user: `u${n % 3}` } }))));
    await Promise.all(sids.map((sid) => store.set(sid, plain({ again: 1, passport: { user: 'ann' } }))));
    assert.deepEqual((await store.ids()).sort(), sids.toSorted());
    assert.equal((await store.all()).length, 600);
    assert.equal(await store.length(), 600);
    const [one, two] = [await load(store, 's1'), await load(store, 's1')];
    Object.assign(one as object, { one: 1 });
    Object.assign(two as object, { two: 2 });
    await Promise.all([store.set('s1', one as any), store.set('s1', two as any)]);
    const { again, one: first, two: second } = (await store.get('s1')) as any;
    assert.deepEqual([again, first, second], [1, 1, 2]);
    await store.touch('s2', plain({}, 90_000));
    const loaded = await load(store, 's3');
    await store.destroy('s3');
    await store.set('s3', Object.assign(loaded as object, { late: 1 }) as any);
    assert.equal(await store.get('s3'), null);
    const [newest] = await store.sessionsOf('ann');
    assert.equal(await store.destroyByHandle(String(newest?.handle), { user: 'ann' }), true);
    assert.equal(await store.destroySessionsOf('ann', { except: 's7' }), 597);
    assert.deepEqual(await store.ids(), ['s7']);
    await Promise.all(sids.map((sid) => store.set(sid, plain({}, 0))));
    assert.equal(await store.autodelete(), 600);
    await Promise.all(sids.map((sid) => store.set(sid, plain())));
    await store.clear();
    assert.equal(await store.length(), 0);
  });

  it('a new secret moves a session within its shard: at no moment without it, at none with two', async () => {
    const { open, sql, name, places } = await sharded();
    const before = await open({ secret: 'old' });
    const sids = Array.from({ length: 30 }, (_, n) => `sid-${n}`);
    await Promise.all(sids.map((sid) => before.set(sid, plain({ n: 0 }))));
    const shards = new Map((await places()).map(({ sid, shard }) => [sid.split('.')[0], shard]));
    const [old, next] = [await open({ secret: ['old', 'new'] }), await open({ secret: ['new', 'old'] })];
    let isMoving = true;
    let looks = 0;
    const watch = async () => {
      for (; isMoving; looks++) {
        const sid = sids[looks % sids.length] as string;
        const counted = ON_CITUS ? [{ count: 30 }] : await sql`select count(*)::integer from ${sql(name.table)}`;
        assert.equal(counted[0]?.count, 30);
        for (const store of [old, next]) assert.equal(typeof ((await store.get(sid)) as any)?.n, 'number', sid);
      }
    };
    const watching = watch();
    const save = async (store: PgStore, sid: string) => {
      const session = await load(store, sid);
      await store.set(sid, Object.assign(session as object, { n: Number((session as any).n) + 1 }) as any);
    };
    for (let round = 0; round < 4; round++) {
      await Promise.all(sids.flatMap((sid) => [save(old, sid), save(next, sid)]));
    }
    await Promise.all(sids.map((sid) => save(next, sid)));
    isMoving = false;
    await watching;
    assert(looks > 3);
    const after = await open({ secret: 'new' });
    for (const sid of sids) assert(((await after.get(sid)) as any).n >= 5);
    assert.deepEqual(new Map((await places()).map(({ sid, shard }) => [sid.split('.')[0], shard])), shards);
  });

  it('another number of shards, or none, is an error of each call that says both, and nothing is written', async () => {
    const { open, places } = await sharded();
    for (const [shards, isGiven] of [
      [4, '4'],
      [16, '16'],
      [undefined, 'not set'],
    ] as const) {
      for (const createTable of [true, false]) {
        const store = await open({ shards: shards as number, createTable });
        const says = { code: 'SHARDS_MISMATCH', message: new RegExp(`with 8 shards, .*\`shards\` is ${isGiven}$`) };
        await assert.rejects(store.ready(), says);
        await assert.rejects(store.set('a', plain()), says);
        await assert.rejects(store.get('a'), says);
        await assert.rejects(store.destroy('a'), says);
        await assert.rejects(store.all(), says);
        await assert.rejects(store.autodelete(), says);
      }
    }
    assert.deepEqual(await places(), []);
  });

  it('of a table without shards the error says how to create one', async () => {
    const { sql } = await sharded();
    const table = freshTable();
    await sql.unsafe(createTableSql({ schema: 'public', table })).simple();
    const store = await openStore({ uri: await postgresUri(), table, shards: 32 });
    await assert.rejects(store.set('a', plain()), {
      code: 'SHARDS_MISMATCH',
      message: /with no shards, and option `shards` is 32; `npx express-pg-store schema --shards 32` prints the SQL/,
    });
    assert.equal((await sql`select from ${sql(table)}`).length, 0);
  });

  it('the store creates the table with its shards', async () => {
    const table = freshTable();
    const store = await openStore({ uri: await postgresUri(), table, shards: 32_767 });
    await store.set('a', plain({ n: 1 }));
    assert.equal(((await store.get('a')) as any).n, 1);
    const again = await openStore({ uri: await postgresUri(), table, shards: 32_767 });
    assert.equal(await again.length(), 1);
  });
});
