/** The store works on PGlite, PostgreSQL in WebAssembly, through its socket. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { PGlite } from '@electric-sql/pglite';
import type { PGLiteSocketServer } from '@electric-sql/pglite-socket';
import { PgStore, type PgStoreOptions } from '../../lib/index.js';
import { buildPackageBesideTools } from '../support/built-package.js';
import { run } from '../support/child.js';
import { freshTable } from '../support/postgres.js';
import { data, loaded, plain } from '../support/sessions.js';
import { skipWithoutTools } from '../support/tools.js';

const EXAMPLE = path.resolve(import.meta.dirname, '../../examples/pglite-tests/app.test.mjs');

describe('PGlite', function () {
  this.timeout(120_000);

  const open: PgStore[] = [];
  let database: PGlite;
  let socket: PGLiteSocketServer;

  before(async function () {
    skipWithoutTools.call(this);
    const pglite = await import('@electric-sql/pglite');
    const { PGLiteSocketServer } = await import('@electric-sql/pglite-socket');
    database = await pglite.PGlite.create();
    socket = new PGLiteSocketServer({ db: database, port: 0, maxConnections: 20 });
    await socket.start();
  });

  afterEach(async () => {
    for (const store of open.splice(0)) await store.close();
  });

  after(async () => {
    await socket?.stop();
    await database?.close();
  });

  function openStore(options: PgStoreOptions = {}): PgStore {
    const uri = `postgres://postgres@${socket.getServerConn()}/postgres`;
    const store = new PgStore({ uri, table: freshTable(), autodelete: false, timeout: 30_000, ...options });
    open.push(store);
    return store;
  }

  for (const [name, options] of Object.entries<PgStoreOptions>({
    'ten connections': {},
    'one connection': { maxConnections: 1 },
    'one connection that does not prepare statements': { maxConnections: 1, postgres: { prepare: false } },
  })) {
    it(`many sessions at once stay apart, with ${name}`, async () => {
      const store = openStore(options);
      const sids = Array.from({ length: 200 }, (_, n) => `s${n}`);
      await Promise.all(sids.map((sid, n) => store.set(sid, plain({ n }))));
      const found: any[] = await Promise.all(sids.map((sid) => store.get(sid)));
      assert.deepEqual(
        found.map(({ n }) => n),
        sids.map((_, n) => n),
      );
      await Promise.all(sids.slice(0, 150).map((sid) => store.destroy(sid)));
      assert.equal(await store.length(), 50);
    });
  }

  it('keeps what each of 20 parallel requests changed, and revives nothing after a logout', async () => {
    const store = openStore();
    await store.set('sid', plain());
    const requests = await Promise.all(Array.from({ length: 20 }, () => loaded(store, 'sid')));
    await Promise.all(requests.map((session, n) => store.set('sid', Object.assign(session, { [`k${n}`]: n }))));
    assert.equal(Object.keys((await data(store, 'sid')) ?? {}).length, 20);
    const slow = await loaded(store, 'sid');
    await store.destroy('sid');
    await store.set('sid', Object.assign(slow, { late: true }));
    assert.equal(await store.get('sid'), null);
  });

  it('lists and destroys the sessions of a user, and deletes expired rows', async () => {
    const table = freshTable();
    const store = openStore({ table, user: (session: any) => session.userId });
    for (const sid of ['a', 'b', 'c']) await store.set(sid, plain({ userId: sid === 'c' ? 'bob' : 'ann' }));
    assert.equal((await store.sessionsOf('ann')).length, 2);
    assert.equal(await store.destroySessionsOf('ann', { except: 'a' }), 1);
    assert.deepEqual((await store.ids()).sort(), ['a', 'c']);
    await store.set('old', plain({}, 1));
    const rows = async () => (await database.query<{ sid: string }>(`select sid from ${table} order by sid`)).rows;
    while ((await rows()).length > 2) await store.autodelete();
    assert.deepEqual(await rows(), [{ sid: 'a' }, { sid: 'c' }]);
  });

  it('fails with several connections that do not prepare statements: PGlite mixes up their statements', async () => {
    const store = openStore({ postgres: { prepare: false }, retry: { attempts: 1 } });
    await store.ready();
    const calls = Array.from({ length: 200 }, (_, n) => [store.set(`s${n}`, plain()), store.length()]).flat();
    const failed = (await Promise.allSettled(calls)).filter(({ status }) => status === 'rejected');
    assert(failed.length > 0, 'it works by now: say so in the documentation');
  });

  it('runs the tests of examples/pglite-tests, whose app needs no server', async () => {
    const built = buildPackageBesideTools();
    try {
      fs.copyFileSync(EXAMPLE, path.join(built.folder, path.basename(EXAMPLE)));
      const { code, stdout, stderr } = await run(
        process.execPath,
        ['--test', '--test-reporter=tap', path.basename(EXAMPLE)],
        {
          cwd: built.folder,
          env: { NODE_OPTIONS: '', NODE_TEST_CONTEXT: undefined },
        },
      );
      assert.equal(code, 0, stdout + stderr);
      assert.match(stdout, /# pass 2\b/);
    } finally {
      built.remove();
    }
  });
});
