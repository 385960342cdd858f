/** The store uses the app's client as it is, and its own as the options say. */

import assert from 'node:assert/strict';
import postgres from 'postgres';
import { PgStore as Store } from '../../lib/index.js';
import { eventually, patiently } from '../support/eventually.js';
import { closeStores, directUri, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { exercise, plain } from '../support/sessions.js';

/** Connections that PostgreSQL sees under an application name. */
async function connections(name: string): Promise<number> {
  const sql = await sqlClient();
  const [row] = await sql`select count(*)::integer from pg_stat_activity where application_name = ${name}`;
  return row?.count;
}

describe('client', () => {
  afterEach(closeStores);

  const appClients: Record<string, object> = {
    'a plain one': {},
    'one that renames to camel case': { transform: postgres.camel },
    'one that renames from camel case': { transform: postgres.fromCamel, fetch_types: false },
    'one that turns null into undefined': {
      transform: { undefined: null, value: { from: (x: unknown) => x ?? undefined } },
    },
    'one that does not prepare': { prepare: false },
    'one with types of its own': {
      types: {
        json: { to: 114, from: [114, 3802], serialize: JSON.stringify, parse: () => assert.fail('no JSON is read') },
        date: { to: 1184, from: [1082, 1114, 1184], serialize: String, parse: () => assert.fail('no date is read') },
      },
    },
    'one with a single connection': { max: 1 },
  };
  for (const [name, options] of Object.entries(appClients)) {
    it(`works on a client that the app has: ${name}`, async () => {
      const sql = postgres(await postgresUri(), { max: 2, onnotice: () => {}, ...options });
      try {
        const store = await openStore({ sql });
        await exercise(store);
        await store.close();
        assert.equal((await sql`select 1 as one`)[0]?.one, 1, 'still open');
      } finally {
        await sql.end();
      }
    });
  }

  it('leaves the app’s client open, also after a call without an answer', async () => {
    const sql = postgres(await postgresUri(), { max: 2, onnotice: () => {} });
    const table = freshTable();
    const store = await openStore({ sql, table, timeout: 200 });
    await patiently(() => store.set('a', plain()));
    const admin = await sqlClient();
    await admin.begin(async (locking) => {
      await locking`lock table ${locking(table)}`;
      await assert.rejects(store.get('a'), { code: 'TIMEOUT' });
      assert.equal((await sql`select 1 as one`)[0]?.one, 1);
    });
    await store.close();
    assert.equal((await sql`select 2 as two`)[0]?.two, 2);
    await sql.end();
  });

  it('shares one client among stores', async () => {
    const sql = postgres(await postgresUri(), { max: 2, onnotice: () => {} });
    const table = freshTable();
    const [one, two] = [await openStore({ sql, table, prefix: '1' }), await openStore({ sql, table, prefix: '2' })];
    await Promise.all([one.set('a', plain()), two.set('a', plain())]);
    await one.close();
    assert.deepEqual(await two.ids(), ['a']);
    await two.close();
    await sql.end();
  });

  it('passes options on to a client of its own', async () => {
    const name = freshTable();
    const uri = await directUri();
    const store = await openStore({ uri, postgres: { prepare: false, connection: { application_name: name } } });
    await exercise(store);
    assert((await connections(name)) > 0);
    await store.close();
    await eventually(async () => (await connections(name)) === 0);
  });

  it('opens no more than `maxConnections`, and closes them all', async () => {
    const name = freshTable();
    const uri = await directUri();
    const store = await openStore({ uri, maxConnections: 2, postgres: { connection: { application_name: name } } });
    await store.ready();
    const calls = Array.from({ length: 200 }, (_, n) => [store.set(`s${n}`, plain()), store.get(`t${n}`)]);
    let isDone = false;
    const done = Promise.all(calls.flat()).then(() => {
      isDone = true;
    });
    let most = 0;
    while (!isDone) most = Math.max(most, await connections(name));
    await done;
    assert(most <= 2, `${most} connections`);
    await store.close();
    await eventually(async () => (await connections(name)) === 0);
  });

  it('goes to the next of several hosts', async () => {
    const uri = new URL(await postgresUri());
    const several = uri.href.replace(uri.host, `127.0.0.1:1,${uri.host}`);
    await exercise(await openStore({ uri: `${several}${uri.search ? '&' : '?'}target_session_attrs=read-write` }));
  });

  it('reads DATABASE_URL, else the PG* variables', async () => {
    const { env } = process;
    const uri = new URL(await postgresUri());
    const variables = {
      PGHOST: uri.hostname,
      PGPORT: uri.port || '5432',
      PGUSER: decodeURIComponent(uri.username),
      PGPASSWORD: decodeURIComponent(uri.password),
      PGDATABASE: uri.pathname.slice(1),
    };
    for (const settings of [{ DATABASE_URL: uri.href }, variables]) {
      process.env = { ...env, ...settings };
      if (!('DATABASE_URL' in settings)) delete process.env.DATABASE_URL;
      try {
        await using store = new Store({ table: freshTable() });
        await exercise(store);
      } finally {
        process.env = env;
      }
    }
  });
});
