/** `npx express-pg-store` does what its help says. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import connectPgSimple from 'connect-pg-simple';
import express, { type Express } from 'express';
import session, { type Store } from 'express-session';
import pg from 'pg';
import { COMMANDS } from '../../lib/cli/commands.js';
import { main, type Outcome } from '../../lib/cli/main.js';
import { handleOf } from '../../lib/session/session-id.js';
import { closeStores, freshTable, openStore, postgresUri, SHARDS, sqlClient } from '../support/postgres.js';
import { generated, load, maxAgeOf, plain } from '../support/sessions.js';

/** Runs the command line in this process. */
async function run(args: string[], { env = {} }: { env?: object } = {}): Promise<Outcome> {
  const shards = SHARDS && /^(import|prune)$/.test(args[0] ?? '') ? ['--shards', String(SHARDS)] : [];
  return main([...args, ...shards], { DATABASE_URL: await postgresUri(), ...env });
}

async function json(args: string[], options: { env?: object } = {}): Promise<any> {
  const { code, out, err } = await run([...args, '--json'], options);
  assert.equal(code, 0, err);
  assert.equal(err, '');
  return JSON.parse(out);
}

describe('npx express-pg-store', () => {
  const tables: string[] = [];
  const pools: pg.Pool[] = [];
  const table = () => {
    const name = freshTable();
    tables.push(name);
    return name;
  };

  afterEach(async () => {
    await closeStores();
    await Promise.all(pools.splice(0).map((pool) => pool.end()));
    const sql = await sqlClient();
    for (const name of tables.splice(0)) await sql`drop table if exists ${sql(name)} cascade`;
  });

  describe('as a process', () => {
    function spawned(...args: string[]): Promise<Outcome> {
      const cli = path.resolve(import.meta.dirname, '../../lib/cli/bin.ts');
      const child = spawn(process.execPath, ['--import', 'tsx', cli, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
      const outcome = { code: 0, out: '', err: '' };
      child.stdout.setEncoding('utf8').on('data', (text) => {
        outcome.out += text;
      });
      child.stderr.setEncoding('utf8').on('data', (text) => {
        outcome.err += text;
      });
      return new Promise((resolve) => child.once('close', (code) => resolve({ ...outcome, code } as Outcome)));
    }

    it('answers on stdout with 0, complains on stderr with 2 or 1, and never with a stack', async () => {
      const [help, wrong, down] = await Promise.all([
        spawned('--help'),
        spawned('stats', '--tabel', 'x'),
        spawned('stats', '--uri', 'postgres://ada:engine@127.0.0.1:1/db'),
      ]);
      assert.equal(help.code, 0);
      assert.match(help.out, /^Usage: express-pg-store COMMAND/);
      assert.equal(help.err, '');
      assert.equal(wrong.code, 2);
      assert.match(wrong.err, /--tabel.*Try 'express-pg-store help stats'\.\n$/s);
      assert.equal(down.code, 1);
      assert.match(down.err, /^express-pg-store: .*ECONNREFUSED/);
      for (const { out, err } of [wrong, down]) {
        assert.equal(out, '');
        assert.doesNotMatch(err, /\n {4}at |engine/);
      }
    });
  });

  describe('with a usage error', () => {
    for (const [args, complaint] of [
      [['improt'], /unknown command 'improt'/],
      [['prune', 'now'], /now/],
      [['prune', '--table'], /--table/],
      [['prune', '--table', 'x'.repeat(64)], /option `table`: expected an identifier/],
      [['schema', '--partitions', 'many'], /--partitions: expected a whole number/],
      [['schema', '--partitions', '-1'], /--partitions/],
      [['schema', '--json'], /--json/],
      [['help', 'improt'], /unknown command 'improt'/],
      [['stats', '--uri', 'notaurl'], /option `uri`: expected a connection string/],
      [['prune', '--uri', 'postgres://ada:100%@host/db'], /option `uri`: expected a connection string/],
      [['import', '--since', 'yesterday'], /--since: expected a time, got 'yesterday'/],
      [['import', '--encryption-key', 'short'], /option `encryptionKey`: expected a string of at least 16 characters/],
    ] as [string[], RegExp][]) {
      it(`'${args.join(' ').slice(0, 40)}' exits 2 and says what is wrong`, async () => {
        const { code, out, err } = await run(args);
        assert.equal(code, 2);
        assert.equal(out, '');
        assert.match(err, /^express-pg-store: /);
        assert.match(err, complaint);
        assert.match(err, /\nTry 'express-pg-store help( \w+)?'\.\n$/);
        assert.doesNotMatch(err, /short\b.*short|100%/);
      });
    }

    it('names the option and shows no password where DATABASE_URL is no connection string', async () => {
      const { code, err } = await run(['stats'], { env: { DATABASE_URL: 'postgres://ada:100%@host/db' } });
      assert.equal(code, 2);
      assert.match(err, /option `uri`: expected a connection string/);
      assert.doesNotMatch(err, /100%/);
    });
  });

  describe('with a failure', () => {
    it('exits 1 where the table does not exist, and says how to create it', async () => {
      for (const command of ['stats', 'prune']) {
        const { code, out, err } = await run([command, '--table', 'not_there']);
        assert.equal(code, 1, command);
        assert.equal(out, '');
        assert.doesNotMatch(err, /createTable/);
        assert.match(err, /not_there.*\n'express-pg-store schema' prints the SQL that creates the store's table\.\n$/s);
      }
    });

    it('exits 1 where the table to import from does not exist, and names its options', async () => {
      for (const flags of [[], ['--dry-run']]) {
        const { code, out, err } = await run(['import', '--from', 'not_there', '--table', table(), ...flags]);
        assert.equal(code, 1);
        assert.equal(out, '');
        assert.match(err, /not_there.*\n--from and --from-schema name connect-pg-simple's table\.\n$/s);
      }
    });

    it('says that no address was given where none was', async () => {
      const uri = 'postgres://127.0.0.1:1/db';
      const explicit = await run(['stats'], { env: { DATABASE_URL: uri } });
      assert.equal(explicit.code, 1);
      assert.doesNotMatch(explicit.err, /is set/);
      const variable = await run(['stats', '--uri', uri], { env: { DATABASE_URL: undefined, PGHOST: 'localhost' } });
      assert.doesNotMatch(variable.err, /is set/);
      const { PGHOST, PGPORT } = process.env;
      process.env.PGHOST = '127.0.0.1';
      process.env.PGPORT = '1';
      try {
        const { code, err } = await run(['stats'], { env: { DATABASE_URL: undefined, PG_STORE_SECRET: 'a secret' } });
        assert.equal(code, 1);
        assert.match(err, /ECONNREFUSED.*\nNeither --uri nor DATABASE_URL nor a PG\* variable is set\.\n$/s);
      } finally {
        delete process.env.PGHOST;
        delete process.env.PGPORT;
        Object.assign(process.env, PGHOST && { PGHOST }, PGPORT && { PGPORT });
      }
    });
  });

  it('prints its version', async () => {
    const { version } = JSON.parse(fs.readFileSync(path.resolve(import.meta.dirname, '../../package.json'), 'utf8'));
    assert.deepEqual(await run(['--version']), { code: 0, out: `${version}\n`, err: '' });
  });

  it('prints its commands with `help`, --help, -h or nothing', async () => {
    const overviews = await Promise.all([[], ['help'], ['--help'], ['-h']].map((args) => run(args)));
    for (const overview of overviews) assert.deepEqual(overview, overviews[0]);
    assert.equal(overviews[0]?.code, 0);
    for (const command of Object.keys(COMMANDS)) assert.match(overviews[0]?.out, new RegExp(`^  ${command} `, 'm'));
  });

  for (const [command, { flags }] of Object.entries(COMMANDS)) {
    it(`describes ${command} and each of its options with \`help ${command}\` or --help`, async () => {
      const help = await run(['help', command]);
      assert.deepEqual(help, await run([command, '--help']));
      assert.deepEqual(help, await run([command, '-h']));
      assert.equal(help.code, 0);
      assert.match(help.out, new RegExp(`^Usage: express-pg-store ${command} `));
      for (const flag of Object.keys(flags)) assert.match(help.out, new RegExp(`^  --${flag} .*\\w`, 'm'));
      for (const line of help.out.split('\n')) assert(line.length <= 100, line);
    });
  }

  describe('schema', () => {
    for (const partitions of [0, 4]) {
      it(`prints SQL that creates a table which the store uses, of ${partitions} partitions`, async () => {
        const name = table();
        const flags = partitions ? ['--partitions', String(partitions)] : [];
        const { out } = await run(['schema', '--table', name, ...flags]);
        const sql = await sqlClient();
        await sql.unsafe(out);
        await sql.unsafe(out);
        const store = await openStore({ table: name, createTable: false });
        await store.set('sid', plain({ a: 1 }));
        assert.equal(await store.length(), 1);
        const [{ parts }] =
          await sql`select count(*)::integer as parts from pg_inherits where inhparent = ${name}::regclass`;
        assert.equal(parts, partitions);
      });
    }

    it('creates the schema too, whatever the names', async () => {
      const { out } = await run(['schema', '--schema', 'my "apps"', '--table', 'select']);
      const sql = await sqlClient();
      try {
        await sql.unsafe(out);
        const [{ found }] = await sql`select to_regclass('"my ""apps"""."select"') is not null as found`;
        assert.equal(found, true);
      } finally {
        await sql.unsafe('drop schema if exists "my ""apps""" cascade');
      }
    });
  });

  it('prune deletes expired rows and says how many', async () => {
    const name = table();
    const store = await openStore({ table: name });
    await store.set('expired', plain({}, -1000));
    await store.set('unexpired', plain());
    assert.deepEqual(await json(['prune', '--table', name]), { deleted: 1 });
    assert.equal((await run(['prune', '--table', name])).out, 'deleted      0\n');
    assert.deepEqual(await store.ids(), ['unexpired']);
  });

  it('takes the connection strings that the store takes', async () => {
    const name = table();
    await (await openStore({ table: name })).ready();
    const uri = new URL(await postgresUri());
    uri.searchParams.set('schema', 'public');
    uri.searchParams.set('connection_limit', '5');
    for (const command of ['stats', 'prune']) await json([command, '--table', name, '--uri', uri.href]);
  });

  it('stats counts', async () => {
    const name = table();
    const store = await openStore({ table: name, prefix: 'p:' });
    const others = await openStore({ table: name, prefix: 'q:' });
    for (const n of [1, 2, 3]) await store.set(`a${n}`, plain({ passport: { user: 'ada' } }));
    await store.set('g', plain({ passport: { user: 'grace' } }));
    await store.set('n', plain());
    await store.set('x', plain({ passport: { user: 'ada' } }, -1000));
    await others.set('o', plain());
    const sql = await sqlClient();
    await sql`update ${sql(name)} set created_at = '2026-01-02T03:04:05Z' where sid = 'p:g'`;

    const found = await json(['stats', '--table', name, '--prefix', 'p:']);
    assert(found.bytes > 8192, JSON.stringify(found));
    assert(Number.isInteger(found.deadTuples), JSON.stringify(found));
    assert.deepEqual(
      { ...found, bytes: 0, deadTuples: 0 },
      {
        unexpired: 5,
        expired: 1,
        users: 2,
        oldest: '2026-01-02T03:04:05Z',
        top: [
          { user: 'ada', sessions: 3 },
          { user: 'grace', sessions: 1 },
        ],
        bytes: 0,
        deadTuples: 0,
      },
    );
    assert.equal((await json(['stats', '--table', name])).unexpired, 6);
    const { out } = await run(['stats', '--table', name]);
    assert.match(out, /^unexpired {4}6\nexpired {6}1\nusers {8}2\n/);
    assert.match(out, /\ndead tuples {2}\d+\ntop {10}\{"user":"ada","sessions":3\}\n/);
  });

  describe('import', () => {
    /** A connect-pg-simple store with a table of its own. */
    async function oldStore(name = table()): Promise<{ store: Store; name: string }> {
      const pool = new pg.Pool({ connectionString: await postgresUri(), max: 5 });
      pools.push(pool);
      const OldStore = connectPgSimple(session);
      return {
        store: new OldStore({ pool, tableName: name, createTableIfMissing: true, pruneSessionInterval: false }),
        name,
      };
    }

    const put = (store: Store, sid: string, data: object, maxAge: number | null = 60_000) =>
      new Promise<void>((resolve, reject) =>
        store.set(sid, generated(store, sid, data, maxAge), (error) => (error ? reject(error) : resolve())),
      );

    it('reports what it would do, does it, and has nothing left to do', async () => {
      const { store: old, name: from } = await oldStore();
      const to = table();
      for (let n = 0; n < 1203; n++) await put(old, `s${n}`, { n, passport: { user: `u${n % 7}` } });
      await put(old, 'no maxAge', { n: 'none' }, null);
      await put(old, 'expired', {}, -5000);
      const args = ['import', '--from', from, '--table', to];
      const { startedAt: _, skipped, ...plan } = await json([...args, '--dry-run']);
      assert.deepEqual(plan, { dryRun: true, unexpired: 1204, added: 1204, refreshed: 0, kept: 0, unreadable: 0 });
      assert.deepEqual(skipped, []);
      const sql = await sqlClient();
      const [{ missing }] = await sql`select to_regclass(${to}) is null as missing`;
      assert.equal(missing, true, 'a dry run creates no table');

      const done = await run(args);
      assert.equal(done.code, 0, done.err);
      assert.match(
        done.out,
        /^dry run {6}false\nunexpired {4}1204\nadded {8}1204\nrefreshed {4}0\nkept {9}0\nunreadable {3}0\n/,
      );
      assert.match(done.out, /\nstarted at {3}\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n$/);
      const { startedAt: __, skipped: ___, ...again } = await json(args);
      assert.deepEqual(again, { dryRun: false, unexpired: 1204, added: 0, refreshed: 0, kept: 1204, unreadable: 0 });

      const store = await openStore({ table: to });
      assert.equal(await store.length(), 1204);
      const loaded = await load(store, 's700');
      assert.equal(loaded?.n, 700);
      assert(maxAgeOf(loaded.cookie) === 60_000 && (loaded.cookie.maxAge ?? 0) <= 61_000);
      assert.equal((await load(store, 'no maxAge'))?.cookie.maxAge ?? null, null);
      assert.equal((await store.sessionsOf('u3')).length, 172);
    });

    it('repeated, brings what the old app changed, but nothing over what the new one changed', async () => {
      const { store: old, name: from } = await oldStore();
      const to = table();
      const args = ['import', '--from', from, '--table', to];
      for (const sid of ['changed here', 'touched here', 'changed there', 'changed by both', 'same']) {
        await put(old, sid, { by: 'old' });
      }
      await json(args);
      const store = await openStore({ table: to, touchAfter: 0 });
      const reader = await load(store, 'changed there');
      for (const sid of ['changed here', 'changed by both', 'touched here']) {
        const loaded = await load(store, sid);
        assert(loaded);
        if (sid !== 'touched here') loaded.by = 'new';
        await (sid === 'touched here' ? store.touch(sid, loaded) : store.set(sid, loaded));
      }
      for (const sid of ['changed there', 'changed by both', 'touched here']) await put(old, sid, { by: 'old again' });
      const { added, refreshed, kept } = await json(args);
      assert.deepEqual({ added, refreshed, kept }, { added: 0, refreshed: 1, kept: 4 });
      const by = async (sid: string) => (await load(store, sid))?.by;
      assert.equal(await by('changed here'), 'new');
      assert.equal(await by('changed by both'), 'new');
      assert.equal(await by('touched here'), 'old');
      assert.equal(await by('changed there'), 'old again');

      // A request of the new app that had loaded it before the import loses nothing of either.
      assert(reader);
      reader.mine = true;
      await store.set('changed there', reader);
      const merged = await load(store, 'changed there');
      assert.equal(merged?.by, 'old again');
      assert.equal(merged?.mine, true);
    });

    it('with --since takes only what the old app wrote since: who signed out in the new one stays out', async () => {
      const { store: old, name: from } = await oldStore();
      const to = table();
      const args = ['import', '--from', from, '--table', to];
      await put(old, 'signs out', {});
      await put(old, 'no maxAge, signs out', {}, null);
      const sql = await sqlClient();
      await sql`update ${sql(from)} set expire = expire - interval '10 seconds'`;
      const { startedAt } = await json(args);
      const store = await openStore({ table: to });
      for (const sid of await store.ids()) await store.destroy(sid);
      await put(old, 'late', {});
      await put(old, 'late, no maxAge', {}, null);
      const { unexpired, added } = await json([...args, '--since', startedAt]);
      assert.deepEqual({ unexpired, added }, { unexpired: 2, added: 2 });
      assert.deepEqual((await store.ids()).sort(), ['late', 'late, no maxAge']);
    });

    it('honours the options of the new store', async () => {
      const { store: old, name: from } = await oldStore();
      await put(old, 'sid', { n: 1 });
      const [secret, encryptionKey] = ['a secret of the spec', 'k'.repeat(32)];
      for (const options of [
        { prefix: 'app:' },
        { secret: [secret, 'older'] },
        { hashIds: true },
        { encryptionKey },
        { prefix: 'app:', secret, hashIds: true, encryptionKey },
      ] as any[]) {
        const to = table();
        const flags = [
          ...(options.prefix ? ['--prefix', options.prefix] : []),
          ...(options.hashIds ? ['--hash-ids'] : []),
          ...[options.secret ?? []].flat().flatMap((text) => ['--secret', text]),
        ];
        const env = options.encryptionKey ? { PG_STORE_ENCRYPTION_KEY: encryptionKey } : {};
        await json(['import', '--from', from, '--table', to, ...flags], { env });
        const store = await openStore({ table: to, ...options });
        assert.equal(((await store.get('sid')) as any)?.n, 1, JSON.stringify(flags));
      }
    });

    it('takes the user from where --user says', async () => {
      const { store: old, name: from } = await oldStore();
      await put(old, 'ada', { account: { id: 7 } });
      await put(old, 'nobody', { n: 1 });
      const to = table();
      const { added } = await json(['import', '--from', from, '--table', to, '--user', 'account.id']);
      assert.equal(added, 2);
      const store = await openStore({ table: to });
      assert.deepEqual(
        (await store.sessionsOf(7)).map(({ session }: any) => session.account),
        [{ id: 7 }],
      );
    });

    it('skips what is no session, and takes any text', async () => {
      const { store: old, name: from } = await oldStore();
      await put(old, `quotes " ' \\ {,} ünï`, { text: '\u0000 \ud800 " \\ {NULL}' });
      const sql = await sqlClient();
      await sql.unsafe(`insert into "${from}" values ('list', '[1]', now() + interval '1 h'), ('null', 'null', now() + interval '1 h'),
        ('no cookie', '{"a":1}', now() + interval '1 h')`);
      const to = table();
      const { unexpired, added, unreadable } = await json(['import', '--from', from, '--table', to]);
      assert.deepEqual({ unexpired, added, unreadable }, { unexpired: 4, added: 1, unreadable: 3 });
      const store = await openStore({ table: to });
      assert.equal((await load(store, `quotes " ' \\ {,} ünï`))?.text, '\u0000 \ud800 " \\ {NULL}');
    });

    it('imports the others where the store refuses some, and names those by their handles', async () => {
      const { store: old, name: from } = await oldStore();
      const sql = await sqlClient();
      const nest = (depth: number) => `${'['.repeat(depth)}${']'.repeat(depth)}`;
      const bad: [sid: string, sess: string, why: RegExp][] = [
        ['NUL', '{"passport": {"user": "secret\\u0000"}}', /NUL character/],
        ['half', '{"passport": {"user": "secret\\ud800"}}', /half a surrogate pair/],
        ['long user', JSON.stringify({ passport: { user: 'secret'.repeat(1000) } }), /more than 2000 bytes/],
        ['secret'.repeat(400), '{}', /session ID/],
        ['5,900 levels', `{"secret": ${nest(5900)}}`, /no JSON that can be stored/],
        ['20,000 levels', `{"secret": ${nest(20_000)}}`, /no JSON that can be stored/],
      ];
      for (let n = 0; n < 30; n++) await put(old, `s${n}`, { n, text: '\u0000 \ud800' });
      // The old app's connection had more stack for it.
      await sql.unsafe(`alter table "${from}" alter column sess type text`);
      for (const [sid, sess] of bad) {
        const withCookie = `{"cookie": {"originalMaxAge": 5}, ${sess.slice(1)}`.replace(', }', '}');
        await sql`insert into ${sql(from)} values (${sid}, ${withCookie}, now() + interval '1 h')`;
      }
      for (const [n, maxAge] of ['"x"', 'null', '1e400', '-1', '999999999999999999', '{}'].entries()) {
        const odd = `{"cookie": {"originalMaxAge": ${maxAge}}, "text": "\\u0000 \\ud800"}`;
        await sql`insert into ${sql(from)} values (${`odd ${n}`}, ${odd}, now() + interval '1 h')`;
      }
      const handles = bad.map(([sid]) => handleOf(sid)).sort();
      const [since, to] = [new Date(0).toISOString(), table()];
      for (const flags of [['--dry-run'], [], ['--dry-run'], []]) {
        const found = await json(['import', '--from', from, '--table', to, '--since', since, ...flags]);
        const added = found.added + found.kept;
        assert.deepEqual({ ...found, added }, { ...found, unexpired: 42, added: 36, unreadable: 6 });
        assert.deepEqual(found.skipped.map(({ handle }: any) => handle).sort(), handles);
        for (const [sid, , why] of bad) {
          assert.match(found.skipped.find(({ handle }: any) => handle === handleOf(sid)).why, why);
        }
        assert.doesNotMatch(JSON.stringify(found), /secret/);
      }
      const store = await openStore({ table: to });
      assert.equal(await store.length(), 36);
      assert.equal((await load(store, 's7'))?.text, '\u0000 \ud800');
      assert.equal((await load(store, 'odd 3'))?.text, '\u0000 \ud800');
    });

    it('imports the others where PostgreSQL refuses some', async () => {
      const { store: old, name: from } = await oldStore();
      const to = table();
      await (await openStore({ table: to })).ready();
      const sql = await sqlClient();
      await sql`alter table ${sql(to)} add constraint fine check (data->>'text' is distinct from 'secret')`;
      for (let n = 0; n < 20; n++) await put(old, `s${n}`, { text: n % 10 === 0 ? 'secret' : 'fine' });
      const { added, unreadable, skipped } = await json(['import', '--from', from, '--table', to]);
      assert.deepEqual([added, unreadable], [18, 2]);
      const why = 'PostgreSQL refused it (SQLSTATE 23514)';
      assert.deepEqual(
        skipped,
        ['s0', 's10'].map((sid) => ({ handle: handleOf(sid), why })),
      );
    });

    it('repeated with an encryption key, refreshes only what the old app changed', async () => {
      const { store: old, name: from } = await oldStore();
      const to = table();
      for (const sid of ['same', 'changed']) await put(old, sid, { by: 'old' });
      const args = ['import', '--from', from, '--table', to, '--encryption-key', 'a key of the specs', '--dry-run'];
      const counts = async (flags: string[]) => {
        const { added, refreshed, kept } = await json(flags);
        return [added, refreshed, kept];
      };
      const run = args.slice(0, -1);
      assert.deepEqual(await counts(run), [2, 0, 0]);
      assert.deepEqual(await counts(args), [0, 0, 2]);
      assert.deepEqual(await counts(run), [0, 0, 2]);
      await put(old, 'changed', { by: 'old again' });
      assert.deepEqual(await counts(args), [0, 1, 1]);
      assert.deepEqual(await counts(run), [0, 1, 1]);
      // A new key alone is no change: the next save encrypts with it.
      const rotated = [...run, '--encryption-key', 'a key of the specs'].with(6, 'another key of the specs');
      assert.deepEqual(await counts(rotated), [0, 0, 2]);
      const store = await openStore({ table: to, encryptionKey: 'a key of the specs' });
      assert.equal((await load(store, 'changed'))?.by, 'old again');
    });

    for (const flags of [[], ['--hash-ids'], ['--encryption-key', 'a key of the specs']]) {
      it(`repeated after \`secret\` was rotated, knows rows under older keys (${flags.join(' ')})`, async () => {
        const { store: old, name: from } = await oldStore();
        const to = table();
        for (const sid of ['changed here', 'moved', 'changed there', 'same']) await put(old, sid, { by: 'old' });
        const args = ['import', '--from', from, '--table', to, ...flags];
        const counts = async (more: string[]) => {
          const { added, refreshed, kept } = await json([...args, ...more]);
          return [added, refreshed, kept];
        };
        assert.deepEqual(await counts(['--secret', 'older']), [4, 0, 0]);
        const [hashIds, encryptionKey] = [flags[0] === '--hash-ids', flags[1]];
        const options = { table: to, hashIds, ...(encryptionKey ? { encryptionKey } : {}) };
        const store = await openStore({ ...options, secret: ['newer', 'older'] });
        for (const [sid, by] of [
          ['changed here', await openStore({ ...options, secret: 'older' })],
          ['moved', store],
        ] as const) {
          const loaded = await load(by, sid);
          assert(loaded);
          await by.set(sid, Object.assign(loaded, { by: 'new' }));
        }
        for (const sid of ['changed here', 'moved', 'changed there']) await put(old, sid, { by: 'old again' });
        await put(old, 'late', { by: 'old' });
        const rotated = ['--secret', 'newer', '--secret', 'older'];
        assert.deepEqual(await counts([...rotated, '--dry-run']), [1, 1, 3]);
        assert.deepEqual(await counts(rotated), [1, 1, 3]);
        assert.deepEqual(await counts(rotated), [0, 0, 5]);
        assert.equal(await store.length(), 5);
        const by = async (sid: string) => (await load(store, sid))?.by;
        assert.equal(await by('changed here'), 'new');
        assert.equal(await by('moved'), 'new');
        assert.equal(await by('changed there'), 'old again');
        assert.equal(await by('same'), 'old');
        assert.equal(await by('late'), 'old');
      });
    }

    it('switches an app over under load: everybody stays signed in, no count is lost', async () => {
      const { store: old, name: from } = await oldStore();
      const to = table();
      const store = await openStore({ table: to });
      let app = counter(old);
      let gate: Promise<void> | undefined;
      let running = 0;
      let whenIdle: (() => void) | undefined;
      // What a load balancer does: holds new requests while those under way end.
      const server = http.createServer(async (request, response) => {
        await gate;
        running++;
        response.once('close', () => {
          if (--running === 0) whenIdle?.();
        });
        app(request, response);
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      let isOver = false;
      const signedIn = new Set<number>();
      const wrong: string[] = [];
      const visitor = async (n: number) => {
        const begun = await fetch(`${url}/sign-in/${n}`);
        const cookie = begun.headers.get('set-cookie')?.split(';')[0] ?? '';
        for (let count = 1; !isOver || count < 3; count++) {
          const answer = await (await fetch(`${url}/count`, { headers: { cookie } })).text();
          if (answer !== `${n}: ${count}`) wrong.push(`visitor ${n}, request ${count}: ${answer}`);
          signedIn.add(n);
        }
      };
      try {
        const early = Array.from({ length: 15 }, (_, n) => visitor(n));
        while (signedIn.size < 15) await new Promise((resolve) => setImmediate(resolve));
        const { startedAt, added } = await json(['import', '--from', from, '--table', to]);
        assert.equal(added, 15);
        const late = Array.from({ length: 5 }, (_, n) => visitor(15 + n));
        while (signedIn.size < 20) await new Promise((resolve) => setImmediate(resolve));

        let open = () => {};
        gate = new Promise((resolve) => {
          open = resolve;
        });
        if (running > 0) {
          await new Promise<void>((resolve) => {
            whenIdle = resolve;
          });
        }
        const last = await json(['import', '--from', from, '--table', to, '--since', startedAt]);
        assert.equal(last.added, 5);
        assert.equal(last.kept + last.refreshed, last.unexpired - 5);
        app = counter(store);
        gate = undefined;
        signedIn.clear();
        open();
        while (signedIn.size < 20) await new Promise((resolve) => setImmediate(resolve));
        isOver = true;
        await Promise.all([...early, ...late]);
        assert.deepEqual(wrong, []);
        assert.equal(await store.length(), 20);
      } finally {
        isOver = true;
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      }
    });
  });
});

/** An app that knows its visitors and counts their requests. */
function counter(store: Store): Express {
  const app = express();
  app.use(
    session({ store, secret: 'as before', resave: false, saveUninitialized: false, cookie: { maxAge: 600_000 } }),
  );
  app.get('/sign-in/:user', (request, response) => {
    Object.assign(request.session, { passport: { user: request.params.user }, count: 0 });
    response.end();
  });
  app.get('/count', (request, response) => {
    const data = request.session as any;
    data.count++;
    response.end(`${data.passport?.user}: ${data.count}`);
  });
  return app;
}
