/** A session comes out of its row as it went in. */

import assert from 'node:assert/strict';
import session from 'express-session';
import fc from 'fast-check';
import { UnreadableRowError } from '../../lib/errors.js';
import { type PgStoreOptions, parseOptions } from '../../lib/options.js';
import { Codec, type EncodedSession } from '../../lib/session/codec.js';
import type { StoredRow } from '../../lib/session/row.js';
import { generated } from '../support/sessions.js';

const DAY = 86_400_000;

const codecWith = (options: PgStoreOptions = {}) => new Codec(parseOptions(options, {}));
const codec = codecWith();
const cookieOf = (maxAge: number | null) => generated(new session.MemoryStore(), 'sid', {}, maxAge).cookie;

/** The row as it is read back so many milliseconds later, by a process whose clock agrees with the database's. */
function rowOf({ data, cookie, cookieExpires, expires }: EncodedSession, more: Partial<StoredRow> = {}): StoredRow {
  const expiresInMs = expires - Date.now();
  return { key: 'sid', data, cookie, cookieExpires, version: 1, expiresInMs, endsInMs: Infinity, ...more };
}

describe('codec', () => {
  it('gives back any JSON object', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (data) => {
        const { cookie: _, ...rest } = data;
        const given = { ...rest, cookie: { path: '/' } };
        assert.equal(JSON.stringify(codec.decode(rowOf(codec.encode(given))).session), JSON.stringify(given));
      }),
    );
  });

  it('stores what JSON.stringify stores', () => {
    const value = { at: new Date(0), gone: undefined, fn() {}, nan: Number.NaN, own: { toJSON: () => 'mine' } };
    assert.equal(codec.encode({ ...value, cookie: {} }).data, JSON.stringify(value));
    assert.equal(codec.encode({ toJSON: () => ({ a: 1, cookie: {} }) }).data, '{"a":1}');
  });

  it('keeps characters that `jsonb` refuses', () => {
    const odd = { nul: '\0', half: '\ud800', key: { '\0': 1 }, cookie: { note: '\0' } };
    assert.deepEqual(codec.decode(rowOf(codec.encode(odd))).session, odd);
  });

  it('throws for what has no JSON form', () => {
    const circle: Record<string, unknown> = { cookie: {} };
    circle.self = circle;
    assert.throws(() => codec.encode(circle), TypeError);
    assert.throws(() => codec.encode({ big: 1n, cookie: {} }), TypeError);
  });

  it('refuses what is not a session: not an object, or with a cookie that is not one', () => {
    for (const value of [undefined, null, 5, 'text', [1, 2], () => {}, { toJSON() {} }]) {
      assert.throws(() => codec.encode(value), { code: 'INVALID_SESSION', message: 'the session is not an object' });
    }
    for (const cookie of [5, 'text', [1]]) {
      const message = "the session's cookie is not an object";
      assert.throws(() => codec.encode({ cookie }), { code: 'INVALID_SESSION', message });
    }
  });

  it('keeps a session without a cookie for `ttl`, and gives it back without one', () => {
    for (const cookie of [undefined, null, { toJSON() {} }]) {
      const encoded = codecWith({ ttl: 60 }).encode({ n: 1, cookie });
      assert.deepEqual([encoded.cookie, encoded.cookieExpires], [null, null]);
      assert(Math.abs(encoded.expires - Date.now() - 60_000) < 1000);
      assert.deepEqual(codec.decode(rowOf(encoded)).session, { n: 1 });
    }
  });

  it('keeps the cookie apart from the data, and its expiry apart from the cookie', () => {
    const ofCookie = cookieOf(60_000);
    const encoded = codec.encode({ user: 'ann', cookie: ofCookie });
    assert.equal(encoded.data, '{"user":"ann"}');
    const { expires, originalMaxAge, path } = JSON.parse(String(encoded.cookie));
    assert.deepEqual([expires, path], [true, '/']);
    assert(originalMaxAge > 59_900 && originalMaxAge <= 60_000);
    assert.equal(encoded.expires, ofCookie.expires?.getTime());
    assert.equal(encoded.cookieExpires, encoded.expires);
  });

  it('gives back the expiry that was set where the clocks agree within 5 s, and else what is left', () => {
    const encoded = codec.encode({ cookie: cookieOf(60_000) });
    const expiryOf = (more: Partial<StoredRow>) => {
      const { cookie } = codec.decode(rowOf(encoded, more)).session;
      return Date.parse(String(cookie.expires));
    };
    for (const off of [-4900, 0, 4900]) {
      assert.equal(expiryOf({ expiresInMs: encoded.expires - Date.now() + off }), encoded.expires, `${off} ms`);
    }
    for (const expiresInMs of [3_600_000 + 60_000, 30_000, 1000]) {
      const early = Date.now() + expiresInMs;
      const found = expiryOf({ expiresInMs });
      assert(found >= early && found <= Date.now() + expiresInMs, `${found - early} ms`);
    }
    const early = Date.now() + 5000;
    const found = expiryOf({ cookieExpires: null, expiresInMs: 5000 });
    assert(found >= early && found <= Date.now() + 5000, 'a row that was written by hand');
  });

  it('gives a session whose cookie has no expiry the time of `ttl`, and its cookie none', () => {
    for (const cookie of [cookieOf(null), { path: '/' }, { expires: 'never' }, { expires: null }]) {
      const encoded = codec.encode({ cookie });
      assert.equal(encoded.cookieExpires, null);
      assert(Math.abs(encoded.expires - Date.now() - DAY) < 1000);
    }
    const { session } = codec.decode(rowOf(codec.encode({ cookie: cookieOf(null) })));
    assert.equal(session.cookie.expires, null);
  });

  it('asks a function in option `ttl` about the session, and refuses what is not a number of seconds', () => {
    const byUser = codecWith({ ttl: (session: any) => (session.user ? 60 : 5) });
    for (const [user, seconds] of [
      ['ann', 60],
      [undefined, 5],
    ] as const) {
      const { expires } = byUser.encode({ user, cookie: cookieOf(null) });
      assert(Math.abs(expires - Date.now() - seconds * 1000) < 1000);
    }
    for (const wrong of [undefined, null, '60', Number.NaN, -1, 1e12]) {
      const message = 'option `ttl` did not return a number of seconds';
      const broken = codecWith({ ttl: () => wrong as number });
      assert.throws(() => broken.encode({ cookie: {} }), { code: 'INVALID_SESSION', message });
    }
  });

  it('reads the expiry of other frameworks’ cookies: a date, a text, a number, only a `maxAge`', () => {
    const inAMinute = new Date(Date.now() + 60_000);
    for (const expires of [inAMinute, inAMinute.toISOString(), inAMinute.getTime()]) {
      assert.equal(codec.encode({ cookie: { expires } }).expires, inAMinute.getTime());
    }
    for (const expires of ['never', String(inAMinute.getTime()), true, {}, new Number(1), Number.NaN]) {
      const encoded = codec.encode({ cookie: { path: '/', expires } });
      assert(Math.abs(encoded.expires - Date.now() - DAY) < 1000, 'anything else is no expiry');
      assert.deepEqual(codec.decode(rowOf(encoded)).session.cookie, { path: '/', expires: null });
    }
    const { expires } = codec.encode({ cookie: { maxAge: 60_000 } });
    assert(expires >= inAMinute.getTime() && expires <= Date.now() + 60_000);
  });

  it('keeps an expiry within what PostgreSQL and JavaScript can date', () => {
    assert.equal(codec.encode({ cookie: { expires: new Date(-8.64e15) } }).expires, 0);
    assert.equal(codec.encode({ cookie: { maxAge: Number.POSITIVE_INFINITY } }).expires, 8e15);
    for (const expires of [9e15, Number.MAX_VALUE, Number.POSITIVE_INFINITY]) {
      assert.equal(codec.encode({ cookie: { expires } }).expires, 8e15);
    }
    assert.equal(codec.encode({ cookie: { expires: -1 } }).expires, 0);
    const encoded = codec.encode({ cookie: { expires: new Date(8.64e15) } });
    const { cookie } = codec.decode(rowOf(encoded, { expiresInMs: Number.POSITIVE_INFINITY })).session;
    assert(!Number.isNaN(Date.parse(String(cookie.expires))));
  });

  it('takes over a session of another store for as long as if it had just been touched', () => {
    const past = new Date(Date.now() - 1000).toISOString();
    const future = Date.now() + 90_000;
    for (const [cookie, lifetime] of [
      [{ originalMaxAge: 60_000, expires: past }, 60_000],
      [{ originalMaxAge: 60_000, expires: future }, 90_000],
      [{ originalMaxAge: null, expires: null }, DAY],
      [undefined, DAY],
    ] as const) {
      const { expires } = codec.encodeForeign({ cookie });
      assert(Math.abs(expires - Date.now() - lifetime) < 1000, JSON.stringify(cookie));
    }
  });

  it('finds rows unreadable without quoting them', () => {
    for (const [data, cookie] of [
      ['{"secret":', '{}'],
      ['', '{}'],
      ['{"a":1}', '{"secret'],
      ['["secret"]', '{}'],
      ['"secret"', '{}'],
      ['null', '{}'],
      ['{"secret":1}', '"secret"'],
      ['{"secret":1}', '["secret"]'],
    ] as const) {
      const row = { ...rowOf(codec.encode({ cookie: {} })), data, cookie };
      assert.throws(
        () => codec.decode(row),
        (error: Error) => error instanceof UnreadableRowError && !error.message.includes('secret'),
      );
    }
  });

  it('seals nothing without a key', () => {
    assert.equal(codec.seal('key', '{"a":1}'), '{"a":1}');
    assert.equal(codec.open({ key: 'key', data: '{"a":1}' }), '{"a":1}');
  });

  it('opens with each of its keys, and tells which rows are to be written again', () => {
    const [old, young] = ['an old encryption key', 'a young encryption key'];
    const data = '{"a":1}';
    const before = codecWith({ encryptionKey: old }).seal('key', data);
    const both = codecWith({ encryptionKey: [young, old] });
    assert.equal(both.open({ key: 'key', data: before }), data);
    const needsRekey = (row: { key: string; data: string }) => both.needsRekey(row, ['key', 'old key']);
    assert.equal(needsRekey({ key: 'key', data: before }), true);
    assert.equal(needsRekey({ key: 'key', data: both.seal('key', data) }), false);
    assert.equal(needsRekey({ key: 'old key', data: both.seal('old key', data) }), true);
    assert.equal(codec.needsRekey({ key: 'key', data }, ['key']), false);
    assert.equal(codec.needsRekey({ key: 'key', data: before }, ['key']), true, 'no longer to be encrypted');
  });

  it('says whose session it is without parsing what cannot have a user of Passport’s', () => {
    assert.equal(codec.userOf({ data: 'no JSON', cookie: null }), null);
    assert.equal(codec.userOf({ data: '{"passport":{"user":7}}', cookie: null }), '7');
    const ofAnn = codecWith({ user: ({ user }: any) => user });
    assert.equal(ofAnn.userOf({ data: '{"user":"ann"}', cookie: null }), 'ann');
  });
});
