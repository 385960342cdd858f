/** A session comes out of its row as it went in. */

import assert from 'node:assert/strict';
import session from 'express-session';
import fc from 'fast-check';
import { UnreadableRowError } from '../../lib/errors.js';
import { parseOptions } from '../../lib/options.js';
import { RowCodec } from '../../lib/session/row-codec.js';
import { decode, encode, sameCookie } from '../../lib/session/session-codec.js';
import { generated } from '../support/sessions.js';

const cookieOf = (maxAge: number | null) => generated(new session.MemoryStore(), 'sid', {}, maxAge).cookie;

describe('session-codec', () => {
  it('gives back any JSON object', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (data) => {
        const { cookie: _, ...rest } = data;
        const session = { ...rest, cookie: { path: '/' } };
        const { data: column, cookie } = encode(session);
        assert.equal(JSON.stringify(decode(column, cookie, 1000)), JSON.stringify(session));
      }),
    );
  });

  it('stores what JSON.stringify stores', () => {
    const value = { at: new Date(0), gone: undefined, fn() {}, nan: Number.NaN, own: { toJSON: () => 'mine' } };
    assert.equal(encode({ ...value, cookie: {} }).data, JSON.stringify(value));
    assert.equal(encode({ toJSON: () => ({ a: 1, cookie: {} }) }).data, '{"a":1}');
  });

  it('keeps characters that `jsonb` refuses', () => {
    const odd = { nul: '\0', half: '\ud800', key: { '\0': 1 }, cookie: { path: '/\0' } };
    const { data, cookie } = encode(odd);
    assert.deepEqual(decode(data, cookie, 1000), odd);
  });

  it('throws for what has no JSON form', () => {
    const circle: Record<string, unknown> = { cookie: {} };
    circle.self = circle;
    assert.throws(() => encode(circle), TypeError);
    assert.throws(() => encode({ big: 1n, cookie: {} }), TypeError);
  });

  it('refuses what is no session: no object, or without a cookie', () => {
    for (const value of [undefined, null, 5, 'text', [1, 2], () => {}, { toJSON() {} }]) {
      assert.throws(() => encode(value), { code: 'INVALID_SESSION', message: 'the session is not an object' });
    }
    for (const cookie of [undefined, null, 5, 'text', [1], { toJSON() {} }]) {
      assert.throws(() => encode({ cookie }), { code: 'INVALID_SESSION', message: 'the session has no cookie' });
    }
  });

  it('keeps the cookie apart from the data, and its expiry apart from the cookie', () => {
    const ofCookie = cookieOf(60_000);
    const encoded = encode({ user: 'ann', cookie: ofCookie });
    const { data, cookie } = encoded;
    assert.equal(data, '{"user":"ann"}');
    const { expires, originalMaxAge, path } = JSON.parse(cookie);
    assert.deepEqual([expires, path], [true, '/']);
    assert(originalMaxAge > 59_900 && originalMaxAge <= 60_000);
    assert.equal(encoded.expires, ofCookie.expires?.getTime());
  });

  it('puts the row’s expiry into the cookie that has one', () => {
    const { data, cookie } = encode({ cookie: cookieOf(60_000) });
    assert.equal((decode(data, cookie, 5000) as any).cookie.expires, '1970-01-01T00:00:05.000Z');
  });

  it('knows no expiry of a cookie without one', () => {
    for (const cookie of [cookieOf(null), { path: '/' }, { expires: 'never' }, { expires: null }]) {
      assert.equal(encode({ cookie }).expires, undefined);
    }
    const { data, cookie } = encode({ cookie: cookieOf(null) });
    assert.equal((decode(data, cookie, 5000) as any).cookie.expires, null);
  });

  it('reads the expiry of other frameworks’ cookies: a date, a text, only a `maxAge`', () => {
    const inAMinute = new Date(Date.now() + 60_000);
    for (const cookie of [{ expires: inAMinute }, { expires: inAMinute.toISOString() }]) {
      assert.equal(encode({ cookie }).expires, inAMinute.getTime());
    }
    const { expires } = encode({ cookie: { maxAge: 60_000 } });
    assert(expires && expires >= inAMinute.getTime() && expires <= Date.now() + 60_000);
  });

  it('keeps an expiry within what PostgreSQL and JavaScript can date', () => {
    assert.equal(encode({ cookie: { expires: new Date(-8.64e15) } }).expires, 0);
    assert.equal(encode({ cookie: { maxAge: Number.POSITIVE_INFINITY } }).expires, 8e15);
    const { data, cookie } = encode({ cookie: { expires: new Date(8.64e15) } });
    assert(!Number.isNaN(Date.parse((decode(data, cookie, Number.POSITIVE_INFINITY) as any).cookie.expires)));
  });

  it('finds rows unreadable without quoting them', () => {
    for (const [data, cookie] of [
      ['{"secret":', '{}'],
      ['', '{}'],
      ['{"a":1}', '{"secret'],
      ['["secret"]', '{}'],
      ['"secret"', '{}'],
      ['null', '{}'],
      ['{"secret":1}', null],
      ['{"secret":1}', '"secret"'],
      ['{"secret":1}', '["secret"]'],
    ] as const) {
      assert.throws(
        () => decode(data, cookie, 1000),
        (error: Error) => error instanceof UnreadableRowError && !error.message.includes('secret'),
      );
    }
  });

  it('seals nothing without a key', () => {
    const codec = new RowCodec(parseOptions({}, {}), () => {});
    assert.equal(codec.seal('key', '{"a":1}'), '{"a":1}');
    assert.equal(codec.open('key', '{"a":1}'), '{"a":1}');
  });

  it('sees through the millisecond that express-session takes off', () => {
    const text = (maxAge: number, more: object = {}) =>
      encode({ cookie: { ...(cookieOf(maxAge) as any).data, ...more } }).cookie;
    assert(sameCookie(text(60_000, { originalMaxAge: 60_000 }), text(60_000, { originalMaxAge: 59_999 })));
    assert(!sameCookie(text(60_000, { originalMaxAge: 60_000 }), text(60_000, { originalMaxAge: 30_000 })));
    assert(!sameCookie(text(60_000, { path: '/' }), text(60_000, { path: '/a' })));
    assert(!sameCookie(text(60_000), encode({ cookie: cookieOf(null) }).cookie));
  });
});
