/** Everything that FlaskPgSession, the Python original, does: one spec for each of its features. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import express from 'express';
import session from 'express-session';
import postgres from 'postgres';
import request from 'supertest';
import { PgStore, type PgStoreOptions } from '../../lib/index.js';
import {
  closeStores,
  directUri,
  freshTable,
  openStore,
  postgresUri,
  shardColumn,
  shardValue,
  sqlClient,
} from '../support/postgres.js';
import { PostgresServer } from '../support/postgres-server.js';
import { generated, plain } from '../support/sessions.js';

const manifest = JSON.parse(fs.readFileSync(path.join(import.meta.dirname, '../..', 'package.json'), 'utf8'));

async function tableExists(schema: string, table: string): Promise<boolean> {
  const sql = await sqlClient();
  return (await sql`select from pg_tables where schemaname = ${schema} and tablename = ${table}`).length > 0;
}

/** An app that counts views, and empties its session on request. */
function app(store: PgStore, options: Partial<session.SessionOptions> = {}) {
  return express()
    .use(session({ store, secret: 's', resave: false, saveUninitialized: false, ...options }))
    .get('/', (req, res) => {
      const data = req.session as any;
      data.n = (data.n ?? 0) + 1;
      res.json(data.n);
    })
    .get('/empty', (req, res) => {
      (req as any).session = null;
      res.end();
    });
}

describe('what FlaskPgSession does', () => {
  afterEach(closeStores);

  it('SQLALCHEMY_DATABASE_URI: `uri`, or `sql` for a client that the app has', async () => {
    const [table, uri] = [freshTable(), await postgresUri()];
    const sql = postgres(uri, { max: 1, onnotice: () => {} });
    await (await openStore({ uri, table })).set('a', plain({ n: 1 }));
    assert.equal(((await (await openStore({ sql, table })).get('a')) as any).n, 1);
    await closeStores();
    await sql.end();
    assert.throws(() => new PgStore({ uri, sql }), TypeError);
  });

  it('SESSION_PG_TABLE: `table`, by default `sessions`; SESSION_PG_SCHEMA: `schema`, by default `public`', async () => {
    const sql = await sqlClient();
    const [database, other] = [freshTable(), freshTable()];
    await sql`create database ${sql(database)}`;
    const uri = new URL(await postgresUri());
    uri.pathname = database;
    const store = new PgStore({ uri: uri.href });
    await store.ready();
    await store.close();
    const inside = postgres(uri.href, { max: 1 });
    const found = await inside`select schemaname, tablename from pg_tables where tablename = 'sessions'`;
    await inside.end();
    await sql`drop database ${sql(database)} with (force)`; // a pooler may still be connected
    assert.deepEqual([...found], [{ schemaname: 'public', tablename: 'sessions' }]);

    await (await openStore({ schema: other, table: other })).ready();
    assert.equal(await tableExists(other, other), true, 'the schema is created if missing');
    await sql`drop schema ${sql(other)} cascade`;
  });

  it('SESSION_KEY_PREFIX: `prefix`, by default none; listings see only their own', async () => {
    const table = freshTable();
    const [one, two] = [await openStore({ table, prefix: 'one:' }), await openStore({ table, prefix: 'two:' })];
    const none = await openStore({ table });
    await one.set('a', plain({ n: 1 }));
    await two.set('a', plain({ n: 2 }));
    await none.set('a', plain({ n: 3 }));
    assert.deepEqual((await none.ids()).sort(), ['a', 'one:a', 'two:a']);
    await two.clear();
    assert.deepEqual([await one.ids(), await one.length(), (await one.all()).length], [['a'], 1, 1]);
    assert.equal(await two.get('a'), null);
    assert.equal(((await one.get('a')) as any).n, 1);
  });

  it('SESSION_USE_SIGNER: `secret` signs the IDs in the table; with several, old ones still count', async () => {
    const table = freshTable();
    const sql = await sqlClient();
    const old = await openStore({ table, secret: 'old' });
    await old.set('a', plain({ n: 1 }));
    const [row] = await sql`select sid from ${sql(table)}`;
    assert.match(row?.sid, /^a\..{43}$/);
    const rotated = await openStore({ table, secret: ['new', 'old'] });
    assert.equal(((await rotated.get('a')) as any).n, 1);
    assert.equal(await (await openStore({ table, secret: 'new' })).get('a'), null);
    await sql`insert into ${sql(table)} (${sql.unsafe(shardColumn)}sid, data, expires_at, delete_after)
      values (${sql.unsafe(shardValue('b'))}'b.forged', '{}', now() + interval '1 day', now() + interval '1 day')`;
    assert.equal(await rotated.get('b'), null);

    const visitor = request(app(rotated));
    await visitor.get('/').set('Cookie', 'connect.sid=s%3Aa.bad').expect('1');
  });

  it('SESSION_PERMANENT: `permanent`, off by default; `ttl`, by default a day', async () => {
    const cookieOf = async (options: PgStoreOptions) => {
      const response = await request(app(await openStore(options))).get('/');
      return String(response.headers['set-cookie']);
    };
    assert.doesNotMatch(await cookieOf({}), /Expires/);
    const sent = await cookieOf({ permanent: true });
    const expires = Date.parse(/Expires=([^;]+)/.exec(sent)?.[1] as string);
    assert(Math.abs(expires - Date.now() - 86_400_000) < 60_000, sent);

    const table = freshTable();
    const store = await openStore({ table });
    await store.set('a', generated(store, 'a', {}, null));
    const sql = await sqlClient();
    const [row] = await sql`select extract(epoch from expires_at - updated_at)::integer as s from ${sql(table)}`;
    assert.equal(row?.s, 86_400);
  });

  it('SESSION_AUTODELETE_EXPIRED: a timer deletes expired rows; `false` turns it off; `autodelete()` by hand', async () => {
    const table = freshTable();
    const store = await openStore({ table, autodelete: false });
    await store.set('a', plain({}, 0));
    await store.set('b', plain({}, 0));
    assert.equal(await store.autodelete(), 2);
    await store.set('c', plain({}, 0));
    const timer = await openStore({ table, autodelete: 0.05 });
    const [rows] = await once(timer, 'autodelete');
    assert.equal(rows, 1);
    const sql = await sqlClient();
    assert.equal((await sql`select from ${sql(table)}`).length, 0);
  });

  it('SESSION_PG_MAX_DB_CONN: `maxConnections`', async () => {
    const name = freshTable();
    const uri = await directUri();
    const store = await openStore({ uri, maxConnections: 1, postgres: { connection: { application_name: name } } });
    await Promise.all(Array.from({ length: 30 }, (_, n) => [store.set(`s${n}`, plain()), store.get(`t${n}`)]).flat());
    const sql = await sqlClient();
    const [row] = await sql`select count(*)::integer from pg_stat_activity where application_name = ${name}`;
    assert.equal(row?.count, 1);
  });

  it('creates schema, table and indexes: at first use, and again after a failure', async () => {
    const table = freshTable();
    const store = await openStore({ schema: 'public', table });
    assert.equal(await tableExists('public', table), false);
    await store.get('a');
    assert.equal(await tableExists('public', table), true);
    const sql = await sqlClient();
    assert.equal((await sql`select from pg_indexes where tablename = ${table}`).length, 3);

    const server = await PostgresServer.start({ settings: { fsync: 'off' } });
    try {
      await server.stop();
      const early = await openStore({ uri: server.uri, retry: { attempts: 1 } });
      await assert.rejects(early.get('a'));
      await server.start();
      assert.equal(await early.get('a'), null);
      await early.close();
    } finally {
      await server.close();
    }
  });

  it('never returns an expired row; the timer deletes it', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    await store.set('a', plain({}, 0));
    assert.equal(await store.get('a'), null);
    assert.deepEqual(await store.all(), []);
    const sql = await sqlClient();
    assert.equal((await sql`select from ${sql(table)}`).length, 1);
    await store.autodelete();
    assert.equal((await sql`select from ${sql(table)}`).length, 0);
  });

  it('retries each statement, on failures that pass only', async () => {
    const uri = 'postgres://nobody@127.0.0.1:1/none';
    const store = await openStore({ uri, retry: { attempts: 3, delay: 1 } });
    let retries = 0;
    store.on('retry', () => retries++);
    await assert.rejects(store.get('a'), { code: 'ECONNREFUSED' });
    assert.equal(retries, 2);
    const final = await openStore({ createTable: false });
    final.on('retry', () => assert.fail('a missing table does not pass'));
    await assert.rejects(final.get('a'), { code: '42P01' });
  });

  it('takes a session that cannot be decoded as none', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    await store.set('a', plain());
    const sql = await sqlClient();
    await sql`update ${sql(table)} set data = '"changed by hand"'`;
    assert.equal(await store.get('a'), null);
  });

  it('deletes the row of an emptied session, with `unset: "destroy"`', async () => {
    const store = await openStore();
    const visitor = request.agent(app(store, { unset: 'destroy' }));
    await visitor.get('/').expect('1');
    assert.equal(await store.length(), 1);
    await visitor.get('/empty');
    assert.equal(await store.length(), 0);
    await visitor.get('/').expect('1');
  });

  it('init_app: a store connects to nothing until first use', async () => {
    const store = await openStore({ uri: 'postgres://nobody@127.0.0.1:1/none' });
    store.on('retry', () => assert.fail('it tried to connect'));
    await store.close();
  });

  it('has few dependencies; pg-format is part of the build', () => {
    const { dependencies, peerDependencies, peerDependenciesMeta } = manifest;
    assert.deepEqual(Object.keys(dependencies).sort(), ['cookie-signature', 'postgres']);
    const required = Object.keys(peerDependencies).filter((name) => !peerDependenciesMeta[name]?.optional);
    assert.deepEqual(required, ['express-session']);
  });
});
