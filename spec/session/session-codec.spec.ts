/** Does a session come out of its row as it went in? */

import assert from 'node:assert/strict';
import session from 'express-session';
import fc from 'fast-check';
import { UnreadableRowError } from '../../lib/errors.js';
import { decode, encode, open, sameCookie, seal } from '../../lib/session/session-codec.js';
import { generated } from '../support/sessions.js';

const cookieOf = (maxAge: number | null) => generated(new session.MemoryStore(), 'sid', {}, maxAge).cookie;

describe('session-codec', () => {
  it('gives back any JSON object', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (data) => {
        const { cookie: _, ...rest } = data;
        const { data: column, cookie } = encode(rest);
        assert.equal(cookie, null);
        assert.equal(JSON.stringify(decode(column, cookie, 1000)), JSON.stringify(rest));
      }),
    );
  });

  it('stores what JSON.stringify stores', () => {
    const value = { at: new Date(0), gone: undefined, fn() {}, nan: Number.NaN, own: { toJSON: () => 'mine' } };
    assert.equal(encode(value).data, JSON.stringify(value));
    assert.equal(encode({ toJSON: () => ({ a: 1 }) }).data, '{"a":1}');
    for (const scalar of [null, 5, 'text', [1, 2]]) {
      const { data, cookie } = encode(scalar);
      assert.deepEqual(decode(data, cookie, 1000), scalar);
    }
  });

  it('keeps characters that `jsonb` refuses', () => {
    const odd = { nul: '\0', half: '\ud800', key: { '\0': 1 } };
    assert.deepEqual(decode(encode(odd).data, null, 1000), odd);
  });

  it('throws for what has no JSON form', () => {
    const circle: Record<string, unknown> = {};
    circle.self = circle;
    assert.throws(() => encode(circle), TypeError);
    assert.throws(() => encode({ big: 1n }), TypeError);
    assert.throws(() => encode(undefined), { code: 'INVALID_SESSION' });
    assert.throws(() => encode(() => {}), { code: 'INVALID_SESSION' });
  });

  it('keeps the cookie apart from the data, and its expiry apart from the cookie', () => {
    const { data, cookie, expiresIn } = encode({ user: 'ann', cookie: cookieOf(60_000) });
    assert.equal(data, '{"user":"ann"}');
    const { expires, originalMaxAge, path } = JSON.parse(cookie as string);
    assert.deepEqual([expires, path], [true, '/']);
    assert(originalMaxAge > 59_900 && originalMaxAge <= 60_000);
    assert(expiresIn !== undefined && expiresIn > 0 && expiresIn <= 60_000);
  });

  it('makes the expiry anew from the milliseconds left', () => {
    const { data, cookie } = encode({ cookie: cookieOf(60_000) });
    const before = Date.now();
    const { expires } = (decode(data, cookie, 5000) as any).cookie;
    assert(Date.parse(expires) >= before + 5000 && Date.parse(expires) <= Date.now() + 5000);
  });

  it('knows no expiry of a cookie without one', () => {
    for (const cookie of [
      cookieOf(null),
      { path: '/' },
      { expires: 'never' },
      { expires: null },
      undefined,
      null,
      'x',
    ]) {
      assert.equal(encode({ cookie }).expiresIn, undefined);
    }
    const { data, cookie } = encode({ cookie: cookieOf(null) });
    assert.equal((decode(data, cookie, 5000) as any).cookie.expires, null);
  });

  it('reads the expiry of other frameworks’ cookies: a date, a text, only a `maxAge`', () => {
    const inAMinute = new Date(Date.now() + 60_000);
    for (const cookie of [{ expires: inAMinute }, { expires: inAMinute.toISOString() }, { maxAge: 60_000 }]) {
      const { expiresIn } = encode({ cookie });
      assert(expiresIn !== undefined && expiresIn > 0 && expiresIn <= 60_000, JSON.stringify(cookie));
    }
  });

  it('keeps an expiry within what PostgreSQL and JavaScript can date', () => {
    assert.equal(encode({ cookie: { expires: new Date(0) } }).expiresIn, 0);
    assert.equal(encode({ cookie: { maxAge: Number.POSITIVE_INFINITY } }).expiresIn, 8e15);
    const { data, cookie } = encode({ cookie: { expires: new Date(8.64e15) } });
    assert(!Number.isNaN(Date.parse((decode(data, cookie, 8e15) as any).cookie.expires)));
  });

  it('finds rows unreadable without quoting them', () => {
    for (const [data, cookie] of [
      ['{"secret":', null],
      ['', null],
      ['{"a":1}', '{"secret'],
      ['["secret"]', '{}'],
      ['"secret"', '{}'],
    ] as const) {
      assert.throws(
        () => decode(data, cookie, 1000),
        (error: Error) => error instanceof UnreadableRowError && !error.message.includes('secret'),
      );
    }
  });

  it('seals nothing without a key', () => {
    assert.equal(seal(undefined, 'key', '{"a":1}'), '{"a":1}');
    assert.equal(open(undefined, false, 'key', '{"a":1}'), '{"a":1}');
  });

  it('sees through the millisecond that express-session takes off', () => {
    const text = (maxAge: number, more: object = {}) =>
      encode({ cookie: { ...(cookieOf(maxAge) as any).data, ...more } }).cookie;
    assert(sameCookie(text(60_000, { originalMaxAge: 60_000 }), text(60_000, { originalMaxAge: 59_999 })));
    assert(!sameCookie(text(60_000, { originalMaxAge: 60_000 }), text(60_000, { originalMaxAge: 30_000 })));
    assert(!sameCookie(text(60_000, { path: '/' }), text(60_000, { path: '/a' })));
    assert(!sameCookie(text(60_000), encode({ cookie: cookieOf(null) }).cookie));
    assert(!sameCookie(null, text(60_000)));
    assert(sameCookie(null, null));
  });
});
