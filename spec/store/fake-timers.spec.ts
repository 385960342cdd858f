/** What do an app's tests see whose timers are faked? */

import assert from 'node:assert/strict';
import FakeTimers from '@sinonjs/fake-timers';
import { runNode } from '../support/child.js';
import { closeStores, freshTable, openStore, postgresUri, sqlClient } from '../support/postgres.js';
import { generated, load } from '../support/sessions.js';

describe('with faked timers', () => {
  afterEach(closeStores);

  const fakes = {
    'sinon, all of them': 'FakeTimers.install()',
    'node:test, all of them': 'mock.timers.enable()',
  };
  for (const [name, install] of Object.entries(fakes)) {
    it(`each call ends, though Postgres.js takes the faked ones: ${name}`, async () => {
      const { code, stdout, stderr } = await runNode(
        `import { mock } from 'node:test';
        import FakeTimers from '@sinonjs/fake-timers';
        import { PgStore } from './lib/index.js';
        const { uri, table, elsewhere } = process.env;
        const stores = [uri, uri, elsewhere].map((uri) => new PgStore({ uri, table, autodelete: false, timeout: 500 }));
        const session = { n: 1, cookie: { path: '/' } };
        // Until it is stored in time, which may take several tries on a busy machine.
        while (await stores[0].set('sid', session).catch(() => 'again'));
        ${install};
        const end = process.exit;
        for (const store of stores) {
          const codeOf = (error) => error.code;
          const byPromise = await store.get('sid').catch(codeOf);
          const byCallback = await new Promise((resolve) => store.set('sid', session, resolve));
          console.log(byPromise, codeOf(byCallback));
        }
        end(0);`,
        { env: { uri: await postgresUri(), table: freshTable(), elsewhere: 'postgres://nobody@127.0.0.1:1/none' } },
      );
      assert.equal(code, 0, stderr);
      const [warm, fresh, refused] = stdout.trim().split('\n');
      assert.deepEqual([warm, fresh], ['TIMEOUT TIMEOUT', 'TIMEOUT TIMEOUT']);
      assert.match(String(refused), /^(TIMEOUT|ECONNREFUSED) (TIMEOUT|ECONNREFUSED)$/);
    });
  }

  it('all works with those that the cookbook fakes; the rows expire by PostgreSQL’s clock', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    const clock = FakeTimers.install({ now: new Date('2031-01-01'), toFake: ['Date'] });
    try {
      await store.set('sid', generated(store, 'sid', { n: 1 }, 60_000));
      const request = await load(store, 'sid');
      assert.equal(request?.n, 1);
      assert.equal(request.cookie.expires?.toISOString().slice(0, 16), '2031-01-01T00:01');
      clock.tick(3_600_000);
      assert.equal((await load(store, 'sid'))?.n, 1);
      const sql = await sqlClient();
      await sql`update ${sql(table)} set expires_at = now() where sid = 'sid'`;
      assert.equal(await store.get('sid'), null);
    } finally {
      clock.uninstall();
    }
  });
});
