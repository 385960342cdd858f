/** `npx express-pg-store` does what its help says. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { COMMANDS } from '../../lib/cli/commands.js';
import { main, type Outcome } from '../../lib/cli/main.js';
import { closeStores, freshTable, openStore, postgresUri, SHARDS, sqlClient } from '../support/postgres.js';
import { plain } from '../support/sessions.js';

/** Runs the command line in this process. */
async function run(args: string[], { env = {} }: { env?: object } = {}): Promise<Outcome> {
  const shards = SHARDS && args[0] === 'prune' ? ['--shards', String(SHARDS)] : [];
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
  const table = () => {
    const name = freshTable();
    tables.push(name);
    return name;
  };

  afterEach(async () => {
    await closeStores();
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
      [['pruen'], /unknown command 'pruen'/],
      [['prune', 'now'], /now/],
      [['prune', '--table'], /--table/],
      [['prune', '--table', 'x'.repeat(64)], /option `table`: expected an identifier/],
      [['schema', '--partitions', 'many'], /--partitions: expected a whole number/],
      [['schema', '--partitions', '-1'], /--partitions/],
      [['schema', '--json'], /--json/],
      [['help', 'pruen'], /unknown command 'pruen'/],
      [['--json'], /expected a command/],
      [['--table', 'prune'], /expected a command/],
      [['--tabel', 'x', 'stats'], /--tabel/],
      [['--format', 'knex', 'stats'], /--format/],
      [['now', 'prune'], /now/],
      [['stats', '--uri', 'notaurl'], /option `uri`: expected a connection string/],
      [['prune', '--uri', 'postgres://ada:100%@host/db'], /option `uri`: expected a connection string/],
    ] as [string[], RegExp][]) {
      it(`'${args.join(' ').slice(0, 40)}' exits 2 and says what is wrong`, async () => {
        const { code, out, err } = await run(args);
        assert.equal(code, 2);
        assert.equal(out, '');
        assert.match(err, /^express-pg-store: /);
        assert.match(err, complaint);
        assert.match(err, /\nTry 'express-pg-store help( \w+)?'\.\n$/);
        assert.doesNotMatch(err, /100%/);
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

    it('does not say that --uri is missing where it was given, in any place', async () => {
      const uri = 'postgres://127.0.0.1:1/db';
      for (const args of [
        ['stats', '--uri', uri],
        ['stats', `--uri=${uri}`],
        ['--uri', uri, 'stats'],
      ]) {
        const { code, err } = await run(args, { env: { DATABASE_URL: undefined } });
        assert.equal(code, 1);
        assert.match(err, /ECONNREFUSED.*:1\n$/);
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
      assert.match(help.out, /DATABASE_URL.*PGPASSFILE.*\n.*can read.*--uri.*'ps'/, 'warns of --uri');
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

  it('takes options before the command', async () => {
    const name = table();
    await (await openStore({ table: name })).ready();
    const uri = await postgresUri();
    const shards = SHARDS ? ['--shards', String(SHARDS)] : [];
    for (const args of [
      ['--table', name, 'prune', '--json', ...shards],
      ['--json', '--uri', uri, '--table', name, ...shards, 'prune'],
      [`--table=${name}`, '--json', 'prune', ...shards],
    ]) {
      const { code, out, err } = await main(args, { DATABASE_URL: uri });
      assert.deepEqual([code, out, err], [0, '{"deleted":0}\n', '']);
    }
    const { out } = await run(['--table', 'prune', 'schema']);
    assert.match(out, /create table if not exists "public"\."prune"/, "a command's name is also a table's");
    assert.deepEqual(await run(['--help', 'prune']), await run(['help', 'prune']));
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
});
