/** The store keeps working, and keeps every acknowledged write, when the server stops. */

import assert from 'node:assert/strict';
import postgres from 'postgres';
import { PgStore, PgStoreError } from '../../lib/index.js';
import { assertSurvives, attempted, everythingOf, timed } from '../support/fault-load.js';
import { freePort } from '../support/free-port.js';
import { closeStores, openStore } from '../support/postgres.js';
import { PASSWORD, PostgresServer } from '../support/postgres-server.js';
import { plain } from '../support/sessions.js';

describe('faults: the server goes away', () => {
  let server: PostgresServer;

  before(async () => {
    server = await PostgresServer.start();
  });
  afterEach(closeStores);
  after(() => server.close());

  const underLoad = (fault: Parameters<typeof assertSurvives>[1]) =>
    assertSurvives(
      (table, options) => openStore({ uri: server.uri, table, ...options }),
      fault,
      () => server.uri,
    );

  it('kill -9 of the whole server, back after calls have failed three times: no call fails, no acknowledged write is lost', async () => {
    await underLoad((_load, store) =>
      timed(async () => {
        const failures = attempted(store, 3);
        await server.stop('kill');
        await failures;
        await server.start();
      }),
    );
  });

  it('fast restart, immediate restart: no call fails, no acknowledged write is lost', async () => {
    await underLoad(async (load) => {
      const fast = await timed(() => server.restart('fast'));
      await load.progress();
      return Math.max(fast, await timed(() => server.restart('immediate')));
    });
  });

  it('all connections terminated 40 times: no call fails, no acknowledged write is lost', async () => {
    const admin = postgres(server.uri, { max: 1 });
    let terminated = 0;
    await underLoad(async (load) => {
      for (let n = 0; n < 40; n++) {
        await load.progress(20);
        const gone = await admin`
          select pg_terminate_backend(pid) from pg_stat_activity
          where backend_type = 'client backend' and pid <> pg_backend_pid()`;
        terminated += gone.length;
      }
      return 0;
    });
    await admin.end();
    assert(terminated >= 40, `${terminated} connections were terminated`);
  });

  it('an outage that outlasts `retry`: each call fails with a clear error; afterwards all is well', async () => {
    const store = await openStore({ uri: server.uri, table: 'outlasted', retry: { attempts: 3, delay: 20 } });
    const attempts: number[] = [];
    store.on('retry', (_what, attempt) => attempts.push(attempt));
    await store.set('sid-of-somebody', plain({ card: '4111-1111' }));
    await server.stop('kill');
    const calls = {
      get: () => store.get('sid-of-somebody'),
      set: () => store.set('sid-of-somebody', plain({ card: '4111-2222' })),
      touch: () => store.touch('sid-of-somebody', plain({ card: '4111-1111' })),
      destroy: () => store.destroy('sid-of-somebody'),
      all: () => store.all(),
      length: () => store.length(),
      ids: () => store.ids(),
      clear: () => store.clear(),
      ready: () => store.ready(),
      autodelete: () => store.autodelete(),
      sessionsOf: () => store.sessionsOf('somebody'),
      destroySessionsOf: () => store.destroySessionsOf('somebody'),
    };
    for (const [name, call] of Object.entries(calls)) {
      const error = await (call() as Promise<unknown>).then(
        () => assert.fail(`${name} succeeded without a server`) as never,
        (error: any) => error,
      );
      assert(error instanceof PgStoreError);
      assert.match(error.message, new RegExp(`^PgStore\\.${name}: .*(ECONN|CONNECTION)`));
      assert.match(error.code, /^(ECONNREFUSED|ECONNRESET|CONNECTION_CLOSED)$/, name);
      assert((error.cause as any)?.code === error.code, name);
      assert.doesNotMatch(everythingOf(error), /4111|sid-of-somebody/, name);
      assert(!everythingOf(error).includes(PASSWORD), name);
    }
    assert(attempts.length >= 2 * Object.keys(calls).length && Math.max(...attempts) === 2);
    await server.start();
    assert.equal(((await store.get('sid-of-somebody')) as any).card, '4111-1111');
  });

  it('no server at the start: clear errors, and works once there is one, without a restart', async () => {
    const port = await freePort();
    const uri = `postgres://postgres:${PASSWORD}@127.0.0.1:${port}/postgres`;
    const store = await openStore({ uri, table: 'late', retry: { attempts: 2, delay: 20 } });
    for (let n = 0; n < 3; n++) {
      await assert.rejects(store.ready(), { code: 'ECONNREFUSED', message: /^PgStore\.ready: / });
      await assert.rejects(store.get('a'), { code: 'ECONNREFUSED', message: /^PgStore\.get: / });
    }
    const late = await PostgresServer.start({ settings: { port } });
    try {
      await store.set('a', plain({ n: 1 }));
      assert.equal(((await store.get('a')) as any).n, 1);
      await store.close();
    } finally {
      await late.close();
    }
  });

  it('an address that the kernel refuses at once fails the calls, not the process', async () => {
    const store = new PgStore({
      uri: 'postgres://postgres@255.255.255.255:5432/postgres',
      retry: { attempts: 2, delay: 1 },
    });
    await assert.rejects(store.get('a'), { message: /^PgStore\.get: connect E/ });
    await assert.rejects(store.get('a'), { message: /^PgStore\.get: connect E/ });
    await store.close();
  });
});
