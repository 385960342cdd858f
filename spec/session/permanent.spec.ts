/** With option `permanent` new sessions outlive the browser. */

import assert from 'node:assert/strict';
import session from 'express-session';
import { makePermanent } from '../../lib/session/permanent.js';
import { memoryWorld, openMemoryStore } from '../support/memory-world.js';
import { maxAgeOf } from '../support/sessions.js';

/** A session as the middleware generates it: it sets `generate` on its store. */
function newSession(store: session.Store, cookie: session.CookieOptions = {}): any {
  session({ store, secret: 's', resave: false, saveUninitialized: false, cookie });
  const req: any = { sessionStore: store };
  (store as any).generate(req);
  return req.session;
}

const permanentStore = (ttl: (session: any) => number) => {
  const store = new session.MemoryStore();
  makePermanent(store, ttl);
  return store;
};

describe('permanent', () => {
  afterEach(memoryWorld().closeStores);

  it('gives a new session whose cookie has no `maxAge` the `ttl` as its `maxAge`', () => {
    const { cookie } = newSession(permanentStore(() => 60_000));
    assert.equal(maxAgeOf(cookie), 60_000);
    assert(cookie.maxAge > 0 && cookie.maxAge <= 60_000);
    assert(cookie.expires instanceof Date);
  });

  it('leaves the app’s own `maxAge` alone', () => {
    const { originalMaxAge } = newSession(
      permanentStore(() => 60_000),
      { maxAge: 5000 },
    ).cookie;
    assert(originalMaxAge > 4900 && originalMaxAge <= 5000);
  });

  it('asks for each session', () => {
    const store = permanentStore((made) => (made instanceof (session as any).Session ? 7000 : 0));
    assert.equal(maxAgeOf(newSession(store).cookie), 7000);
  });

  it('is what the options `permanent` and `ttl` do', async () => {
    assert.equal(maxAgeOf(newSession(openMemoryStore({ permanent: true }).store).cookie), 86_400_000);
    assert.equal(maxAgeOf(newSession(openMemoryStore({ permanent: true, ttl: 60 }).store).cookie), 60_000);
    assert.equal(maxAgeOf(newSession(openMemoryStore({ permanent: true, ttl: () => 5 }).store).cookie), 5000);
    assert.equal(maxAgeOf(newSession(openMemoryStore({ ttl: 60 }).store).cookie), null);
  });
});
