/** An error says what failed, and discloses nothing of a session. */

import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import { PgStoreError, toPgStoreError } from '../../lib/errors.js';
import { PgStore } from '../../lib/index.js';
import { closeStores, freshTable, openStore, sqlClient } from '../support/postgres.js';
import { loaded, plain } from '../support/sessions.js';

const secret = 'hunter2';

async function errorOf(call: Promise<unknown>): Promise<any> {
  return call.then(
    () => assert.fail('no error'),
    (error) => error,
  );
}

/** All that a logger may come to print. */
function everything(error: any): string {
  const properties = JSON.stringify(error, Object.getOwnPropertyNames(error));
  return [inspect(error, { depth: 10, showHidden: true }), error.stack, error.cause?.stack, properties].join('\n');
}

describe('errors', () => {
  afterEach(closeStores);

  it('names the call, the code and the cause', () => {
    const refused = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), {
      code: 'ECONNREFUSED',
      errno: -111,
      port: 1,
    });
    const error: any = toPgStoreError('get', refused);
    assert.equal(error instanceof PgStoreError && error instanceof Error, true);
    assert.equal(error.message, 'PgStore.get: connect ECONNREFUSED 127.0.0.1:1');
    assert.equal(error.name, 'PgStoreError');
    assert.equal(error.code, 'ECONNREFUSED');
    assert.equal(error.cause.port, 1);
  });

  it('drops what PostgreSQL and its client hang on an error', () => {
    const told = Object.assign(new Error(`invalid input syntax for type json: "${secret}"`), {
      severity: 'ERROR',
      code: '22P02',
      detail: `Token "${secret}" is invalid.`,
      where: `JSON data, line 1: ${secret}`,
      hint: secret,
      query: `select '${secret}'`,
      parameters: [secret],
      args: [secret],
    });
    const error: any = toPgStoreError('set', told);
    assert.equal(error.message, 'PgStore.set: PostgreSQL refused a value (SQLSTATE 22P02)');
    assert.equal(error.cause.severity, 'ERROR');
    assert(!everything(error).includes(secret));
  });

  it('keeps its own errors’ codes', () => {
    const error: any = toPgStoreError('get', new PgStoreError('the store is closed', 'CLOSED'));
    assert.equal(error.message, 'PgStore.get: the store is closed');
    assert.equal(error.code, 'CLOSED');
  });

  it('turns whatever was thrown into an error', () => {
    const textless = {
      toString() {
        throw new Error('none');
      },
    };
    const odd = Object.assign(new Error('text'), { message: Symbol('text') });
    for (const thrown of ['text', null, undefined, 5, {}, Object.create(null), Symbol('text'), textless, odd]) {
      const error: any = toPgStoreError('set', thrown);
      assert(error instanceof PgStoreError);
      assert.equal(error.code, 'INVALID_SESSION');
    }
  });

  it('reaches the caller, whatever the app’s code throws', async () => {
    const user = () => {
      throw Object.create(null);
    };
    const store = await openStore({ user });
    await assert.rejects(store.set('a', plain()), { code: 'INVALID_SESSION' });
  });

  it('gives nothing away of a session that PostgreSQL refuses', async () => {
    const table = freshTable();
    const store = await openStore({ table, prefix: 'p:' });
    await store.ready();
    const sql = await sqlClient();
    await sql.unsafe(`alter table ${table} add constraint no_hunters check (data::text not like '%${secret}%')`);
    const error = await errorOf(store.set(`sid-${secret}`, plain({ password: secret })));
    assert.equal(error.code, '23514');
    assert.equal(error.cause.constraint_name ?? error.cause.constraint, 'no_hunters');
    assert(!everything(error).includes(secret), everything(error));
  });

  it('gives nothing away where a trigger quotes the row', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    await store.ready();
    const sql = await sqlClient();
    await sql
      .unsafe(
        `create function refuse_${table}() returns trigger language plpgsql as
         $$ begin raise exception 'no %', new.data using detail = new.sid; end $$;
         create trigger refuse before insert on ${table} for each row execute function refuse_${table}()`,
      )
      .simple();
    const error = await errorOf(store.set(`sid-${secret}`, plain({ password: secret })));
    assert.equal(error.code, 'P0001');
    assert(!everything(error).includes(secret), everything(error));
    await sql.unsafe(`drop function refuse_${table} cascade`);
  });

  it('gives nothing away of a session ID that cannot be stored', async () => {
    const store = await openStore();
    const error = await errorOf(store.set(`${secret}\0`, plain()));
    assert.equal(error.code, 'INVALID_SID');
    assert(!everything(error).includes(secret));
    assert.equal(await store.get(`${secret}\0`), null);
    await store.destroy(`${secret}\0`);
    await store.touch(`${secret}\0`, plain());
  });

  it('gives nothing away of its options', async () => {
    const uri = `postgres://me:${secret}@127.0.0.1:1/db`;
    const options = { uri, secret, encryptionKey: `${secret} and more than that`, retry: { attempts: 1 } };
    const store = new PgStore(options);
    const error = await errorOf(store.get('a'));
    assert.equal(error.code, 'ECONNREFUSED');
    assert(!everything(error).includes(secret), everything(error));
    assert(!inspect(store, { depth: 10, showHidden: true }).includes(secret));
    assert(!JSON.stringify(store).includes(secret));
    await store.close();
  });

  it('tells the app what its own code threw', async () => {
    let mine: Error;
    const fail = () => {
      throw mine;
    };
    const byTtl = await openStore({ ttl: fail });
    const byUser = await openStore({ user: fail });
    const table = freshTable();
    const byMerge = await openStore({ merge: fail, table });
    await byMerge.set('a', plain());
    const conflict = async () => {
      const [one, two] = [await loaded(byMerge, 'a'), await loaded(byMerge, 'a')];
      const { length } = Object.keys(one);
      await byMerge.set('a', Object.assign(one, { [`one${length}`]: 1 }));
      return byMerge.set('a', Object.assign(two, { [`two${length}`]: 1 }));
    };
    const calls: (() => Promise<void>)[] = [
      () => byTtl.set('a', { cookie: {} } as any),
      () => byTtl.set('a', { toJSON: fail, cookie: {} } as any),
      () => byTtl.set('a', { value: { toJSON: fail }, cookie: {} } as any),
      () => byUser.set('a', plain()),
      conflict,
    ];
    // Errors of the operating system and of PostgreSQL have such codes, too.
    for (const code of [undefined, 'ENOENT', 'ECONNRESET', '40001', 'NO_TENANT']) {
      mine = Object.assign(new Error('mine'), code && { code, syscall: 'open', path: 'tenants', errno: -2 });
      for (const call of calls) {
        const error = await errorOf(call());
        assert.equal(error.message, 'PgStore.set: mine');
        assert.equal(error.cause, mine);
        assert.equal(error.code, 'INVALID_SESSION');
      }
    }
  });
});
