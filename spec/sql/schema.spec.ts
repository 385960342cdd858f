/**
 * The table is created once, under any name, by any number of processes, and an existing one is
 * left alone.
 */

import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import postgres, { type Sql } from 'postgres';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { identifier } from '../../lib/sql/query.js';
import { createTableSql, indexName } from '../../lib/sql/schema.js';
import { catalogOf } from '../support/catalog.js';
import { type Ended, runNode } from '../support/child.js';
import { closeStores, freshTable, inFreshSchema, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { load, plain } from '../support/sessions.js';

const fresh = (kind: string) => `${kind}_${randomBytes(6).toString('hex')}`;

/** A client for a new database; the database goes with it. */
async function inFreshDatabase<T>(work: (uri: string, sql: Sql) => Promise<T>): Promise<T> {
  const admin = await sqlClient();
  const database = fresh('database');
  await admin`create database ${admin(database)}`;
  const uri = new URL(await postgresUri());
  uri.pathname = `/${database}`;
  const sql = postgres(uri.href, { max: 1, onnotice: () => {} });
  try {
    return await work(uri.href, sql);
  } finally {
    await closeStores();
    await sql.end();
    await admin`drop database ${admin(database)} with (force)`; // a pooler may still be connected
  }
}

/** A role that may log in and do nothing else, and where it finds the database. */
async function withRole(work: (role: string, uri: string, sql: Sql) => Promise<void>): Promise<void> {
  const sql = await sqlClient();
  const role = fresh('role');
  await sql.unsafe(`create role ${role} login password 'secret'`);
  const uri = new URL(await postgresUri());
  Object.assign(uri, { username: role, password: 'secret' });
  try {
    await work(role, uri.href, sql);
  } finally {
    await closeStores();
    await sql.unsafe(`drop owned by ${role}; drop role ${role}`).simple();
  }
}

/** Every kind of statement once. */
async function exercise(store: PgStore): Promise<void> {
  await store.set('a', plain({ n: 1 }));
  const loaded = await load(store, 'a');
  assert(loaded);
  loaded.n = 2;
  await store.set('a', loaded);
  await store.touch('a', plain());
  assert.deepEqual(await store.ids(), ['a']);
  assert.equal(await store.length(), 1);
  assert.equal(((await store.all()) as any)[0]?.n, 2);
  await store.set('b', plain({}, 0));
  assert.equal(await store.autodelete(), 1);
  await store.destroy('a');
  await store.clear();
  assert.equal(await store.get('a'), null);
}

describe('schema', () => {
  afterEach(closeStores);

  it('is in docs/schema.sql as the store creates it', async () => {
    const file = fs.readFileSync(path.join(import.meta.dirname, '../..', 'docs', 'schema.sql'), 'utf8');
    const [documented, made] = await inFreshDatabase(async (uri, sql) => {
      await sql.unsafe(file).simple();
      const fromFile = await catalogOf(sql, 'public', 'sessions');
      await sql`drop table public.sessions`;
      await (await openStore({ uri, table: 'sessions' })).ready();
      return [fromFile, await catalogOf(sql, 'public', 'sessions')] as const;
    });
    assert.deepEqual(documented, made);
    assert.equal(made.columns.length, 10);
    assert.equal(made.indexes.length, 3);
    assert.match(made.comment, /^express-pg-store schema \d+$/);
  });

  it('is created once: an existing one stays as it is', async () => {
    const table = freshTable();
    const first = await openStore({ table });
    await first.set('a', plain());
    const sql = await sqlClient();
    const before = await catalogOf(sql, 'public', table);
    const second = await openStore({ table });
    await second.ready();
    assert.deepEqual(await second.ids(), ['a']);
    assert.deepEqual(await catalogOf(sql, 'public', table), before);
  });

  it('is created at first use, with its schema, whatever their names', async () => {
    const sql = await sqlClient();
    const bystander = fresh('a');
    await sql`create table ${sql(bystander)} ()`;
    for (const name of [
      'select',
      'Weird "Name',
      'x'.repeat(63),
      `${'ä'.repeat(31)}x`,
      `x;drop table ${bystander}`,
      `x"; drop table ${bystander}; --`,
      'täbelle',
      '表',
      'UPPER',
      ' ',
      '%I %s',
      'a.b',
      "it's",
      '1',
      '$1',
      '\\',
    ]) {
      try {
        await exercise(await openStore({ schema: name, table: name }));
        assert.equal((await catalogOf(sql, name, name)).indexes.length, 3, name);
      } finally {
        await closeStores();
        await sql.unsafe(`drop schema if exists ${identifier(name)} cascade`);
      }
    }
    await sql`drop table ${sql(bystander)}`;
  });

  it('may bear any keyword as its name', async () => {
    const sql = await sqlClient();
    const keywords = await sql`select word from pg_get_keywords() where catcode in ('R', 'T')`;
    assert(keywords.length > 90);
    for (const { word } of keywords) {
      try {
        // After a schema's name PostgreSQL takes any word as it is: the schema has to be one too.
        const store = await openStore({ sql, schema: word, table: word });
        await store.set('a', plain({ word }));
        assert.equal(((await store.get('a')) as any).word, word);
      } finally {
        await sql`drop schema if exists ${sql(word)} cascade`;
      }
    }
  });

  it('gives two tables with long, similar names indexes of their own', async () => {
    await inFreshSchema(async (schema, sql) => {
      const names = ['one', 'two'].map((end) => 't'.repeat(60) + end);
      for (const table of names) await (await openStore({ schema, table })).ready();
      for (const table of names) {
        const { indexes } = await catalogOf(sql, schema, table);
        assert.deepEqual(indexes.map(({ definition }) => /\((\w+)\)/.exec(definition)?.[1]).sort(), [
          'delete_after',
          'sid',
          'user_id',
        ]);
      }
    });
  });

  it('has index names within 63 bytes that differ where the tables’ names do', () => {
    const name = fc
      .string({ unit: 'binary', minLength: 1, maxLength: 63 })
      .filter((text) => Buffer.byteLength(text) <= 63);
    fc.assert(
      fc.property(name, name, (one, two) => {
        const names = [one, two].map((table) => indexName(table, 'delete_after_idx'));
        assert(names.every((made) => Buffer.byteLength(made) <= 63 && made.isWellFormed()));
        assert.equal(names[0] === names[1], one === two);
      }),
    );
    assert.equal(indexName('sessions', 'delete_after_idx'), 'sessions_delete_after_idx');
  });

  it('can be partitioned', async () => {
    await inFreshSchema(async (schema, sql) => {
      const name = { schema, table: 'sessions' };
      await sql.unsafe(createTableSql(name, 4)).simple();
      const store = await openStore(name);
      await exercise(store);
      await Promise.all(Array.from({ length: 40 }, (_, n) => store.set(`s${n}`, plain({ n }))));
      const places = await sql`select distinct tableoid from ${sql(schema)}.sessions`;
      assert.equal(places.length, 4);
      await Promise.all(Array.from({ length: 40 }, (_, n) => n % 2 && store.destroy(`s${n}`)));
      assert.equal(await store.length(), 20);
      assert.equal((await catalogOf(sql, schema, 'sessions')).kind, 'p');
    });
  });

  it('is created by twelve processes at once', async () => {
    const sql = await sqlClient();
    const schema = fresh('schema');
    const code = `
      import { PgStore } from './lib/index.js';
      const store = new PgStore(JSON.parse(process.env.OPTIONS));
      console.log('ready');
      process.stdin.once('data', async () => {
        await store.set(String(process.pid), { cookie: {} });
        await store.close();
        process.exit();
      });`;
    const OPTIONS = JSON.stringify({ uri: await postgresUri(), schema } satisfies PgStoreOptions);
    const children: ChildProcess[] = [];
    const ends: Promise<Ended>[] = [];
    const started = Array.from({ length: 12 }, () => {
      return new Promise((resolve) => {
        const isStarted = (child: ChildProcess) => {
          children.push(child);
          child.stdout?.once('data', resolve);
        };
        ends.push(runNode(code, { env: { OPTIONS }, started: isStarted }));
      });
    });
    try {
      await Promise.all(started);
      for (const child of children) child.stdin?.write('go\n');
      for (const { code, stderr } of await Promise.all(ends)) assert.equal(code, 0, stderr);
      assert.equal((await (await openStore({ schema, table: 'sessions' })).ids()).length, 12);
      assert.equal((await catalogOf(sql, schema, 'sessions')).indexes.length, 3);
    } finally {
      await sql`drop schema if exists ${sql(schema)} cascade`;
    }
  });

  it('is created by thirty stores of one process at once', async () => {
    const sql = await sqlClient();
    const schema = fresh('schema');
    const stores = await Promise.all(
      Array.from({ length: 30 }, () => openStore({ schema, table: 'sessions', maxConnections: 1 })),
    );
    try {
      await Promise.all(stores.map((store, n) => store.set(`s${n}`, plain())));
      assert.equal(await stores[0]?.length(), 30);
    } finally {
      await closeStores();
      await sql`drop schema ${sql(schema)} cascade`;
    }
  });

  it('needs no more than rights on rows where it is there', async () => {
    await inFreshSchema(async (schema, sql) => {
      await (await openStore({ schema, table: 'sessions' })).ready();
      await withRole(async (role, uri) => {
        await sql
          .unsafe(`grant usage on schema ${schema} to ${role};
          grant select, insert, update, delete on ${schema}.sessions to ${role}`)
          .simple();
        const store = await openStore({ uri, schema, table: 'sessions', createTable: true });
        await store.ready();
        await exercise(store);
      });
    });
  });

  it('is created once the role may, without a new store', async () => {
    await inFreshSchema(async (schema, sql) => {
      await withRole(async (role, uri) => {
        await sql.unsafe(`grant usage on schema ${schema} to ${role}`);
        const store = await openStore({ uri, schema, table: 'sessions' });
        await assert.rejects(store.set('a', plain()), { code: '42501' });
        await assert.rejects(store.ready(), { code: '42501' });
        await sql.unsafe(`grant create on schema ${schema} to ${role}`);
        await exercise(store);
      });
    });
  });

  it('is never created with `createTable: false`', async () => {
    await inFreshSchema(async (schema, sql) => {
      const store = await openStore({ schema, table: 'sessions', createTable: false });
      await assert.rejects(store.ready(), { code: '42P01' });
      await assert.rejects(store.set('a', plain()), { code: '42P01' });
      await assert.rejects(store.get('a'), { code: '42P01' });
      const missing = await openStore({ schema: fresh('schema'), createTable: false });
      await assert.rejects(missing.ready(), { code: '42P01' });
      const [found] = await sql`select count(*)::integer from pg_class c where relnamespace = ${schema}::regnamespace`;
      assert.equal(found?.count, 0);
      await sql.unsafe(createTableSql({ schema, table: 'sessions' })).simple();
      await store.ready();
      await exercise(store);
    });
  });

  it('is created again after it was dropped', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    await store.set('a', plain());
    const sql = await sqlClient();
    await sql`drop table ${sql(table)}`;
    assert.equal(await store.get('a'), null);
    await exercise(store);
  });
});
