/**
 * A `set` in the async context that follows a `get` of the same session ID saves what that `get` loaded, whatever
 * object it is given; everything else replaces the row, as before.
 */

import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { setImmediate as tick } from 'node:timers/promises';
import type { PgStore } from '../../lib/index.js';
import { closeStores, freshTable, openStore, sqlClient } from '../support/postgres.js';
import { data, loaded, plain } from '../support/sessions.js';

type Data = Record<string, any>;

describe('session objects of a framework', () => {
  let store: PgStore;
  /** Another process: its calls are outside of each context of `store`. */
  let elsewhere: PgStore;
  let dropped: string[];
  let table: string;

  beforeEach(async () => {
    table = freshTable();
    store = await openStore({ table });
    elsewhere = await openStore({ table });
    dropped = [];
    store.on('dropped', (_handle, call, why) => dropped.push(`${call}: ${why}`));
    await store.set('a', plain({ user: 'ann' }));
  });

  afterEach(closeStores);

  /** Runs `work` after the callback of a `get`, as a callback framework runs a request. */
  function afterGet<T>(sid: string, work: (session: Data) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      store.get(sid, (error, session) => {
        if (error) reject(error);
        else work(session as Data).then(resolve, reject);
      });
    });
  }

  /** Runs `work` as the rest of a request that ran through `store.scope`. */
  const inScope = async (work: () => Promise<void>): Promise<void> => store.scope({}, {}, work);

  /** Another request changes the session and saves it. */
  async function changeElsewhere(change: (session: Data) => void): Promise<void> {
    const session = await loaded(elsewhere, 'a');
    change(session);
    await elsewhere.set('a', session);
  }

  describe('after the callback of `get`', () => {
    it('an object of whatever kind is merged with what others saved', async () => {
      class Session {}
      const kinds: ((session: Data) => Data)[] = [
        (session) => ({ ...session }),
        (session) => structuredClone(session),
        (session) => Object.assign(new Session(), session),
        (session) => session,
      ];
      for (const [n, kind] of kinds.entries()) {
        await afterGet('a', async (session) => {
          await changeElsewhere((other) => (other[`theirs${n}`] = n));
          await store.set('a', Object.assign(kind(session), { [`ours${n}`]: n }) as any);
        });
      }
      const keys = kinds.flatMap((_, n) => [`ours${n}`, `theirs${n}`]);
      assert.deepEqual(Object.keys((await data(store, 'a')) as Data).sort(), [...keys, 'user'].sort());
    });

    it('a session that was destroyed meanwhile stays destroyed', async () => {
      await afterGet('a', async (session) => {
        await elsewhere.destroy('a');
        await store.set('a', { ...session, late: 1 } as any);
      });
      assert.equal(await store.get('a'), null);
      await tick();
      assert.deepEqual(dropped, ['set: destroyed']);
    });

    it('several saves of one request keep what others saved between them, and a key that it removes goes', async () => {
      await afterGet('a', async (session) => {
        await store.set('a', { ...session, first: 1 } as any);
        await changeElsewhere((other) => (other.theirs = 1));
        const { user, ...rest } = session;
        await store.set('a', { ...rest, first: 1, second: 2 } as any);
      });
      assert.deepEqual(await data(store, 'a'), { first: 1, second: 2, theirs: 1 });
    });

    it('a touch with whatever object does not bring back a cookie that another request has changed', async () => {
      await afterGet('a', async (session) => {
        await changeElsewhere((other) => (other.cookie.sameSite = 'strict'));
        await store.touch('a', structuredClone(session) as any);
      });
      assert.equal(((await store.get('a')) as Data).cookie.sameSite, 'strict');
    });

    it('an unchanged session writes nothing while `touchAfter` allows that', async () => {
      const kinds: unknown[] = [];
      const listen = (message: any) => message.table.endsWith(table) && kinds.push(message.kind);
      subscribe('express-pg-store:statement', listen);
      await afterGet('a', (session) => store.set('a', structuredClone(session) as any));
      unsubscribe('express-pg-store:statement', listen);
      assert.deepEqual(kinds, ['get']);
    });

    it('a session of another ID is a new one, and so is one after `destroy`', async () => {
      await store.set('b', plain({ old: true }));
      await afterGet('a', async (session) => {
        await store.set('b', { ...session, fresh: 1 } as any);
        await store.destroy('a');
        await store.set('a', { ...session, again: 1 } as any);
      });
      assert.deepEqual(await data(store, 'b'), { user: 'ann', fresh: 1 });
      assert.deepEqual(await data(store, 'a'), { user: 'ann', again: 1 });
      assert.deepEqual(dropped, []);
    });

    it('a `destroy` in a context within forgets the session outside, too', async () => {
      await store.set('b', plain());
      await afterGet('a', async (session) => {
        await afterGet('b', () => store.destroy('a'));
        await store.set('a', { ...session, again: 1 } as any);
      });
      assert.deepEqual(await data(store, 'a'), { user: 'ann', again: 1 });
    });

    it('a `get` of another session within hides nothing', async () => {
      await store.set('b', plain());
      await afterGet('a', async (session) => {
        await changeElsewhere((other) => (other.theirs = 1));
        await afterGet('b', () => store.set('a', { ...session, ours: 1 } as any));
      });
      assert.deepEqual(await data(store, 'a'), { user: 'ann', ours: 1, theirs: 1 });
    });

    it('a second look at the session hides nothing, awaited or not', async () => {
      await afterGet('a', async (session) => {
        await changeElsewhere((other) => (other.first = 1));
        await store.get('a');
        await afterGet('a', async () => {});
        await changeElsewhere((other) => (other.second = 1));
        await afterGet('a', () => store.set('a', { ...session, ours: 1 } as any));
      });
      assert.deepEqual(await data(store, 'a'), { user: 'ann', ours: 1, first: 1, second: 1 });
    });

    it('a second `get` counts where the session was made from it', async () => {
      await store.set('a', plain({ user: 'ann', old: 1 }));
      await afterGet('a', async () => {
        await changeElsewhere((other) => Object.assign(other, { first: 1, second: 2 }));
        const { old, ...reloaded } = await afterGet('a', async (session) => session);
        await changeElsewhere((other) => Object.assign(other, { second: 3, third: 3 }));
        await store.set('a', { ...reloaded, ours: 1 } as any);
        // A later save of the same request removes what it has added itself.
        await store.set('a', reloaded as any);
      });
      assert.deepEqual(await data(store, 'a'), { user: 'ann', first: 1, second: 3, third: 3 });
    });

    it('a copy of a second `get` that the app saves itself loses nothing by the save of the first session', async () => {
      await afterGet('a', async (session) => {
        const own = (await store.get('a')) as Data;
        await store.set('a', { ...own, counted: 1 } as any);
        await store.set('a', { ...session, ours: 1 } as any);
      });
      assert.deepEqual(await data(store, 'a'), { user: 'ann', counted: 1, ours: 1 });
    });

    it('a session that was loaded again loses the keys that it removes, those that it has saved itself, too', async () => {
      class Session {}
      for (const others of [{}, { theirs: 1 }]) {
        await afterGet('a', async () => {
          await changeElsewhere((other) => Object.assign(other, others));
          await afterGet('a', async (again) => {
            const reloaded: Data = Object.assign(new Session(), again, { ours: 1 });
            await store.set('a', reloaded as any);
            delete reloaded.ours;
            delete reloaded.theirs;
            await store.set('a', reloaded as any);
          });
        });
        assert.deepEqual(await data(store, 'a'), { user: 'ann' });
      }
    });

    it('a look at a session that was loaded again hides nothing of what came between', async () => {
      await afterGet('a', async () => {
        await changeElsewhere((other) => (other.first = 1));
        await afterGet('a', async (again) => {
          await changeElsewhere((other) => (other.second = 1));
          await store.get('a');
          await store.set('a', { ...again, ours: 1 } as any);
        });
      });
      assert.deepEqual(await data(store, 'a'), { user: 'ann', first: 1, second: 1, ours: 1 });
    });

    it('a second look undoes nothing where the request has made one of the changes itself', async () => {
      await store.set('a', plain({ user: 'ann', visits: 1 }));
      await afterGet('a', async (session) => {
        await changeElsewhere((other) => {
          delete other.user;
          other.visits = 2;
        });
        await afterGet('a', async () => {});
        await store.set('a', { ...session, visits: 2 } as any);
      });
      assert.deepEqual(await data(store, 'a'), { visits: 2 });
    });

    it('an `expires` that the request has not changed does not move the expiry back', async () => {
      const prolonged = Date.now() + 86_400_000;
      const changes: ((session: Data) => unknown)[] = [
        (session) => elsewhere.set('a', Object.assign(session, { theirs: 1 }) as any),
        (session) => elsewhere.touch('a', session as any),
      ];
      for (const change of changes) {
        await store.set('a', { cookie: { expires: Date.now() + 3_600_000 } } as any);
        await afterGet('a', async (session) => {
          const other = (await elsewhere.get('a')) as Data;
          other.cookie.expires = prolonged;
          await change(other);
          await store.set('a', { ...session, ours: 1 } as any);
        });
        const { cookie, ...saved } = (await store.get('a')) as Data;
        assert.equal(Date.parse(cookie.expires), prolonged);
        assert.equal(saved.ours, 1);
      }
    });

    it('an `expires` that the request has changed moves the expiry, and so does a lifetime', async () => {
      const inAnHour = Date.now() + 3_600_000;
      await store.set('a', { cookie: { expires: inAnHour } } as any);
      await afterGet('a', (session) => {
        session.cookie.expires = inAnHour + 1000;
        return store.set('a', { ...session, ours: 1 } as any);
      });
      assert.equal(Date.parse(((await store.get('a')) as Data).cookie.expires), inAnHour + 1000);
      await afterGet('a', (session) => store.set('a', { ...session, ours: 2 } as any, 60_000));
      const left = Date.parse(((await store.get('a')) as Data).cookie.expires) - Date.now();
      assert(left > 50_000 && left <= 60_000, `${left}`);
    });

    it('the very object of a second `get` is saved as what that one loaded, and takes nothing from the first', async () => {
      await afterGet('a', async (session) => {
        await changeElsewhere((other) => (other.theirs = 1));
        await afterGet('a', (own) => {
          delete own.theirs;
          return store.set('a', Object.assign(own, { counted: 1 }) as any);
        });
        await store.set('a', { ...session, ours: 1 } as any);
      });
      assert.deepEqual(await data(store, 'a'), { user: 'ann', counted: 1, ours: 1 });
    });

    it('after a failed `get` nothing is remembered', async () => {
      await elsewhere.destroy('a');
      await afterGet('a', () => store.set('a', plain({ fresh: 1 })));
      assert.deepEqual(await data(store, 'a'), { fresh: 1 });
    });
  });

  describe('outside of such a context', () => {
    it('an object that a script got and sets replaces the row', async () => {
      const session = (await store.get('a')) as Data;
      await changeElsewhere((other) => (other.theirs = 1));
      await store.set('a', { ...session, ours: 1 } as any);
      assert.deepEqual(await data(store, 'a'), { user: 'ann', ours: 1 });
      await changeElsewhere((other) => (other.theirs = 1));
      await store.set('a', session as any);
      assert.deepEqual(await data(store, 'a'), { user: 'ann' });
      await elsewhere.destroy('a');
      await store.set('a', session as any);
      assert.deepEqual(await data(store, 'a'), { user: 'ann' });
    });

    it('a touch with what `get` gave is skipped while `touchAfter` allows that', async () => {
      const session = (await store.get('a')) as Data;
      await changeElsewhere((other) => (other.cookie.sameSite = 'strict'));
      await store.touch('a', session as any);
      assert.equal(((await store.get('a')) as Data).cookie.sameSite, 'strict');
    });
  });

  describe('with express-session', () => {
    it('is off for good once a session was created: a plain object replaces the row', async () => {
      await loaded(store, 'a');
      await afterGet('a', async (session) => {
        await changeElsewhere((other) => (other.theirs = 1));
        await store.set('a', { ...session, ours: 1 } as any);
      });
      assert.deepEqual(await data(store, 'a'), { user: 'ann', ours: 1 });
    });

    it('is off, too, for what began before', async () => {
      await afterGet('a', async (session) => {
        await loaded(store, 'a');
        await changeElsewhere((other) => (other.theirs = 1));
        await store.set('a', { ...session, ours: 1 } as any);
      });
      assert.deepEqual(await data(store, 'a'), { user: 'ann', ours: 1 });
    });
  });

  describe('`store.scope`', () => {
    it('is for code that awaits `get`, or its callback, also with express-session', async () => {
      await loaded(store, 'a');
      const gets: (() => Promise<Data>)[] = [
        async () => (await store.get('a')) as Data,
        () => new Promise((resolve) => store.get('a', (_error, session) => resolve(session as Data))),
      ];
      for (const [n, get] of gets.entries()) {
        await inScope(async () => {
          const session = await get();
          await changeElsewhere((other) => (other[`theirs${n}`] = n));
          await store.set('a', { ...session, [`ours${n}`]: n } as any);
        });
      }
      assert.deepEqual(await data(store, 'a'), { user: 'ann', ours0: 0, theirs0: 0, ours1: 1, theirs1: 1 });
    });

    it('a logout is final', async () => {
      await inScope(async () => {
        const session = (await store.get('a')) as Data;
        await elsewhere.destroy('a');
        await store.set('a', { ...session } as any);
      });
      assert.equal(await store.get('a'), null);
    });

    it('two requests share nothing', async () => {
      let session: Data = {};
      await inScope(async () => {
        session = (await store.get('a')) as Data;
      });
      await changeElsewhere((other) => (other.theirs = 1));
      await inScope(() => store.set('a', { ...session, ours: 1 } as any));
      assert.deepEqual(await data(store, 'a'), { user: 'ann', ours: 1 });
    });

    it('is for listeners of the request and the response, too, of whichever scope is the last', async () => {
      const server = http.createServer((req, res) => {
        const load = async () => {
          const session = await store.get('a');
          let body = '';
          isLoaded();
          req.on('data', (part) => (body += part));
          req.on('end', async () => {
            await changeElsewhere((other) => (other.theirs = body));
            await store.set('a', { ...session, ours: body } as any);
            res.writeHead(200).flushHeaders();
          });
          // The client goes away.
          res.on('close', async () => {
            await changeElsewhere((other) => (other.afterwards = 1));
            await store.set('a', { ...session, ours: 'closed' } as any).then(finish);
          });
        };
        // Fastify passes objects of its own, and Express Node's.
        store.scope({ raw: req }, { raw: res }, () => store.scope(req, res, load));
      });
      let isLoaded = () => {};
      let finish = () => {};
      const loadedOnce = new Promise<void>((resolve) => (isLoaded = resolve));
      const finished = new Promise<void>((resolve) => (finish = resolve));
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      try {
        const { port } = server.address() as AddressInfo;
        const request = http.request({ port, host: '127.0.0.1', method: 'POST', agent: false });
        request.on('response', () => request.destroy());
        request.flushHeaders();
        // The body arrives when the handler already waits for it, so its events come from the connection.
        await loadedOnce;
        request.end('text');
        await finished;
      } finally {
        server.close();
      }
      assert.deepEqual(await data(store, 'a'), { user: 'ann', theirs: 'text', ours: 'closed', afterwards: 1 });
    });

    it('gives what the rest of the request returns, so that Koa can await it', () => {
      assert.equal(
        store.scope({}, {}, () => 'rest'),
        'rest',
      );
    });
  });

  it('two requests on one connection share nothing, one after the other and pipelined', async () => {
    const server = http.createServer((req, res) => {
      if (req.url === '/get') {
        store.get('a', () => res.end('got'));
        return;
      }
      // Not in any context: it replaces the session that the request before it has loaded.
      store.set('a', plain({ replaced: req.url }), () => res.end('set'));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    try {
      for (const isPipelined of [false, true]) {
        await elsewhere.set('a', plain({ user: 'ann' }));
        const socket = net.connect(port, '127.0.0.1');
        let answers = '';
        socket.on('data', (part) => (answers += part));
        const answered = async (text: string) => {
          while (!answers.includes(text)) await tick();
        };
        const request = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
        if (isPipelined) {
          socket.write(request('/get') + request('/set'));
        } else {
          socket.write(request('/get'));
          await answered('got');
          await changeElsewhere((other) => (other.theirs = 1));
          socket.write(request('/set'));
        }
        await answered('set');
        socket.destroy();
        assert.deepEqual(await data(store, 'a'), { replaced: '/set' });
      }
    } finally {
      server.close();
    }
  });

  it('a lifetime in the place of the callback of `set` counts, as Koa’s middlewares pass one', async () => {
    await store.set('a', { user: 'ann' }, 3_600_000);
    const sql = await sqlClient();
    const [row] =
      await sql`select cookie, expires_at - now() between '59 min' and '1 h' as "isAnHour" from ${sql(table)}`;
    assert.deepEqual({ ...row }, { cookie: null, isAnHour: true });
    await store.set('a', plain({}, 60_000), 0);
    assert.equal(await store.get('a'), null);
    assert.throws(() => store.set('a', plain(), Number.NaN), TypeError);
    assert.throws(() => store.set('a', plain(), -1), TypeError);
  });
});
