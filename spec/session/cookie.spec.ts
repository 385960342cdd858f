/** Cookies are compared and merged attribute by attribute. */

import assert from 'node:assert/strict';
import session from 'express-session';
import { parseOptions } from '../../lib/options.js';
import { Codec } from '../../lib/session/codec.js';
import { hasSameLifetime, isSameCookie, mergeCookies } from '../../lib/session/cookie.js';
import { generated } from '../support/sessions.js';

const codec = new Codec(parseOptions({}, {}));

/** The column `cookie` of a session with this `maxAge` and these attributes. */
function cookie(maxAge: number | null, attributes: object = {}): string | null {
  const made = generated(new session.MemoryStore(), 'sid', {}, maxAge).cookie as any;
  return codec.encode({ cookie: { ...made.data, ...(maxAge && { originalMaxAge: maxAge }), ...attributes } }).cookie;
}

describe('cookie', () => {
  it('is the same in spite of the millisecond that express-session takes off', () => {
    assert(isSameCookie(cookie(60_000), cookie(60_000, { originalMaxAge: 59_999 })));
    assert(!isSameCookie(cookie(60_000), cookie(30_000)));
    assert(!isSameCookie(cookie(60_000), cookie(60_000, { path: '/a' })));
    assert(!isSameCookie(cookie(60_000), cookie(null)));
    assert(isSameCookie(null, null));
    assert(!isSameCookie(null, cookie(60_000)));
    assert(!isSameCookie(cookie(60_000), null));
  });

  it('is the same whatever @fastify/session notes in `originalExpires`', () => {
    const noted = (originalExpires?: string) => cookie(60_000, { originalExpires, path: '/a' });
    const [never, one, other] = [noted(), noted('2030-01-01'), noted('2030-01-02')];
    assert(isSameCookie(one, other));
    assert(isSameCookie(never, other));
    assert(!isSameCookie(one, cookie(60_000, { originalExpires: '2030-01-01', path: '/b' })));
    const theirs = cookie(30_000, { originalExpires: '2030-01-03', path: '/a' });
    assert.equal(mergeCookies(one, other, theirs), theirs);
    const merged = JSON.parse(String(mergeCookies(never, cookie(60_000, { originalExpires: '2030-01-01' }), theirs)));
    assert.deepEqual([merged.path, merged.originalMaxAge], ['/', 30_000]);
  });

  it('keeps the attributes that either side changed', () => {
    const merged = (ours: object, theirs: object) =>
      JSON.parse(String(mergeCookies(cookie(60_000), cookie(60_000, ours), cookie(60_000, theirs))));
    const { path, sameSite } = merged({ path: '/a' }, { sameSite: 'lax' });
    assert.deepEqual([path, sameSite], ['/a', 'lax']);
    assert.equal(merged({ path: '/a' }, { path: '/b' }).path, '/a', 'the later save wins');
    const lifetime = merged({ path: '/a', originalMaxAge: 59_999 }, { originalMaxAge: 30_000 });
    assert.deepEqual([lifetime.path, lifetime.originalMaxAge], ['/a', 30_000], 'a millisecond is not a change');
  });

  it('is that of the side that changed it alone, one that was removed too', () => {
    const [base, changed] = [cookie(60_000), cookie(60_000, { path: '/a' })];
    assert.equal(mergeCookies(base, base, changed), changed);
    assert.equal(mergeCookies(base, changed, base), changed);
    assert.equal(mergeCookies(base, null, base), null);
    assert.equal(mergeCookies(base, base, null), null);
    assert.equal(mergeCookies(null, changed, null), changed);
  });

  it('gives the same lifetime as another with its `maxAge`, or both without an expiry', () => {
    assert(hasSameLifetime(cookie(60_000), cookie(60_000, { path: '/a', originalMaxAge: 59_995 })));
    assert(!hasSameLifetime(cookie(60_000), cookie(30_000)));
    assert(!hasSameLifetime(cookie(60_000), cookie(null)));
    assert(hasSameLifetime(cookie(null), cookie(null, { path: '/a' })));
    assert(hasSameLifetime(null, null));
  });
});
