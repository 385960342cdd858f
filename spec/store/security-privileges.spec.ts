/** The store works with the fewest privileges in the database. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import postgres, { type Sql } from 'postgres';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { createTableSql } from '../../lib/sql/schema.js';
import { documented } from '../support/docs.js';
import { closeStores, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { load, plain } from '../support/sessions.js';

/** Everything a store does, once; with batches of many rows too. */
async function useAll(store: PgStore, { hasIds = true } = {}): Promise<void> {
  await store.ready();
  const user = (n: number) => ({ passport: { user: n % 2 ? 'ann' : 'bob' } });
  const sids = Array.from({ length: 20 }, (_, n) => `s${n}`);
  await Promise.all(sids.map((sid, n) => store.set(sid, plain(user(n)))));
  await Promise.all(sids.map((sid, n) => store.set(sid, plain({ ...user(n), again: true }))));
  const [one, two] = [await load(store, 's1'), await load(store, 's1')];
  assert(one && two);
  one.one = 1;
  two.two = 2;
  await Promise.all([store.set('s1', one), store.set('s1', two)]);
  const { cookie: _, ...merged } = (await store.get('s1')) as any;
  assert.deepEqual(merged, { ...user(1), again: true, one: 1, two: 2 });
  const mine = await Promise.all(sids.map((sid) => load(store, sid)));
  await Promise.all(mine.map((session, n) => session && store.set(sids[n] as string, Object.assign(session, { n }))));
  await Promise.all(sids.map((sid) => store.touch(sid, plain({}, 120_000))));
  assert.deepEqual(
    (await Promise.all(sids.map((sid) => store.get(sid)))).map((found: any) => found?.n),
    [...sids.keys()],
  );
  assert.equal((await store.all()).length, 20);
  if (hasIds) assert.deepEqual(await store.ids(), [...sids].sort());
  assert.equal(await store.length(), 20);
  const listed = await store.sessionsOf('ann');
  assert.equal(listed.length, 10);
  assert.equal(await store.destroyByHandle(listed[0]?.handle as string, { user: 'ann' }), true);
  assert.equal(await store.destroySessionsOf('ann', { except: 's19' }), 9 - (await kept(store, 's19')));
  await Promise.all(['s0', 's2', 's4', 's4'].map((sid) => store.destroy(sid)));
  assert.equal(await store.get('s0'), null);
  await store.set('short', plain({}, 0));
  assert.equal(await store.autodelete(), 1);
  await store.clear();
  assert.equal(await store.length(), 0);
}

/** 1 where the session is there. */
async function kept(store: PgStore, sid: string): Promise<number> {
  return (await store.get(sid)) ? 1 : 0;
}

describe('rights in the database', () => {
  let sql: Sql;
  let table: string;
  let role: string;
  let uri: string;
  let schema: string;

  /** The statements of docs/security.md, for this role and table. */
  const asDocumented = (text: string) =>
    sql.unsafe(
      documented('docs/security.md', 'sql', text)
        .replaceAll('public.sessions', `"${schema}".${table}`)
        .replaceAll('schema public', `schema "${schema}"`)
        .replaceAll(/\bapp\b/g, role),
    );
  const makeTable = async (options: PgStoreOptions = {}) => {
    const owner = await openStore({ table, schema, ...options });
    await owner.ready();
    return owner;
  };
  const openAsRole = (options: PgStoreOptions = {}) => openStore({ uri, table, schema, ...options });

  beforeEach(async () => {
    sql = await sqlClient();
    table = freshTable();
    schema = 'public';
    role = `app_${randomBytes(6).toString('hex')}`;
    const password = randomBytes(12).toString('hex');
    await sql.unsafe(`create role ${role} login password '${password}'`);
    const url = new URL(await postgresUri());
    url.username = role;
    url.password = password;
    uri = url.href;
  });
  afterEach(async () => {
    await closeStores();
    await sql.unsafe(`drop owned by ${role} cascade`);
    await sql.unsafe(`drop role ${role}`);
    if (schema !== 'public') await sql`drop schema if exists ${sql(schema)} cascade`;
  });

  const features: Record<string, PgStoreOptions> = {
    'no options': {},
    'signed IDs, encryption and a lifetime': {
      secret: ['new', 'old'],
      encryptionKey: 'an encryption key',
      maxLifetime: 3600,
      prefix: 'p:',
    },
    'hashed IDs': { hashIds: true },
  };
  for (const [name, options] of Object.entries(features)) {
    it(`select, insert, update and delete on one table are enough: ${name}`, async () => {
      await makeTable();
      await asDocumented('grant select');
      await useAll(await openAsRole(options), { hasIds: !options.hashIds });
      await assert.rejects(
        openAsRole({ schema: `not_${role}` }).then((store) => store.ready()),
        { code: '42501' },
      );
    });
  }

  it('without one of the rights, a call that needs it fails at once and says why', async () => {
    await makeTable();
    await asDocumented('grant select');
    await sql.unsafe(`revoke delete on ${table} from ${role}`);
    const store = await openAsRole({ retry: { attempts: 100, delay: 1000 } });
    await store.set('a', plain());
    await assert.rejects(store.destroy('a'), {
      code: '42501',
      message: /^PgStore\.destroy: permission denied for table/,
    });
    assert(await store.get('a'));
  });

  it('works in a schema that is in no search path', async () => {
    schema = `Sessions "${role}"`;
    await makeTable();
    const quoted = schema.replaceAll('"', '""');
    await sql.unsafe(`grant usage on schema "${quoted}" to ${role}`);
    await sql.unsafe(`grant select, insert, update, delete on "${quoted}".${table} to ${role}`);
    await sql.unsafe(`alter role ${role} set search_path = ''`);
    await useAll(await openAsRole());
  });

  it('works under row level security, which hides what the policy does not grant', async () => {
    const owner = await makeTable();
    await owner.set('admin:a', plain({ passport: { user: 'ann' } }));
    await asDocumented('grant select');
    await asDocumented('create policy');
    await useAll(await openAsRole({ prefix: 'shop:' }));
    const all = await openAsRole();
    assert.equal(await all.get('admin:a'), null);
    assert.deepEqual([await all.all(), await all.length(), await all.sessionsOf('ann')], [[], 0, []]);
    assert.equal(await all.destroySessionsOf('ann'), 0);
    await all.clear();
    assert(await owner.get('admin:a'));
    // A refused row fails alone, not the batch in which it travels.
    const writes = await Promise.allSettled(
      ['shop:x', 'other:y', 'shop:z', 'shop:w'].map((sid) => all.set(sid, plain())),
    );
    assert.deepEqual(
      writes.map((write) => (write.status === 'rejected' ? write.reason.code : write.status)),
      ['fulfilled', '42501', 'fulfilled', 'fulfilled'],
    );
  });

  it('row level security binds a role that owns the table, too, because it is forced', async () => {
    schema = `own_${role}`;
    await sql.unsafe(`create schema ${schema} authorization ${role}`);
    const owner = await openAsRole();
    await owner.set('admin:a', plain());
    const [enable, force, policy] = documented('docs/security.md', 'sql', 'force row level security').split(/;\s*/);
    const run = (statement?: string) => {
      assert(statement);
      return sql.unsafe(statement.replaceAll('public.sessions', `${schema}.${table}`).replace('to app', `to ${role}`));
    };
    await run(enable);
    await run(policy);
    assert(await owner.get('admin:a'), 'without `force` the policy does not concern the owner');
    await run(force);
    assert.equal(await owner.get('admin:a'), null);
    await assert.rejects(owner.set('admin:b', plain()), { code: '42501' });
    await useAll(await openAsRole({ prefix: 'shop:' }));
  });

  it('a role that creates the table first has its trigger run as the app; the documented `revoke` prevents it', async () => {
    schema = `shared_${role}`;
    const mallory = `mallory_${role}`;
    // As `public` is up to PostgreSQL 14, and in databases that come from there.
    await sql.unsafe(`create schema ${schema}; grant usage, create on schema ${schema} to public`);
    await sql.unsafe(`create role ${mallory}`);
    const plant = () =>
      sql.begin(async (planting) => {
        await planting.unsafe(`set local role ${mallory}`);
        await planting.unsafe(createTableSql({ schema, table })).simple();
        await planting.unsafe(`create table ${schema}.seen (who text); grant insert on ${schema}.seen to ${role};
          grant select, insert, update, delete on ${schema}.${table} to ${role};
          create function ${schema}.spy() returns trigger language plpgsql as
            $$ begin insert into ${schema}.seen values (current_user); return new; end $$;
          create trigger spy before insert on ${schema}.${table} for each row execute function ${schema}.spy()`);
      });
    try {
      await plant();
      await (await openAsRole()).set('a', plain());
      assert.deepEqual([...(await sql.unsafe(`select who from ${schema}.seen`))], [{ who: role }]);
      await sql.unsafe(`drop table ${schema}.${table}, ${schema}.seen; drop function ${schema}.spy()`);
      await asDocumented('revoke create on schema');
      await assert.rejects(plant(), { code: '42501' });
      await sql.unsafe(`grant create on schema ${schema} to ${role}`);
      table = freshTable();
      await useAll(await openAsRole());
    } finally {
      await closeStores();
      await sql.unsafe(`drop schema ${schema} cascade`);
      await sql.unsafe(`drop owned by ${mallory}; drop role ${mallory}`);
    }
  });

  it('calls nothing that others planted in the search path', async () => {
    await makeTable();
    await asDocumented('grant select');
    const evil = `evil_${role}`;
    const trap = (signature: string, returns: string) => `create function ${evil}.${signature} returns ${returns}
      language plpgsql as $$ begin raise exception 'the trap closed'; end $$;`;
    await sql.unsafe(`create schema ${evil}; grant usage on schema ${evil} to ${role};
      ${trap('unnest(text[])', 'setof text')} ${trap('unnest(float8[])', 'setof float8')}
      ${trap('now()', 'timestamptz')} ${trap('floor(float8)', 'float8')} ${trap('random()', 'float8')}
      ${trap('json_array_elements(json)', 'setof json')} ${trap('string_to_array(text, text, text)', 'text[]')}
      ${trap('times(float8, integer)', 'float8')} ${trap('times(numeric, integer)', 'numeric')}
      ${trap('times(text, text)', 'boolean')} ${trap('times(text, "char")', 'boolean')}
      create operator ${evil}.* (leftarg = float8, rightarg = integer, function = ${evil}.times);
      create operator ${evil}.* (leftarg = numeric, rightarg = integer, function = ${evil}.times);
      create operator ${evil}.= (leftarg = text, rightarg = text, function = ${evil}.times);
      create operator ${evil}.>= (leftarg = text, rightarg = text, function = ${evil}.times);
      alter role ${role} set search_path = ${evil}`);
    try {
      const victim = postgres(uri, { max: 1 });
      await assert.rejects(victim`select * from unnest('{a}'::text[])`, /the trap closed/);
      await assert.rejects(victim`select 1.5::float8 * 2`, /the trap closed/);
      await victim.end();
      await useAll(await openAsRole({ maxLifetime: 3600 }));
    } finally {
      await sql.unsafe(`drop schema ${evil} cascade`);
    }
  });
});
