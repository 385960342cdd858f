/** `store.update` and `store.updateSessionsOf` change stored sessions from outside a request, atomically. */

import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import session from 'express-session';
import type { Sql } from 'postgres';
import type { PgStore, PgStoreOptions, StatementMessage } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { runNode } from '../support/child.js';
import { losingAnswers } from '../support/losing-answers.js';
import { closeStores, freshTable, openStore, postgresUri, SHARDS, sqlClient } from '../support/postgres.js';
import { data, generated, loaded, maxAgeOf, plain } from '../support/sessions.js';
import { until } from '../support/watches.js';

const HOUR = 3_600_000;
const user = (stored: any) => stored.user;
/** A client that does something after the first statement with a text, before its rows are there. */
function afterFirst(sql: Sql, text: string, work: () => Promise<unknown>): Sql {
  let isDone = false;
  const unsafe = (statement: string, values: any[], options: object) => ({
    simple: () => sql.unsafe(statement).simple(),
    values: async () => {
      const rows = await sql.unsafe(statement, values, options).values();
      if (!isDone && statement.includes(text)) {
        isDone = true;
        await work();
      }
      return rows;
    },
  });
  return Object.assign(() => {}, { unsafe, options: sql.options }) as unknown as Sql;
}

const increment = (stored: any) => {
  stored.n = (stored.n ?? 0) + 1;
};

describe('update', () => {
  let table: string;

  beforeEach(() => {
    table = freshTable();
  });
  afterEach(closeStores);

  const open = (options: PgStoreOptions = {}) => openStore({ table, user, ...options });

  async function row(): Promise<any> {
    const sql = await sqlClient();
    const [found] = await sql`select *, xmin::text from ${sql(table)}`;
    return found;
  }

  it('changes the stored session in place, and resolves with it as it is stored', async () => {
    const store = await open();
    await store.set('a', plain({ user: 'ann', deep: { list: [1] } }));
    const updated: any = await store.update('a', (stored: any) => {
      stored.deep.list.push(2, { toJSON: () => 3 });
      stored.none = undefined;
    });
    const { cookie, ...others } = updated;
    assert.deepEqual(others, { user: 'ann', deep: { list: [1, 2, 3] } });
    assert.deepEqual(await store.get('a'), updated);
    updated.deep = 'not part of the stored session';
    assert.deepEqual(await data(store, 'a'), others);
  });

  it('stores another object that `change` returns, with the cookie that is there', async () => {
    const store = await open();
    await store.set('a', plain({ user: 'ann', old: 1 }));
    const { cookie } = (await store.get('a')) as any;
    assert.deepEqual(await store.update('a', () => ({ user: 'ann', role: 'editor' }) as any), {
      user: 'ann',
      role: 'editor',
      cookie,
    });
    await store.update('a', (stored: any) => {
      delete stored.cookie;
      stored.more = true;
    });
    assert.deepEqual((await store.get('a'))?.cookie, cookie);
  });

  const maxAgeLeft = (cookie: any) => Date.parse(cookie.expires) - Date.now();

  it('resolves with null where there is no session, without a call of `change`', async () => {
    const store = await open();
    const change = () => assert.fail('there is nothing to change');
    assert.equal(await store.update('nowhere', change), null);
    await store.set('expired', plain({}, -1000));
    assert.equal(await store.update('expired', change), null);
    assert.equal(await store.get('nowhere'), null);
  });

  it('takes a session over from option `previous` first', async () => {
    const previous = new session.MemoryStore();
    previous.set('there', plain({ n: 1 }) as any);
    const store = await open({ previous });
    assert.equal(((await store.update('there', increment)) as any).n, 2);
    assert.equal(await store.update('nowhere', increment), null);
    await store.destroy('there');
    assert.equal(await store.update('there', increment), null);
  });

  describe('with nothing changed', () => {
    it('writes nothing, whatever the order of keys and the form of the JSON', async () => {
      const store = await open();
      await store.set('a', plain({ user: 'ann', x: 1, y: { z: 1 } }));
      const sql = await sqlClient();
      await sql`update ${sql(table)} set data = '{ "y": {"z": 1.0},  "x": 1, "user": "ann" }'`;
      const before = await row();
      for (const change of [
        () => {},
        (stored: any) => stored,
        (stored: any) => ({ ...stored, none: undefined }),
        ({ x, ...others }: any) => ({ x, ...others, cookie: { ...others.cookie } }),
        (stored: any) => {
          stored.cookie.expires = new Date(stored.cookie.expires);
        },
      ]) {
        assert.deepEqual(await store.update('a', change), await store.get('a'));
      }
      assert.deepEqual(await row(), before);
    });

    it('moves no row to a newer key; a change does', async () => {
      await (await open({ secret: 'older' })).set('a', plain());
      const store = await open({ secret: ['newer', 'older'] });
      const before = await row();
      await store.update('a', () => {});
      assert.deepEqual(await row(), before);
      await store.update('a', increment);
      assert.notEqual((await row()).sid, before.sid);
      assert.equal((await data(await open({ secret: 'newer' }), 'a'))?.n, 1);
    });
  });

  describe('the expiry', () => {
    it('stays, and so does the cookie, unless `change` changes the cookie', async () => {
      const store = await open();
      await store.set('a', plain());
      const before = await row();
      await store.update('a', increment);
      const { expires_at, delete_after, cookie, cookie_expires } = await row();
      assert.deepEqual(
        { expires_at, delete_after, cookie, cookie_expires },
        {
          expires_at: before.expires_at,
          delete_after: before.delete_after,
          cookie: before.cookie,
          cookie_expires: before.cookie_expires,
        },
      );
    });

    for (const [name, change] of Object.entries<(cookie: any) => void>({
      maxAge: (cookie) => {
        cookie.maxAge = 10 * HOUR;
      },
      'expires, as a Date': (cookie) => {
        cookie.expires = new Date(Date.now() + 10 * HOUR);
      },
      'expires, as a text': (cookie) => {
        cookie.expires = new Date(Date.now() + 10 * HOUR).toISOString();
      },
    })) {
      it(`is what \`change\` sets it to by ${name}`, async () => {
        const store = await open();
        await store.set('a', generated(store, 'a', {}, HOUR));
        const updated: any = await store.update('a', ({ cookie }) => change(cookie));
        assert.equal(Math.round(maxAgeLeft(updated.cookie) / 60_000), 600);
        assert.equal(Math.round(updated.cookie.originalMaxAge / 60_000), 600);
        const stored = await loaded(store, 'a');
        assert.equal(Math.round((stored.cookie.maxAge as number) / 60_000), 600);
        assert(Math.abs((maxAgeOf(stored.cookie) as number) - 10 * HOUR) < 60_000);
        assert.equal(Math.round(((await row()).expires_at - Date.now()) / 60_000), 600);
      });
    }

    it('is `ttl` for a cookie that loses its own', async () => {
      const store = await open({ ttl: 7200 });
      await store.set('a', plain({}, HOUR));
      await store.update('a', ({ cookie }: any) => {
        cookie.maxAge = null;
      });
      assert.equal((await loaded(store, 'a')).cookie.maxAge, null);
      assert.equal(Math.round(((await row()).expires_at - Date.now()) / 60_000), 120);
    });

    it('ends with `maxLifetime`', async () => {
      const store = await open({ maxLifetime: 3600 });
      await store.set('a', plain());
      const updated: any = await store.update('a', ({ cookie }: any) => {
        cookie.maxAge = 10 * HOUR;
      });
      assert.equal(Math.round(maxAgeLeft(updated.cookie) / 60_000), 60);
    });
  });

  it('counts every change of many processes, and undoes nobody else’s', async () => {
    const [one, two] = [await open(), await open()];
    await one.set('a', plain({ user: 'ann' }));
    const request = await loaded(one, 'a');
    const slow = await loaded(two, 'a');
    const updates = Array.from({ length: 40 }, (_, n) => (n % 2 ? one : two).update('a', increment));
    request.cart = { pear: 1 };
    await Promise.all([...updates, one.set('a', request)]);
    slow.seen = true;
    await two.set('a', slow);
    assert.deepEqual(await data(one, 'a'), { user: 'ann', n: 40, cart: { pear: 1 }, seen: true });
  });

  it('counts every change of processes of their own', async () => {
    const store = await open();
    await store.set('a', plain());
    const uri = await postgresUri();
    const code = `
      import { PgStore } from './lib/index.js';
      const store = new PgStore({ uri: '${uri}', table: '${table}', autodelete: false, shards: ${SHARDS} });
      await Promise.all(Array.from({ length: 20 }, () => store.update('a', (stored) => { stored.n = (stored.n ?? 0) + 1 })));
      await store.close();`;
    const ended = await Promise.all([runNode(code), runNode(code)]);
    assert.deepEqual(
      ended.map(({ stderr }) => stderr),
      ['', ''],
    );
    assert.equal((await data(store, 'a'))?.n, 40);
  });

  it('has its place in the order of calls on the session', async () => {
    const store = await open();
    const answers = await Promise.all([
      store.update('a', increment),
      store.set('a', plain({ n: 1 })),
      store.update('a', increment),
      store.get('a'),
      store.destroy('a'),
      store.update('a', increment),
    ]);
    assert.deepEqual(
      answers.map((answer: any) => answer?.n ?? answer),
      [null, undefined, 2, 2, undefined, null],
    );
  });

  it('brings no destroyed session back', async () => {
    const [one, two] = [await open(), await open()];
    const sids = Array.from({ length: 30 }, (_, n) => `s${n}`);
    await Promise.all(sids.map((sid) => one.set(sid, plain())));
    await Promise.all(
      sids.flatMap((sid, n) => [
        one.update(sid, increment),
        two.update(sid, increment),
        (n % 2 ? one : two).destroy(sid),
        one.update(sid, increment),
        two.update(sid, increment),
      ]),
    );
    assert.deepEqual(await one.ids(), []);
  });

  it('waits for a row that another transaction has locked', async () => {
    const store = await open();
    await store.set('a', plain());
    const sql = await sqlClient();
    let calls = 0;
    const updating = sql.begin(async (transaction) => {
      await transaction`select from ${sql(table)} where sid = 'a' for update`;
      const update = store.update('a', (stored) => {
        calls++;
        increment(stored);
      });
      await until(() => calls > 0);
      return { update };
    });
    await (await updating).update;
    assert.equal(calls, 1);
    assert.equal((await data(store, 'a'))?.n, 1);
  });

  describe('an answer that was lost', () => {
    for (const fault of ['not sent', 'answer lost'] as const) {
      it(`counts once: ${fault}`, async () => {
        const { sql, lose } = losingAnswers(await sqlClient());
        const store = await open({ sql, retry: { attempts: 3, delay: 1 } });
        await store.set('a', plain());
        const retried = once(store, 'retry');
        lose({ kind: 'update', fault });
        assert.equal(((await store.update('a', increment)) as any).n, 1);
        await retried;
        assert.equal((await data(store, 'a'))?.n, 1);
      });
    }

    it('undoes nothing that another process saved meanwhile', async () => {
      const { sql, lose } = losingAnswers(await sqlClient());
      const store = await open({ sql, retry: { attempts: 3, delay: 1 } });
      await store.set('a', plain());
      const other = await open();
      const meanwhile = async () => {
        const request = await loaded(other, 'a');
        request.basket = 1;
        await other.set('a', request);
      };
      lose({ kind: 'update', fault: 'not sent', meanwhile });
      await store.update('a', increment);
      assert.deepEqual(await data(store, 'a'), { n: 1, basket: 1 });
    });
  });

  it('fails for a row that cannot be read, and leaves it', async () => {
    const store = await open();
    await store.set('a', plain());
    const sql = await sqlClient();
    await sql`update ${sql(table)} set data = '[1]'`;
    const told = once(store, 'unreadable');
    await assert.rejects(store.update('a', increment), {
      code: 'UNREADABLE',
      message: 'PgStore.update: the row cannot be read, so the session was not changed',
    });
    assert.deepEqual(await told, [handleOf('a'), 'the data is not an object']);
    assert.deepEqual((await row()).data, [1]);
  });

  it('works on encrypted data', async () => {
    const store = await open({ encryptionKey: 'k'.repeat(32), hashIds: true });
    await store.set('a', plain({ user: 'ann' }));
    await store.update('a', increment);
    assert.deepEqual(await data(store, 'a'), { user: 'ann', n: 1 });
    assert.equal(typeof (await row()).data, 'string');
  });

  it('changes whose session it is', async () => {
    const store = await open();
    await store.set('a', plain({ user: 'ann' }));
    await store.update('a', (stored: any) => {
      stored.user = 'bob';
    });
    assert.equal((await row()).user_id, 'bob');
  });

  it('batches: a thousand at once are few statements', async () => {
    const store = await open();
    const sids = Array.from({ length: 1000 }, (_, n) => `s${n}`);
    await Promise.all(sids.map((sid) => store.set(sid, plain())));
    let statements = 0;
    const count = (message: unknown) => {
      if ((message as StatementMessage).table === `public.${table}`) statements++;
    };
    subscribe('express-pg-store:statement', count);
    try {
      await Promise.all(sids.map((sid) => store.update(sid, increment)));
    } finally {
      unsubscribe('express-pg-store:statement', count);
    }
    assert(statements < 100, String(statements));
    assert.equal((await store.all()).filter((stored: any) => stored.n === 1).length, 1000);
  });

  describe('with bad input', () => {
    const own = new Error('thrown by the app');
    const cases: Record<string, [unknown, object | Error]> = {
      'no function': [5, { name: 'TypeError', message: 'PgStore.update: `change`: expected a function' }],
      'a promise': [
        async (stored: any) => {
          increment(stored);
          throw new Error('nobody awaits it');
        },
        { name: 'TypeError', message: /`change` returned a promise; it must be synchronous/ },
      ],
      null: [() => null, { name: 'TypeError', message: /returned null; expected a session, or nothing/ }],
      'a number': [(stored: any) => stored.n++, { name: 'TypeError', message: /returned a number/ }],
      'an array': [() => [1], { name: 'TypeError', message: /returned an array/ }],
      'a date': [() => new Date(), { name: 'TypeError', message: /not an object/ }],
      'a cookie that is no object': [
        (stored: any) => {
          stored.cookie = 'a cookie';
        },
        { code: 'INVALID_SESSION', message: /cookie is not an object/ },
      ],
      'a cookie that express-session could not send': [
        (stored: any) => {
          stored.cookie.sameSite = 'sometimes';
        },
        { name: 'TypeError', message: /`change` made a cookie that cannot be used: the cookie's `sameSite`/ },
      ],
      'a cookie for longer than JavaScript has dates': [
        (stored: any) => {
          stored.cookie.maxAge = Number.MAX_SAFE_INTEGER;
        },
        { name: 'TypeError', message: /`originalMaxAge` cannot be sent/ },
      ],
      'a cycle': [
        (stored: any) => {
          stored.self = stored;
        },
        { code: 'INVALID_SESSION', message: /circular|cyclic/i },
      ],
      'an error': [
        () => {
          throw own;
        },
        own,
      ],
    };
    for (const [name, [change, error]] of Object.entries(cases)) {
      it(`${name}: fails, writes nothing, and harms no neighbor`, async () => {
        const store = await open();
        for (const sid of ['a', 'b', 'c']) await store.set(sid, plain({ n: 0 }));
        const [before, failed, after] = await Promise.allSettled([
          store.update('b', increment),
          store.update('a', change as any),
          store.update('c', increment),
        ]);
        assert.equal(before.status, 'fulfilled');
        assert.equal(after.status, 'fulfilled');
        assert(failed.status === 'rejected');
        if (error instanceof Error) assert.equal(failed.reason, error);
        else {
          assert.throws(() => {
            throw failed.reason;
          }, error);
        }
        assert.equal((await data(store, 'a'))?.n, 0);
        assert.equal((await data(store, 'b'))?.n, 1);
      });
    }

    it('a session ID that is none', async () => {
      const store = await open();
      for (const sid of [undefined, 5, 'a\0']) {
        await assert.rejects(store.update(sid as string, increment), { code: 'INVALID_SID' });
      }
      await store.close();
      await assert.rejects(store.update('a', increment), { code: 'CLOSED' });
    });
  });
});

describe('updateSessionsOf', () => {
  let table: string;

  beforeEach(() => {
    table = freshTable();
  });
  afterEach(closeStores);

  const open = (options: PgStoreOptions = {}) => openStore({ table, user, ...options });
  const grant = (stored: any) => {
    stored.role = 'admin';
    increment(stored);
  };

  async function sessionsOfEve(store: PgStore, count: number): Promise<string[]> {
    const sids = Array.from({ length: count }, (_, n) => `e${n}`);
    await Promise.all(sids.map((sid, n) => store.set(sid, plain({ user: 'eve', own: n }))));
    return sids;
  }

  for (const [name, options] of Object.entries<PgStoreOptions>({
    'plain IDs': {},
    hashIds: { hashIds: true },
    'secret and encryptionKey': { secret: 's', encryptionKey: 'k'.repeat(32), prefix: 'p:' },
  })) {
    it(`changes each of a user’s sessions once, with ${name}`, async () => {
      const [store, other] = [await open(options), await open(options)];
      const sids = await sessionsOfEve(store, 250);
      await store.set('of ann', plain({ user: 'ann' }));
      const request = await loaded(other, 'e3');
      request.basket = 1;
      const [changed] = await Promise.all([store.updateSessionsOf('eve', grant), other.set('e3', request)]);
      assert.equal(changed, 250);
      const stored = await Promise.all(sids.map((sid) => data(other, sid)));
      for (const [own, one] of stored.entries()) {
        assert.deepEqual(one, { user: 'eve', own, role: 'admin', n: 1, ...(own === 3 && { basket: 1 }) });
      }
      assert.deepEqual(await data(store, 'of ann'), { user: 'ann' });
    });
  }

  it('loses nothing to a save of the same session in the same statement, with hashIds', async () => {
    const other = await open({ hashIds: true });
    await sessionsOfEve(other, 1);
    const request = await loaded(other, 'e0');
    request.basket = 1;
    let saving: Promise<void> | undefined;
    const sql = afterFirst(await sqlClient(), 'concat(version', async () => {
      saving = store.set('e0', request);
    });
    const store = await open({ hashIds: true, sql });
    assert.equal(await store.updateSessionsOf('eve', grant), 1);
    await saving;
    assert.deepEqual(await data(other, 'e0'), { user: 'eve', own: 0, role: 'admin', n: 1, basket: 1 });
  });

  it('counts the sessions that were changed', async () => {
    const store = await open();
    await sessionsOfEve(store, 3);
    assert.equal(
      await store.updateSessionsOf('eve', (stored: any) => {
        if (stored.own > 0) stored.role = 'admin';
      }),
      2,
    );
    assert.equal(await store.updateSessionsOf('nobody', grant), 0);
    assert.equal(await store.updateSessionsOf(7, grant), 0);
  });

  it('changes only sessions whose own data belong to the user, and none that has expired', async () => {
    const store = await open();
    await sessionsOfEve(store, 2);
    await store.set('of ann', plain({ user: 'ann' }));
    await store.set('broken', plain({ user: 'eve' }));
    await store.set('expired', plain({ user: 'eve' }, -1000));
    const sql = await sqlClient();
    await sql`update ${sql(table)} set user_id = 'eve' where sid = 'of ann'`;
    await sql`update ${sql(table)} set data = '[1]' where sid = 'broken'`;
    const told = once(store, 'unreadable');
    assert.equal(await store.updateSessionsOf('eve', grant), 2);
    assert.deepEqual(await told, [handleOf('broken'), 'the data is not an object']);
    assert.deepEqual(await data(store, 'of ann'), { user: 'ann' });
  });

  it('finds sessions that move to a newer secret’s key meanwhile, with hashIds', async () => {
    const older = await open({ hashIds: true, secret: 'older' });
    const sids = await sessionsOfEve(older, 3);
    const rotated = { hashIds: true, secret: ['newer', 'older'] };
    const other = await open(rotated);
    const request = await loaded(other, 'e1');
    request.basket = 1;
    // It moves after the statement that finds the user's rows, and before that which reads them.
    const sql = afterFirst(await sqlClient(), 'user_id = any', () => other.set('e1', request));
    const store = await open({ ...rotated, sql });
    assert.equal(await store.updateSessionsOf('eve', grant), 3);
    const stored = await Promise.all(sids.map((sid) => data(other, sid)));
    assert.deepEqual(
      stored.map((one) => one?.n),
      [1, 1, 1],
    );
  });

  it('reaches those in option `previous` once `takeOver` has taken them over', async () => {
    const previous = new session.MemoryStore();
    for (const sid of ['e0', 'e1']) previous.set(sid, plain({ user: 'eve' }) as any);
    const store = await open({ previous });
    await store.get('e0');
    assert.equal(await store.updateSessionsOf('eve', grant), 1);
    await store.takeOver();
    assert.equal(await store.updateSessionsOf('eve', grant), 2);
    assert.deepEqual([(await data(store, 'e0'))?.n, (await data(store, 'e1'))?.n], [2, 1]);
  });

  it('stops at a page with a locked row, whose other rows it changes; repeated, it changes the rest', async () => {
    const store = await open({ timeout: 1500 });
    await sessionsOfEve(store, 120);
    const sql = await sqlClient();
    const setRole = (stored: any) => {
      stored.role = 'admin';
    };
    // Of 120 rows in pages of 100, each set of 21 has one in the first page.
    const locked = Array.from({ length: 21 }, (_, n) => `e${n}`);
    await sql.begin(async (transaction) => {
      await transaction`select from ${sql(table)} where sid = any(${locked}) for update`;
      await assert.rejects(store.updateSessionsOf('eve', setRole), { code: 'TIMEOUT' });
    });
    const changed = (await store.sessionsOf('eve')).filter((one: any) => one.session.role === 'admin').length;
    assert(changed >= 79 && changed < 100, String(changed));
    assert.equal(await store.updateSessionsOf('eve', setRole), 120 - changed);
  });

  it('fails with what `change` throws, and writes nothing later', async () => {
    const store = await open();
    await sessionsOfEve(store, 3);
    const own = new Error('thrown by the app');
    const failing = store.updateSessionsOf('eve', () => {
      throw own;
    });
    await assert.rejects(failing, (error) => error === own);
    assert.deepEqual(await data(store, 'e0'), { user: 'eve', own: 0 });
    await assert.rejects(store.updateSessionsOf('eve', (async () => {}) as any), /returned a promise/);
    await assert.rejects(store.updateSessionsOf('eve', 5 as any), {
      name: 'TypeError',
      message: 'PgStore.updateSessionsOf: `change`: expected a function',
    });
    await assert.rejects(store.updateSessionsOf({} as any, grant), { code: 'INVALID_USER' });
  });
});
