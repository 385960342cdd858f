/**
 * Whoever may create functions and operators in `public` (everybody, up to PostgreSQL 14) could put there what fits a
 * call better than PostgreSQL's own, and have it run as whoever calls it (CVE-2018-1058). Neither the store, nor its
 * command line, nor the SQL of the documentation calls any of these.
 */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import session from 'express-session';
import pg from 'pg';
import postgres, { type Sql } from 'postgres';
import { main } from '../../lib/cli/main.js';
import { PgStore, type PgStoreOptions } from '../../lib/index.js';
import { directUri, sqlClient } from '../support/postgres.js';
import { loaded, plain } from '../support/sessions.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

const filesIn = (folder: string, end: string) =>
  fs
    .readdirSync(path.join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith(end) && !file.includes('node_modules'))
    .map((file) => path.join(folder, file));
const read = (file: string) => fs.readFileSync(path.join(ROOT, file), 'utf8');
const PAGES = [...filesIn('docs', '.md'), 'README.md', 'SECURITY.md', 'CONTRIBUTING.md', 'CHANGELOG.md'];

/** Types that PostgreSQL converts into each other by itself, and that an untyped literal may become. */
const TYPES =
  `text varchar bpchar name "char" regclass oid int2 int4 int8 numeric float4 float8 bool timestamptz timestamp date
  interval json jsonb bytea text[] varchar[] int4[]`.split(/\s+/);

const POLYMORPHIC = ['anyelement', 'anyarray', 'anycompatible', 'variadic text[]', 'variadic anyarray'];

const OPERATORS = `= <> < > <= >= + - * / % ^ || -> ->> ~~ !~~ ~ @>`.split(/\s+/);

/** All of PostgreSQL's functions that code and documentation may call, by their names in front of a parenthesis. */
async function functionNames(sql: Sql): Promise<string[]> {
  const sources = [...filesIn('lib', '.ts'), ...PAGES, 'docs/schema.sql'].map(read).join('\n');
  const called = new Set([...sources.matchAll(/\b([a-z_][a-z0-9_]*)\s*\(/g)].map(([, name]) => name as string));
  const rows =
    await sql`select distinct proname from pg_catalog.pg_proc where pronamespace = 'pg_catalog'::regnamespace`;
  const ofSyntax = ['create_distributed_table', 'like', 'timezone', 'date_part', 'jsonb_extract_path_text', 'overlay'];
  return [
    ...new Set([...rows.map(({ proname }) => proname as string).filter((name) => called.has(name)), ...ofSyntax]),
  ];
}

/**
 * Each name as a function of no, one and two arguments of all types, of three of the types that PostgreSQL's own has
 * and of those near them, with defaults and polymorphic; each operator for each two types. Whatever calls one fails: at
 * the latest when it runs, mostly before, since nothing takes their type.
 */
async function plantTraps(sql: Sql): Promise<number> {
  const names = await functionNames(sql);
  assert(names.length > 25, names.join());
  await sql.unsafe(`create type public.trap as enum ('trap')`);
  await sql`create temporary table names as select unnest(${names}::text[]) as name`;
  await sql`create temporary table types as select unnest(${TYPES}::text[]) as type`;
  await sql`create temporary table operators as select unnest(${OPERATORS}::text[]) as name`;
  await sql`create temporary table others as select unnest(${POLYMORPHIC}::text[]) as arguments`;
  await sql.unsafe(`do $do$
    declare
      one record;
      body constant text := ' returns public.trap language plpgsql as $$ begin raise ''trap''; end $$';
    begin
      for one in
        select n.name, a.arguments from names n cross join (
          select '' as arguments
          union select type from types
          union select format('%s, %s', l.type, r.type) from types l cross join types r
          union select arguments from others
          union select 'a text[] default null, b date[] default null'
        ) a
        union
        select p.proname, concat_ws(', ', coalesce(a.type, format_type(p.proargtypes[0], null)),
          coalesce(b.type, format_type(p.proargtypes[1], null)), coalesce(c.type, format_type(p.proargtypes[2], null)))
        from pg_proc p join names n on n.name = p.proname
          cross join (values ('text'), ('varchar'), ('name'), ('regclass'), ('int4'), ('numeric'), (null)) a (type)
          cross join (values ('text'), ('varchar'), ('name'), ('int4'), ('int8'), (null)) b (type)
          cross join (values ('text'), ('varchar'), ('name'), ('int4'), ('bool'), (null)) c (type)
        where p.pronargs = 3 and p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
      loop
        begin
          execute format('create function public.%I(%s)', one.name, one.arguments) || body;
        exception when others then null;
        end;
      end loop;
      for one in
        select o.name, l.type as left_type, r.type as right_type, format('trap_%s', row_number() over ()) as function
        from operators o cross join types l cross join types r
      loop
        execute format('create function public.%I(%s, %s)', one.function, one.left_type, one.right_type) || body;
        execute format('create operator public.%s (leftarg = %s, rightarg = %s, function = public.%I)',
          one.name, one.left_type, one.right_type, one.function);
      end loop;
    end $do$`);
  const [{ count } = {}] = await sql`select count(*)::integer from pg_proc where pronamespace = 'public'::regnamespace`;
  await sql`drop table names, types, operators, others`;
  return count;
}

/** Everything that a store does, with statements of one row and of many. */
async function useAll(open: (options: PgStoreOptions) => PgStore, options: PgStoreOptions, sql: Sql): Promise<void> {
  const table = `traps_${randomBytes(4).toString('hex')}`;
  const stores: PgStore[] = [];
  const store = (more: PgStoreOptions = {}) => {
    const made = open({ autodelete: false, touchAfter: 0, table, retry: { attempts: 1 }, ...options, ...more });
    stores.push(made);
    return made;
  };
  try {
    const first = store();
    await first.ready();
    const sids = Array.from({ length: 12 }, (_, n) => `s${n}`);
    const user = (n: number) => ({ passport: { user: n % 2 ? 'ann' : 'bob' } });
    await first.set('alone', plain(user(1)));
    await Promise.all(sids.map((sid, n) => first.set(sid, plain(user(n)))));
    await Promise.all(sids.map((sid, n) => first.set(sid, plain({ ...user(n), again: true }))));
    const mine = await Promise.all(sids.map((sid) => loaded(first, sid)));
    await Promise.all(mine.map((one, n) => first.set(sids[n] as string, Object.assign(one, { n }))));
    const [one, other] = [await loaded(first, 'alone'), await loaded(first, 'alone')];
    await first.set('alone', Object.assign(one, { one: 1 }));
    await first.set('alone', Object.assign(other, { other: 2 }));
    await first.touch('alone', other);
    await Promise.all(sids.map((sid) => first.touch(sid, plain({}, 120_000))));
    assert.deepEqual(await Promise.all(sids.map(async (sid) => ((await first.get(sid)) as any)?.n)), [...sids.keys()]);
    assert.equal((await first.all()).length, 13);
    assert.equal(await first.length(), 13);
    if (!options.hashIds) assert.equal((await first.ids()).length, 13);
    await first.update('alone', (found) => Object.assign(found, { updated: 1 }));
    assert.equal(await first.updateSessionsOf('ann', (found) => Object.assign(found, { role: 'owner' })), 7);
    const watching = store({ watchInterval: 0.1 });
    const endings = sids.slice(-2).map((sid) => new Promise((resolve) => watching.watch(sid, resolve)));
    await first.destroy(sids.at(-1) as string);
    await first.destroy(sids.at(-2) as string);
    assert.deepEqual(await Promise.all(endings), ['destroyed', 'destroyed']);
    await Promise.all(sids.slice(-2).map((sid, n) => first.set(sid, plain({ ...user(n + 10), n: n + 10 }))));
    const listed = await first.sessionsOf('ann');
    assert.equal(listed.length, 7);
    assert.equal(await first.destroyByHandle(listed[0]?.handle as string, { user: 'ann' }), true);
    assert.equal(await first.limitSessionsOf('ann', 3), 3);
    assert.equal(await first.destroySessionsOf('ann'), 3);
    await first.destroy('s0');
    await Promise.all(['s2', 's4'].map((sid) => first.destroy(sid)));
    // A row that was prolonged by hand, and one that has expired.
    await first.set('short', plain({}, 0));
    await sql.unsafe(`update public.${table} set delete_after = now() where sid like '%'`);
    assert.equal(await first.autodelete(), 1);
    const rotated = store({ secret: ['new', ...[options.secret ?? []].flat()] });
    await rotated.set('s6', plain({ n: 6 }));
    await rotated.set('s6', await loaded(rotated, 's6'));
    const previous = new session.MemoryStore();
    for (const sid of ['p1', 'p2', 'p3']) previous.set(sid, plain(user(1)) as any);
    const taking = store({ previous });
    assert(await taking.get('p1'));
    assert.equal(await taking.takeOver(), 2);
    await Promise.all(['p2', 'none'].map((sid) => taking.destroy(sid)));
    assert.equal(await taking.destroySessionsOf('ann'), 2);
    await taking.clear();
    await first.clear();
    assert.equal(await first.length(), 0);
  } finally {
    await Promise.all(stores.map((one) => one.close()));
  }
}

describe('functions and operators in `public` that fit better than PostgreSQL’s own', () => {
  const database = `traps_${randomBytes(6).toString('hex')}`;
  const role = `app_${randomBytes(6).toString('hex')}`;
  let uri: string;
  /** Sees nothing of `public` unless it is named. */
  let admin: Sql;
  /** What an administrator has who has set nothing: `public` in the search path. */
  let victim: Sql;

  before(async () => {
    const sql = await sqlClient();
    await sql.unsafe(`create database ${database}`);
    await sql.unsafe(`create role ${role}`);
    const url = new URL(await directUri());
    url.pathname = database;
    uri = url.href;
    admin = postgres(uri, { max: 1, onnotice: () => {}, connection: { search_path: 'pg_catalog' } });
    victim = postgres(uri, { max: 1, onnotice: () => {}, fetch_types: false, prepare: false });
    await admin.unsafe('create extension if not exists pgcrypto schema public');
    // As Citus has them (13: citus/src/backend/distributed/sql/udfs/create_distributed_table).
    await admin.unsafe(`
      create function pg_catalog.create_distributed_table(table_name regclass, distribution_column text,
        distribution_type text default 'hash', colocate_with text default 'default', shard_count integer default null)
        returns void language sql as '';
      set allow_system_table_mods = on; create table pg_catalog.pg_dist_partition (logicalrelid regclass);
      reset allow_system_table_mods`);
    const traps = await plantTraps(admin);
    assert(traps > 10_000, `${traps} traps`);
  });

  after(async () => {
    await Promise.all([admin.end(), victim.end()]);
    const sql = await sqlClient();
    await sql.unsafe(`drop database ${database} with (force)`);
    await sql.unsafe(`drop role ${role}`);
  });

  it('are called where types are left to PostgreSQL', async () => {
    for (const careless of [
      `select convert_to('a'::text, 'UTF8')`,
      `select 1.5::float8 * 2`,
      `select 'a'::varchar = 'a'::varchar`,
      `select pg_stat_get_dead_tuples('pg_class'::regclass)`,
      `select create_distributed_table('public.sessions', 'shard')`,
      `select unnest('{a}'::text[])`,
    ]) {
      await assert.rejects(victim.unsafe(careless), /trap|not unique/, careless);
    }
  });

  const features: Record<string, PgStoreOptions> = {
    'no options': {},
    'signed IDs, encryption and a lifetime': {
      secret: ['b', 'a'],
      encryptionKey: 'an encryption key',
      maxLifetime: 3600,
    },
    'hashed IDs and a prefix': { hashIds: true, prefix: 'p:' },
    'shards, and a lifetime': { shards: 2, maxLifetime: 3600 },
  };
  for (const [name, options] of Object.entries(features)) {
    it(`no method calls them: ${name}`, () => useAll((all) => new PgStore({ uri, ...all }), options, admin));
  }

  it('no method calls them on the app’s clients', async () => {
    const pool = new pg.Pool({ connectionString: uri, max: 3 });
    try {
      await useAll((all) => new PgStore({ pool, ...all }), { maxLifetime: 3600 }, admin);
    } finally {
      await pool.end();
    }
    await useAll((all) => new PgStore({ sql: victim, ...all }), {}, admin);
  });

  it('no command calls them, nor the SQL that `schema` prints', async () => {
    const run = async (...args: string[]) => {
      const { code, out, err } = await main(args, {});
      assert.equal(code, 0, `${args.join(' ')}: ${err}`);
      return out;
    };
    const shapes = [[], ['--partitions', '2'], ['--shards', '3'], ['--shards', '3', '--partitions', '3']];
    for (const [n, shape] of [...shapes, ['--shards', '2', '--citus']].entries()) {
      const table = `by_command_${n}`;
      await victim.unsafe(await run('schema', '--table', table, ...shape)).simple();
      const shards = shape.includes('--shards') ? Number(shape[1]) : undefined;
      const store = new PgStore({ uri, table, createTable: false, autodelete: false, ...(shards ? { shards } : {}) });
      await Promise.all(['a', 'b'].map((sid) => store.set(sid, plain({ passport: { user: sid } }))));
      await store.set('c', plain({}, 0));
      await store.close();
      for (const more of [[], ['--json'], ['--prefix', 'a']])
        await run('stats', '--uri', uri, '--table', table, ...more);
      await run('prune', '--uri', uri, '--table', table, ...shape.filter((_, at) => shape[0] === '--shards' && at < 2));
    }
    await victim.unsafe(await run('schema', '--schema', 'another')).simple();
  });

  describe('in the documentation’s SQL', () => {
    before(async () => {
      const store = new PgStore({ uri, autodelete: false });
      await store.set('app:a', plain({ passport: { user: 'ann' } }));
      await store.close();
      await admin.unsafe('create table public.visits (user_id text, count integer)');
      // As connect-pg-simple creates it.
      await admin.unsafe('create table public.session (sid varchar primary key, sess json, expire timestamp(6))');
    });

    /** Runs SQL of the documentation as somebody would who copies it, and takes it back. */
    const failureOf = (code: string) =>
      victim
        .begin(async (transaction) => {
          const named = code.replace(/\bto app\b/g, `to ${role}`).replaceAll('$1', `'x'`);
          for (const statement of named.split(/;\s*$/m)) if (statement.trim()) await transaction.unsafe(statement);
          throw new Error('taken back');
        })
        .catch((error) => (error.message === 'taken back' ? undefined : error));

    for (const page of PAGES) {
      const blocks = [...read(page).matchAll(/^ *```sql\n(.*?)^ *```$/gms)].map(([, code]) => code as string);
      for (const [n, code] of blocks.entries()) {
        it(`${page}, block ${n + 1}`, async () => assert.equal(await failureOf(code), undefined, code));
      }
    }

    it('docs/schema.sql', async () => {
      await admin.unsafe('alter table public.sessions rename to kept');
      try {
        assert.equal(await failureOf(read('docs/schema.sql')), undefined);
      } finally {
        await admin.unsafe('alter table public.kept rename to sessions');
      }
    });

    it('SQL in sentences, in the code of recipes and in examples', async () => {
      const found = [...PAGES, ...filesIn('examples', '.ts')].flatMap((page) => {
        const text = read(page);
        const sentences = text.matchAll(/`((?:select|update|delete|insert|alter|create|grant|revoke|with)\s[^`]+)`/g);
        const code = [...text.matchAll(/\bsql`([^`]+)`/g)].map(([all, sql = '']) => [
          all,
          sql.replaceAll(/\$\{sql\((\w+)\)\}/g, 'sessions').replaceAll(/\$\{[^}]*\}/g, `'x'`),
        ]);
        const queries = text.matchAll(/\bquery\('([^']+)'/g);
        return [...sentences, ...code, ...queries].map(([, sql]) => ({ page, sql: sql as string }));
      });
      assert(found.length > 3, String(found.length));
      for (const { page, sql } of found) {
        const failure = await failureOf(sql);
        // Excerpts may name what is not there; only what fits better counts.
        assert(!failure || !/trap|is not unique/.test(failure.message), `${page}: ${sql}: ${failure}`);
      }
    });
  });
});
