/** An app sees no difference between PgStore and express-session's own MemoryStore. */

import assert from 'node:assert/strict';
import session, { type Store } from 'express-session';
import { closeStores, openStore } from '../support/postgres.js';
import { generated, maxAgeOf, plain } from '../support/sessions.js';

/** One call, as express-session does it; resolves with what the callback got. */
function call(store: Store, method: string, ...args: unknown[]): Promise<any> {
  return new Promise((resolve, reject) => {
    (store as any)[method](...args, (error: unknown, result: unknown) => (error ? reject(error) : resolve(result)));
  });
}

/**
 * What `get` answers, comparable: no session is `null`, an expiry only says how it is written, and
 * of `originalMaxAge` express-session sometimes takes a millisecond off.
 */
async function get(store: Store, sid: string): Promise<unknown> {
  return comparable(await call(store, 'get', sid));
}

function comparable(found: any): unknown {
  if (!found) return null;
  if (!found.cookie) return found;
  const { expires, originalMaxAge: _, ...cookie } = found.cookie;
  const written = typeof expires === 'string' ? 'an ISO date' : expires;
  if (typeof expires === 'string') assert.equal(new Date(expires).toISOString(), expires);
  return { ...found, cookie: { ...cookie, expires: written, lifetime: maxAgeOf(found.cookie) } };
}

/**
 * All unexpired sessions by session ID; MemoryStore answers with an object, PgStore with an array.
 */
async function all(store: Store): Promise<unknown> {
  const found = Object.entries((await call(store, 'all')) as object).map(([key, { id = key, ...found }]) => [
    id,
    found,
  ]);
  return Object.fromEntries(found.map(([id, found]) => [id, comparable(found)]).sort());
}

const load = (store: Store, sid: string) => call(store, 'load', sid);

/** Each case says what it saw; both stores must have shown it the same. */
const cases: Record<string, (store: Store) => Promise<unknown>> = {
  'an unknown session is none, and no error': async (store) => [await get(store, 'nobody'), await all(store)],

  'a session comes back as it was set': async (store) => {
    await call(store, 'set', 'a', generated(store, 'a', { user: 'ann', cart: [{ id: 1 }], none: null, yes: true }));
    return get(store, 'a');
  },

  'a session can be set without a callback': async (store) => {
    store.set('a', generated(store, 'a', { x: 1 }));
    return get(store, 'a');
  },

  'a second set replaces the first': async (store) => {
    await call(store, 'set', 'a', plain({ x: 1, y: 1 }));
    await call(store, 'set', 'a', plain({ x: 2 }));
    return get(store, 'a');
  },

  'odd values are stored as JSON has them': async (store) => {
    const odd = {
      date: new Date(0),
      gone: undefined,
      nan: Number.NaN,
      list: [undefined, () => {}],
      nul: 'a\0b',
      half: '\ud83d',
      'key\0': 1,
      emoji: '💥',
      quote: `'";--\\`,
      array: '{"a",NULL}',
      json: '{"__proto__":{}}',
      deep: { a: { b: { c: [[[1]]] } } },
      big: 1e300,
      empty: {},
    };
    await call(store, 'set', 'a', plain(odd));
    return get(store, 'a');
  },

  'many odd sessions at once stay apart': async (store) => {
    const odd = ['a\0b', '\ud83d', '",NULL,"', '],[', '\\', '{}', 'null', '\u2028', '"', "'", '', '💥'];
    // With the number in the key: JSON.parse of Node.js 24 may take the key `"` for the key `\` of
    // an earlier object.
    await Promise.all(odd.map((text, n) => call(store, 'set', `s${n}`, plain({ text, [text + n]: n }))));
    return Promise.all(odd.map((_, n) => get(store, `s${n}`)));
  },

  'odd session IDs are IDs like any other': async (store) => {
    const odd = [
      '%',
      '_',
      "'",
      '"',
      '\\',
      ' ',
      'a,b',
      '{}',
      'NULL',
      '💥',
      'ä',
      "'; drop table sessions; --",
      'x'.repeat(2000),
    ];
    await Promise.all(odd.map((sid, n) => call(store, 'set', sid, plain({ n }))));
    await Promise.all(odd.slice(5).map((sid) => call(store, 'destroy', sid)));
    return [await Promise.all(odd.map((sid) => get(store, sid))), await call(store, 'length')];
  },

  'keys of Object.prototype are data': async (store) => {
    await call(
      store,
      'set',
      'a',
      JSON.parse('{"__proto__":{"x":1},"constructor":1,"hasOwnProperty":2,"toString":3,"cookie":{}}'),
    );
    const found = await call(store, 'get', 'a');
    return [JSON.stringify(found), ({} as any).x];
  },

  'a large session fits': async (store) => {
    await call(store, 'set', 'a', plain({ text: 'ä'.repeat(3_000_000) }));
    return ((await get(store, 'a')) as any).text.length;
  },

  'later changes of the object are not stored': async (store) => {
    const data = plain({ cart: ['one'] }) as any;
    const saved = call(store, 'set', 'a', data);
    data.cart.push('two');
    await saved;
    const found = await call(store, 'get', 'a');
    found.cart.push('three');
    return get(store, 'a');
  },

  'an expired session is none': async (store) => {
    await call(store, 'set', 'expired', plain({}, 0));
    await call(store, 'set', 'past', { cookie: { expires: new Date(0) } });
    await call(store, 'set', 'unexpired', plain());
    return [await get(store, 'expired'), await get(store, 'past'), await all(store), await call(store, 'length')];
  },

  'a set revives an expired session': async (store) => {
    await call(store, 'set', 'a', plain({ old: 1 }, 0));
    await call(store, 'set', 'a', plain({ new: 1 }));
    return get(store, 'a');
  },

  'a session without an expiry lives': async (store) => {
    await call(store, 'set', 'a', generated(store, 'a', { x: 1 }, null));
    return [await get(store, 'a'), await all(store)];
  },

  'destroy removes a session, and nothing where there is none': async (store) => {
    await call(store, 'set', 'a', plain());
    await call(store, 'set', 'b', plain());
    await call(store, 'destroy', 'a');
    await call(store, 'destroy', 'nobody');
    return all(store);
  },

  'touch changes the cookie and nothing else': async (store) => {
    await call(store, 'set', 'a', plain({ x: 1 }, 60_000));
    await call(store, 'touch', 'a', plain({ x: 2, y: 2 }, 120_000));
    return get(store, 'a');
  },

  'touch creates no session': async (store) => {
    await call(store, 'touch', 'nobody', plain());
    await call(store, 'set', 'expired', plain({}, 0));
    await call(store, 'touch', 'expired', plain());
    return all(store);
  },

  'a touch may take the expiry away, and give one': async (store) => {
    await call(store, 'set', 'a', plain({}, 60_000));
    await call(store, 'touch', 'a', generated(store, 'a', {}, null));
    await call(store, 'set', 'b', generated(store, 'b', {}, null));
    await call(store, 'touch', 'b', generated(store, 'b', {}, 60_000));
    return all(store);
  },

  'all, length and clear see every session': async (store) => {
    for (const sid of ['a', 'b', 'c']) await call(store, 'set', sid, plain({ sid }));
    const before = [await all(store), await call(store, 'length')];
    await call(store, 'clear');
    return [before, await all(store), await call(store, 'length'), await get(store, 'a')];
  },

  'calls take effect in the order in which they are made': async (store) => {
    store.set('a', plain({ x: 1 }));
    store.set('a', plain({ x: 2 }));
    store.set('b', plain());
    store.destroy('b');
    store.destroy('c');
    store.set('c', plain({ x: 3 }));
    return [await get(store, 'a'), await get(store, 'b'), await get(store, 'c')];
  },

  'a loaded session can be saved, touched, reloaded and destroyed': async (store) => {
    await call(store, 'set', 'a', generated(store, 'a', { list: [1] }));
    const one = await load(store, 'a');
    one.list.push(2);
    await new Promise((resolve) => one.save(resolve));
    const two = await load(store, 'a');
    two.cookie.maxAge = 120_000;
    await call(store, 'touch', 'a', two);
    const saved = await get(store, 'a');
    await new Promise((resolve) => two.destroy(resolve));
    return [saved, await get(store, 'a'), (await load(store, 'a')) ?? null];
  },

  'a loaded session is a Session with a Cookie': async (store) => {
    await call(store, 'set', 'a', generated(store, 'a', { x: 1 }));
    const loaded = await load(store, 'a');
    return [loaded instanceof (session as any).Session, loaded.cookie instanceof session.Cookie, loaded.id, loaded.x];
  },

  'load of an unknown session is no error': async (store) => (await load(store, 'nobody')) ?? null,

  'a cycle cannot be stored': async (store) => {
    const circle: any = plain();
    circle.self = circle;
    // MemoryStore throws, PgStore tells the callback.
    const error = await (async () => call(store, 'set', 'a', circle))().catch((error) => error);
    return [error instanceof Error, /circular/.test(error.message), await get(store, 'a')];
  },
};

describe('contract', () => {
  afterEach(closeStores);

  for (const [name, observe] of Object.entries(cases)) {
    it(name, async () => {
      const expected = await observe(new session.MemoryStore());
      assert.deepEqual(await observe(await openStore()), expected);
      assert.deepEqual(await observe(await openStore({ prefix: 'app:', secret: 's', touchAfter: 0 })), expected);
    });
  }

  it('answers later, as MemoryStore does, never in the same tick', async () => {
    const seen: string[] = [];
    for (const store of [new session.MemoryStore(), await openStore()]) {
      for (const method of ['get', 'set', 'touch', 'destroy', 'all', 'length', 'clear']) {
        const args = { get: ['a'], set: ['a', plain()], touch: ['a', plain()], destroy: ['a'] }[method] ?? [];
        let isLater = false;
        const answered = call(store, method, ...args).then(() => assert(isLater, method));
        const spied = new Promise<void>((resolve) => {
          (store as any)[method](...args, () => {
            seen.push(`${method} ${isLater}`);
            resolve();
          });
        });
        isLater = true;
        await Promise.all([answered, spied]);
      }
    }
    assert.equal(seen.length, 14);
    assert(seen.every((answer) => answer.endsWith(' true')));
  });
});
