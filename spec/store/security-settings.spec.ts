/** Whatever settings a role, a database or an app gives its connections: the store reads and writes the same. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import pg from 'pg';
import postgres, { type Sql } from 'postgres';
import { main } from '../../lib/cli/main.js';
import { PgStore } from '../../lib/index.js';
import { directUri, freshTable, sqlClient } from '../support/postgres.js';
import { loaded, plain } from '../support/sessions.js';

/** Settings that are not tried, and why. */
const NOT_TRIED: Record<string, string> = {
  client_encoding: 'in the middle of a connection no client understands it; a role may set it, see below',
  default_transaction_read_only: 'every write fails with 25006, as it should',
  transaction_read_only: 'the same',
  transaction_isolation: 'of the present transaction alone',
  transaction_deferrable: 'of the present transaction alone',
  role: 'who runs the statements',
  session_authorization: 'who runs the statements',
  exit_on_error: 'ends the connection',
  ignore_checksum_failure: 'for damaged files',
  zero_damaged_pages: 'for damaged files',
  log_statement: 'writes to the server’s log alone',
};
/** Times after which the server ends a statement or a connection: the smallest but 0 ends each, as it should. */
const LIMITS = /_timeout$|^tcp_|^client_connection_check_interval$|_delay$/;

/** Values of settings that are texts. */
const TEXTS: Record<string, string[]> = {
  DateStyle: ['SQL, DMY', 'German, DMY', 'Postgres, MDY', 'ISO, YMD'],
  TimeZone: ['Asia/Kathmandu', 'Pacific/Kiritimati', 'America/St_Johns', 'UTC'],
  timezone_abbreviations: ['India'],
  search_path: ['', 'nowhere', 'pg_catalog', 'public, pg_catalog'],
  lc_messages: ['C', 'POSIX'],
  lc_monetary: ['C', 'POSIX'],
  lc_numeric: ['C', 'POSIX'],
  lc_time: ['C', 'POSIX'],
  default_text_search_config: ['german'],
  application_name: [`a'b"c`],
  default_table_access_method: ['heap'],
  createrole_self_grant: ['set, inherit'],
  restrict_nonsystem_relation_kind: ['view, foreign-table'],
  xmloption: ['document'],
};

interface Setting {
  readonly name: string;
  readonly value: string;
}

/** Each setting that a role may set, with its extreme values and all that it may be otherwise. */
async function extremes(sql: Sql): Promise<Setting[]> {
  const settings = await sql`
    select name, vartype, setting, min_val, max_val, enumvals from pg_settings
    where context in ('user', 'superuser') and category !~ '^(Reporting and Logging|Statistics|Customized Options)' order by name`;
  return settings.flatMap(({ name, vartype, setting, min_val, max_val, enumvals }) => {
    if (Object.hasOwn(NOT_TRIED, name) || LIMITS.test(name)) return [];
    const values: string[] =
      vartype === 'bool'
        ? ['on', 'off']
        : vartype === 'enum'
          ? enumvals
          : vartype === 'string'
            ? (TEXTS[name] ?? [])
            : [min_val, max_val];
    return values.filter((value) => value !== setting).map((value) => ({ name, value }));
  });
}

function set(client: Sql, { name, value }: Setting): Promise<unknown> {
  return client.unsafe(`select pg_catalog.set_config('${name}', $1, false)`, [value]);
}

/** Groups of eight settings, no two of the same name: trying each alone takes eight times as long. */
function groupsOf(settings: readonly Setting[]): Setting[][] {
  const groups: Setting[][] = [];
  for (const setting of settings) {
    const group = groups.find((some) => some.length < 8 && !some.some(({ name }) => name === setting.name));
    if (group) group.push(setting);
    else groups.push([setting]);
  }
  return groups;
}

/** What a store's methods answer, with statements of one row and of many; no times. */
async function answers(store: PgStore): Promise<unknown> {
  const user = (n: number) => (n % 3 ? { passport: { user: n % 3 === 1 ? 'NULL' : `ann"\\'{}` } } : {});
  const value = (n: number) => ({ ...user(n), n: n / 3, text: `\\x41 'ä💥\0"`, no: null, list: [1e21, -0.1] });
  const sids = Array.from({ length: 6 }, (_, n) => `s${n}'"\\{},NULL`);
  const dataOf = async (sid: string) => {
    const { cookie, ...data } = ((await store.get(sid)) ?? {}) as any;
    const left = cookie ? Math.round((Date.parse(cookie.expires) - Date.now()) / 30_000) : 'none';
    return { ...data, left, path: cookie?.path };
  };
  const told: unknown[] = [];
  await store.set('one', plain(value(0)));
  await Promise.all(sids.map((sid, n) => store.set(sid, plain(value(n)))));
  await Promise.all(sids.map((sid, n) => store.set(sid, plain({ ...value(n), again: 1 }))));
  const [mine, other] = [await loaded(store, 'one'), await loaded(store, 'one')];
  await Promise.all([
    store.set('one', Object.assign(mine, { a: 1 })),
    store.set('one', Object.assign(other, { b: 2 })),
  ]);
  await store.touch('one', plain({}, 120_000));
  await Promise.all(sids.map((sid) => store.touch(sid, plain({}, 180_000))));
  await store.update('one', (session) => Object.assign(session, { updated: 1 }));
  told.push(await store.updateSessionsOf('NULL', (session) => Object.assign(session, { role: 'owner' })));
  told.push(await dataOf('one'), await Promise.all(sids.map(dataOf)));
  told.push(await store.length(), (await store.ids()).sort());
  const near = (date: Date, seconds: number) => Math.abs(date.getTime() - Date.now() - seconds * 1000) < 30_000;
  for (const name of ['NULL', `ann"\\'{}`, '']) {
    const listed = await store.sessionsOf(name);
    told.push(listed.map((one) => [near(one.createdAt, 0), near(one.lastSeenAt, 0), near(one.expiresAt, 180)]));
  }
  told.push(await store.limitSessionsOf('NULL', 1), await store.destroySessionsOf('NULL'));
  await Promise.all(sids.slice(0, 3).map((sid) => store.destroy(sid)));
  await store.set('short', plain({}, 0));
  told.push(await store.autodelete(), await dataOf('short'), (await store.ids()).sort());
  await store.clear();
  told.push(await store.length());
  return told;
}

describe('settings of a role', () => {
  const role = `settings_${randomBytes(6).toString('hex')}`;
  const password = randomBytes(12).toString('hex');
  let sql: Sql;
  let uri: string;
  let table: string;
  let expected: unknown;
  let settings: Setting[];

  before(async () => {
    sql = await sqlClient();
    table = freshTable();
    await sql.unsafe(`create role ${role} superuser login password '${password}'`);
    const url = new URL(await directUri());
    Object.assign(url, { username: role, password });
    uri = url.href;
    const store = new PgStore({ uri, table, autodelete: false });
    expected = await answers(store);
    await store.close();
    settings = await extremes(sql);
  });
  after(async () => {
    await sql.unsafe(`drop owned by ${role}; drop role ${role}`);
  });

  it('are many', () => {
    assert(settings.length > 150, String(settings.length));
    assert.deepEqual((expected as unknown[]).at(-1), 0);
  });

  it('change nothing at their extreme values', async () => {
    // Without prepared statements, each is parsed and planned under the settings of its time.
    const client = postgres(uri, { max: 1, prepare: false, fetch_types: false, onnotice: () => {} });
    // A new store looks at its table first.
    const open = () => new PgStore({ sql: client, table, autodelete: false, retry: { attempts: 1 } });
    const refused: Setting[] = [];

    /** What is wrong with the store while the connection has these settings, if anything is. */
    async function faultOf(tried: readonly Setting[]): Promise<string | undefined> {
      const before: Setting[] = [];
      for (const { name, value } of tried) {
        const [was] = await client.unsafe(`select pg_catalog.current_setting('${name}') as value`);
        try {
          await set(client, { name, value });
          before.unshift({ name, value: was?.value });
        } catch {
          // It goes with another build or another setting.
          refused.push({ name, value });
        }
      }
      const found = await answers(open()).catch((error) => error);
      for (const setting of before) await set(client, setting);
      if (isDeepStrictEqual(found, expected)) return undefined;
      await open().clear();
      return found instanceof Error ? found.message : `it answers ${JSON.stringify(found)}`;
    }

    const wrong: string[] = [];
    for (const group of groupsOf(settings)) {
      if ((await faultOf(group)) === undefined) continue;
      // Alone, to tell which of them it is; it may be that they spoil it only together.
      const faults = [];
      for (const setting of group) faults.push([JSON.stringify(setting), await faultOf([setting])]);
      wrong.push(`${JSON.stringify(group)}: ${JSON.stringify(faults.filter(([, fault]) => fault))}`);
    }
    await client.end();
    assert.deepEqual(wrong, []);
    assert(refused.length < settings.length / 10, JSON.stringify(refused));
  }).timeout(240_000);

  const ODD = {
    bytea_output: 'escape',
    datestyle: 'German, DMY',
    intervalstyle: 'sql_standard',
    timezone: 'Asia/Kathmandu',
    extra_float_digits: '-15',
    array_nulls: 'off',
    backslash_quote: 'off',
    transform_null_equals: 'on',
    xmloption: 'document',
    default_transaction_isolation: 'serializable',
    default_transaction_deferrable: 'on',
    quote_all_identifiers: 'on',
    plan_cache_mode: 'force_generic_plan',
    enable_seqscan: 'off',
    enable_nestloop: 'off',
    enable_hashjoin: 'off',
    jit_above_cost: '0',
    client_encoding: 'LATIN1',
    client_min_messages: 'debug5',
    row_security: 'off',
    search_path: '',
    work_mem: '64kB',
    from_collapse_limit: '1',
    join_collapse_limit: '1',
  };

  for (const change of [
    {},
    { plan_cache_mode: 'force_custom_plan', enable_indexscan: 'off', enable_bitmapscan: 'off' },
  ]) {
    it(`change nothing, many together, with prepared statements ${JSON.stringify(change)}`, async () => {
      for (const [name, value] of Object.entries({ ...ODD, ...change })) {
        await sql.unsafe(`alter role ${role} set ${name} = ${value === '' ? `''` : `'${value}'`}`);
      }
      if (await has('standard_conforming_strings')) {
        await sql.unsafe(`alter role ${role} set standard_conforming_strings = off`).catch(() => {});
      }
      try {
        const pool = new pg.Pool({ connectionString: uri, max: 2 });
        for (const client of [{ uri }, { pool }]) {
          const store = new PgStore({ ...client, table, autodelete: false });
          assert.deepEqual(await answers(store), expected);
          await store.set('kept', plain({ passport: { user: 'ann' } }));
          const { code, out, err } = await main(['stats', '--json', '--table', table, '--uri', uri], {});
          assert.equal(code, 0, err);
          const { unexpired, users, top, oldest } = JSON.parse(out);
          assert.deepEqual({ unexpired, users, top }, { unexpired: 1, users: 1, top: [{ user: 'ann', sessions: 1 }] });
          assert(Math.abs(Date.parse(oldest) - Date.now()) < 60_000, oldest);
          await store.clear();
          await store.close();
        }
        await pool.end();
      } finally {
        await sql.unsafe(`alter role ${role} reset all`);
      }
    });
  }

  const has = async (name: string) => (await sql`select from pg_settings where name = ${name}`).length > 0;
});
