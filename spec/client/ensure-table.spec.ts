/** A table of another program is an error that says so; any number of processes create the store's own at once. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import postgres from 'postgres';
import { columnFlaw } from '../../lib/client/ensure-table.js';
import { PgStore } from '../../lib/index.js';
import { COLUMNS, CREATION_LOCK_SQL, createTableSql } from '../../lib/sql/schema.js';
import { closeStores, directUri, inFreshSchema, openStore } from '../support/postgres.js';
import { plain } from '../support/sessions.js';

describe('the table', () => {
  afterEach(closeStores);

  /** Each call fails with the error, whether or not the store may create tables. */
  async function assertRefused(schema: string, message: RegExp, options: object = {}): Promise<void> {
    for (const createTable of [true, false]) {
      const store = await openStore({ schema, table: 'sessions', createTable, ...options });
      for (const call of [
        store.ready(),
        store.get('a'),
        store.set('a', plain()),
        store.length(),
      ] as Promise<unknown>[]) {
        await assert.rejects(call, (error: any) => {
          assert.equal(error.code, 'TABLE_MISMATCH');
          assert.match(error.message, message);
          assert.match(error.message, /^PgStore\.\w+: table "schema_\w+"\."sessions" /);
          return true;
        });
      }
    }
  }

  const others: Record<string, [columns: string, says: RegExp]> = {
    Laravel: [
      'id varchar(255) primary key, user_id bigint, payload text not null, last_activity int not null',
      /it has no column sid, data, .*; column user_id is bigint, not text.*option `table`/,
    ],
    'connect-pg-simple': [
      'sid varchar not null primary key, sess json not null, expire timestamp(6) not null',
      /no column data, cookie, .*; column sid is character varying, not text/,
    ],
    'Auth.js': ['id serial primary key, "userId" integer not null, "sessionToken" text', /no column sid/],
    'Rails (activerecord-session_store)': ['session_id varchar, data text', /column data is text, not json/],
  };
  for (const [name, [columns, says]] of Object.entries(others)) {
    it(`of ${name} is refused`, () =>
      inFreshSchema(async (schema, sql) => {
        await sql.unsafe(`create table ${schema}.sessions (${columns})`);
        await assertRefused(schema, says);
      }));
  }

  for (const [kind, statement] of Object.entries({
    'a view': 'create view SCHEMA.sessions as select 1 as a',
    'a materialized view': 'create materialized view SCHEMA.sessions as select 1 as a',
    'a sequence': 'create sequence SCHEMA.sessions',
    'an index': 'create table SCHEMA.other (a int); create index sessions on SCHEMA.other (a)',
    'a composite type': 'create type SCHEMA.sessions as (a int)',
  })) {
    it(`is refused where its name is that of ${kind}`, () =>
      inFreshSchema(async (schema, sql) => {
        await sql.unsafe(statement.replaceAll('SCHEMA', schema)).simple();
        await assertRefused(schema, /it has no column sid, data, .*option `table`/);
      }));
  }

  it('is refused where its name is that of an enum, which has no columns', () =>
    inFreshSchema(async (schema, sql) => {
      await sql.unsafe(`create type ${schema}.sessions as enum ('a')`);
      const store = await openStore({ schema, table: 'sessions' });
      const message = /"\."sessions" has the name of a type; choose another name with option `table`$/;
      await assert.rejects(store.ready(), { code: 'TABLE_MISMATCH', message });
    }));

  for (const column of Object.keys(COLUMNS)) {
    it(`without ${column}, or with another type of it, is refused; with it, it works`, () =>
      inFreshSchema(async (schema, sql) => {
        await sql.unsafe(createTableSql({ schema, table: 'sessions' })).simple();
        await sql.unsafe(`alter table ${schema}.sessions rename column ${column} to other`);
        await assertRefused(schema, new RegExp(`it has no column ${column}\\. `));
        await sql.unsafe(`alter table ${schema}.sessions add column ${column} point`);
        await assertRefused(schema, new RegExp(`column ${column} is point, not ${COLUMNS[column]}\\. `));
        await sql.unsafe(`alter table ${schema}.sessions drop column ${column}`);
        await sql.unsafe(`alter table ${schema}.sessions rename column other to ${column}`);
        await (await openStore({ schema, table: 'sessions' })).ready();
      }));
  }

  it('may have columns of the app’s, if an insert need not name them', () =>
    inFreshSchema(async (schema, sql) => {
      await sql.unsafe(createTableSql({ schema, table: 'sessions' })).simple();
      await sql.unsafe(`alter table ${schema}.sessions
        add column tenant text, add column ip text not null default '', add column n integer generated always as identity`);
      const store = await openStore({ schema, table: 'sessions' });
      await store.set('a', plain({ n: 1 }));
      assert.equal(((await store.get('a')) as any).n, 1);
      await store.destroy('a');
      await sql.unsafe(`alter table ${schema}.sessions add column must text not null`);
      await assertRefused(schema, /a column must that takes no null and has no default/);
    }));

  it('of an unreleased version is called so', () => {
    const columns = [
      { name: 'sid', type: 'text' },
      { name: 'expires_by', type: 'timestamp with time zone' },
    ];
    assert.match(
      columnFlaw(columns, { sid: 'text', delete_after: 'x' }) ?? '',
      /unreleased version of express-pg-store/,
    );
  });

  it('is created by 16 processes at once, with one attempt each, in schemas that come and go', async () => {
    const uri = await directUri();
    await inFreshSchema(async (schema, sql) => {
      const options = { uri, schema, maxConnections: 1, autodelete: false, retry: { attempts: 1 } } as const;
      const stores = Array.from({ length: 16 }, () => new PgStore(options));
      try {
        for (let round = 0; round < 20; round++) {
          const ready = await Promise.allSettled(stores.map((store) => store.ready() as Promise<void>));
          const failures = ready.filter(({ status }) => status === 'rejected');
          assert.deepEqual(failures, []);
          await sql.unsafe(round % 5 ? `drop schema ${schema} cascade` : `drop table ${schema}.sessions`);
        }
      } finally {
        await Promise.all(stores.map((store) => store.close()));
        await sql.unsafe(`create schema if not exists ${schema}`);
      }
    });
  });

  it('created by another process meanwhile makes no notice, which Postgres.js would print', () =>
    inFreshSchema(async (schema, owner) => {
      const notices: unknown[] = [];
      const sql = postgres(await directUri(), {
        max: 1,
        onnotice: (notice) => void notices.push(notice.message),
        connection: { application_name: schema },
      });
      const store = new PgStore({ sql, schema, autodelete: false, retry: { attempts: 1 } });
      let ready: Promise<unknown> | undefined;
      await owner.begin(async (other) => {
        await other.unsafe(CREATION_LOCK_SQL + createTableSql({ schema, table: 'sessions' })).simple();
        ready = store.ready();
        const waiting = () =>
          owner`select from pg_stat_activity where application_name = ${schema} and wait_event_type = 'Lock'`;
        while ((await waiting()).length === 0);
      });
      await ready;
      assert.deepEqual(notices, []);
      const [{ level }] = (await sql`select current_setting('client_min_messages') as level`) as any;
      assert.equal(level, 'notice', 'the setting of the app is as before');
      await store.close();
      await sql.end();
    }));

  it('created by another role meanwhile is used', () =>
    inFreshSchema(async (schema, sql) => {
      const role = `${schema}_role`;
      const password = randomBytes(8).toString('hex');
      await sql.unsafe(
        `create role ${role} login password '${password}'; grant usage, create on schema ${schema} to ${role}`,
      );
      const uri = new URL(await directUri());
      uri.username = role;
      uri.password = password;
      const store = await openStore({ uri: uri.href, schema, table: 'sessions', retry: { attempts: 1 } });
      let ready: Promise<void> | undefined;
      await sql.begin(async (owner) => {
        // The store has seen that there is no table, and waits.
        await owner.unsafe(createTableSql({ schema, table: 'sessions' })).simple();
        await owner.unsafe(`grant all on ${schema}.sessions to ${role}`);
        ready = store.ready() as Promise<void>;
        while (
          (await sql`select from pg_stat_activity where usename = ${role} and wait_event_type = 'Lock'`).length === 0
        );
      });
      await ready;
      await store.set('a', plain());
      await store.close();
      await sql.unsafe(`drop owned by ${role}; drop role ${role}`);
    }));
});
