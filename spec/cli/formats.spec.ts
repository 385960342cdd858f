/** The table that a migrations tool creates from `schema --format` is the store's own. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { main } from '../../lib/cli/main.js';
import { apart, installApart } from '../support/built-package.js';
import { catalogOf } from '../support/catalog.js';
import { closeStores, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { plain } from '../support/sessions.js';

const KNEX = ['knex', '3.3.0'] as const;
const DRIZZLE = ['drizzle-orm', '0.45.4'] as const;

describe('schema --format', () => {
  let folder: string;

  before(() => {
    folder = apart('formats');
  });
  afterEach(closeStores);
  after(() => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));

  async function output(format: string, table: string, shards?: number): Promise<string> {
    const more = shards ? ['--shards', String(shards)] : [];
    const { code, out, err } = await main(['schema', '--format', format, '--table', table, ...more], {});
    assert.equal(code, 0, err);
    return out;
  }

  /** The catalog of a table that the store created, under another table's name. */
  async function expected(name: string, shards?: number) {
    const sql = await sqlClient();
    const table = freshTable();
    await (await openStore({ table, schema: 'public', ...(shards && { shards }) })).ready();
    return JSON.parse(JSON.stringify(await catalogOf(sql, 'public', table)).replaceAll(table, name));
  }

  /** The SQL in the comment before a model. */
  function migrationIn(text: string): string {
    const lines = text.split('\n');
    const first = lines.findIndex((line) => line.startsWith('// The migration')) + 1;
    const end = lines.findIndex((line) => !line.startsWith('//'));
    return lines
      .slice(first, end)
      .join('\n')
      .replace(/^\/\/ ?/gm, '');
  }

  async function imported(file: string, code: string): Promise<any> {
    const target = path.join(folder, file);
    fs.writeFileSync(target, code);
    return import(pathToFileURL(target).href);
  }

  /** A package that is installed apart, for the modules in the folder too. */
  function linked([name, version]: readonly [string, string]): string {
    const installed = installApart(name, version);
    const link = path.join(folder, 'node_modules', name);
    fs.mkdirSync(path.dirname(link), { recursive: true });
    if (!fs.existsSync(link)) fs.symlinkSync(installed, link, 'dir');
    return installed;
  }

  for (const shards of [undefined, 4]) {
    const how = shards ? ', with shards' : '';

    it(`knex: a migration that creates the table, and drops it${how}`, async () => {
      const table = freshTable();
      const { up, down } = await imported(`${table}.mjs`, await output('knex', table, shards));
      const knex = createRequire(linked(KNEX) + path.sep)('knex')({ client: 'pg', connection: await postgresUri() });
      const sql = await sqlClient();
      try {
        await up(knex);
        assert.deepEqual(
          JSON.parse(JSON.stringify(await catalogOf(sql, 'public', table))),
          await expected(table, shards),
        );
        await down(knex);
        const [{ found }] = await sql`select to_regclass(${table}) as found`;
        assert.equal(found, null);
      } finally {
        await knex.destroy();
      }
    });

    it(`drizzle: a migration in its comment, and a table for queries${how}`, async () => {
      const table = freshTable();
      const code = await output('drizzle', table, shards);
      linked(DRIZZLE);
      const { sessions } = await imported(`${table}.mts`, code);
      const { drizzle } = await imported('driver.mts', "export { drizzle } from 'drizzle-orm/node-postgres';");
      const { getTableConfig } = await imported('config.mts', "export { getTableConfig } from 'drizzle-orm/pg-core';");
      const sql = await sqlClient();
      await sql.unsafe(migrationIn(code));
      const catalog = JSON.parse(JSON.stringify(await catalogOf(sql, 'public', table)));
      assert.deepEqual(catalog, await expected(table, shards));
      const config = getTableConfig(sessions);
      const keys = config.primaryKeys.flatMap(({ columns }: any) => columns.map(({ name }: any) => name));
      assert.deepEqual(keys, shards ? ['shard', 'sid'] : []);
      assert.deepEqual(
        config.columns.map((column: any) => [column.name, column.getSQLType(), column.notNull]),
        catalog.columns.map(({ attname, type, attnotnull }: any) => [attname, type, attnotnull]),
      );
      const store = await openStore({ table, createTable: false, ...(shards && { shards }) });
      await store.set('sid', plain({ n: 1 }));
      const pool = new pg.Pool({ connectionString: await postgresUri(), max: 1 });
      try {
        const [row] = await drizzle(pool).select().from(sessions);
        assert.equal(row.sid, 'sid');
        assert.equal(row.data.n, 1);
        assert(row.expiresAt > new Date() && row.deleteAfter >= row.expiresAt);
      } finally {
        await pool.end();
      }
    });

    it(`prisma: a migration in its comment, and a model with the columns${how}`, async () => {
      const table = freshTable();
      const text = await output('prisma', table, shards);
      const sql = await sqlClient();
      await sql.unsafe(migrationIn(text));
      const catalog = JSON.parse(JSON.stringify(await catalogOf(sql, 'public', table)));
      assert.deepEqual(catalog, await expected(table, shards));
      const types: Record<string, string> = {
        text: 'String',
        json: 'Json',
        integer: 'Int',
        'double precision': 'Float',
        smallint: 'Int',
        'timestamp with time zone': 'DateTime',
      };
      const fields = [...text.matchAll(/^ {2}(\w+) (\w+)(\??)(?:.*@map\("(\w+)"\))?/gm)];
      assert.deepEqual(
        fields.map(([, name, type, optional, column]) => [column ?? name, type, optional !== '?']),
        catalog.columns.map(({ attname, type, attnotnull }: any) => [attname, types[type], attnotnull]),
      );
      assert(text.includes(`@@map("${table}")`));
      assert.equal(text.includes('@@id([shard, sid])'), shards !== undefined);
      assert.equal(text.includes('@id\n'), shards === undefined);
    });
  }

  it('names another schema', async () => {
    for (const [format, expected] of [
      ['knex', '.withSchema("app").dropTable("s")'],
      ['drizzle', 'pgSchema("app").table("s", {'],
      ['prisma', '@@schema("app")'],
    ] as const) {
      const { out } = await main(['schema', '--format', format, '--schema', 'app', '--table', 's'], {});
      assert(out.includes(expected) && out.includes('create schema if not exists'), out);
    }
  });

  it('that is unknown is a usage error', async () => {
    const { code, err } = await main(['schema', '--format', 'toString'], {});
    assert.equal(code, 2);
    assert.match(err, /^express-pg-store: --format: expected one of sql, knex, prisma, drizzle, got 'toString'/);
  });
});
