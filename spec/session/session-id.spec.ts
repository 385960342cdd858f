/** Each session ID has its row, and nobody else's row counts as one. */

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { sign } from 'cookie-signature';
import fc from 'fast-check';
import { handleOf, SessionIds, validateSessionId } from '../../lib/session/session-id.js';

const text = () => fc.string({ unit: 'binary' });

describe('session-id', () => {
  it('finds the session ID of every key it generates', () => {
    fc.assert(
      fc.property(text(), text(), fc.array(fc.string({ minLength: 1 }), { maxLength: 3 }), (prefix, sid, secrets) => {
        const ids = new SessionIds({ prefix, secrets, hashIds: false });
        for (const key of ids.rowKeysFor(sid)) assert.equal(ids.sessionIdFrom(key), sid);
      }),
    );
  });

  it('signs with the newest secret first', () => {
    const rowKeysFor = (...secrets: string[]) =>
      new SessionIds({ prefix: 'app:', secrets, hashIds: false }).rowKeysFor('abc');
    assert.match(rowKeysFor('new')[0], /^app:abc\.[\w+/]{43}$/);
    assert.deepEqual(rowKeysFor('new', 'old'), [...rowKeysFor('new'), ...rowKeysFor('old')]);
    assert.notEqual(rowKeysFor('new')[0], rowKeysFor('old')[0]);
  });

  it('signs rows unlike cookies, and each prefix unlike the others', () => {
    const signatureOf = (prefix: string) =>
      new SessionIds({ prefix, secrets: ['s'], hashIds: false }).rowKeysFor('abc')[0].slice(prefix.length);
    assert.notEqual(signatureOf(''), sign('abc', 's'), 'express-session would take it for a cookie of its own');
    assert.notEqual(signatureOf('one:'), signatureOf('two:'));
  });

  it('knows no session ID of a row that was not signed with one of the secrets', () => {
    const ids = new SessionIds({ prefix: 'app:', secrets: ['new', 'old'], hashIds: false });
    const stranger = new SessionIds({ prefix: 'app:', secrets: ['stranger'], hashIds: false });
    const [genuine] = ids.rowKeysFor('abc');
    for (const key of [
      'app:abc',
      'app:abc.',
      'app:',
      stranger.rowKeysFor('abc')[0],
      `${genuine}x`,
      genuine.slice(0, -1),
    ]) {
      assert.equal(ids.sessionIdFrom(key), undefined, key);
    }
    assert.equal(ids.sessionIdFrom(genuine.slice('app:'.length)), undefined, 'another prefix');
  });

  it('keeps only a hash where it should', () => {
    const plain = new SessionIds({ prefix: 'p:', secrets: [], hashIds: true });
    assert.deepEqual(plain.rowKeysFor('abc'), [`p:${createHash('sha256').update('abc').digest('base64url')}`]);
    const keyed = new SessionIds({ prefix: 'p:', secrets: ['s'], hashIds: true });
    // With the secret itself it would be the signature of express-session's cookie.
    const key = createHmac('sha256', 's').update('express-pg-store row key\0p:').digest();
    assert.deepEqual(keyed.rowKeysFor('abc'), [`p:${createHmac('sha256', key).update('abc').digest('base64url')}`]);
    for (const ids of [plain, keyed]) {
      assert.equal(ids.isReversible, false);
      assert.equal(ids.sessionIdFrom(ids.rowKeysFor('abc')[0]), undefined);
    }
  });

  it('has a range that holds the keys of its prefix and no others', () => {
    const bytes = (key: string) => Buffer.from(key);
    fc.assert(
      fc.property(text(), text(), (prefix, key) => {
        const [from, to] = new SessionIds({ prefix, secrets: [], hashIds: false }).range;
        const isInside = Buffer.compare(bytes(key), bytes(from)) >= 0 && Buffer.compare(bytes(key), bytes(to)) < 0;
        assert.equal(isInside, key.startsWith(prefix));
        assert(Buffer.compare(bytes(prefix + key), bytes(from)) >= 0);
      }),
    );
  });

  it('has the longest of its session IDs in the range', () => {
    for (const secrets of [[], ['a secret']]) {
      const ids = new SessionIds({ prefix: '\u{10FFFF}', secrets, hashIds: false });
      const longest = '\u{10FFFF}'.repeat(500);
      assert.equal(validateSessionId(longest), undefined);
      const [, to] = ids.range;
      assert(Buffer.compare(Buffer.from(ids.rowKeysFor(longest)[0]), Buffer.from(to)) < 0);
    }
  });

  it('says why a session ID cannot be stored', () => {
    for (const sid of [undefined, null, 5, {}, 'a\0b', '\ud83d', '\udca5x', 'x'.repeat(2001), 'ä'.repeat(1001)]) {
      assert.equal(typeof validateSessionId(sid), 'string');
    }
    for (const sid of ['', 'abc', '💥', "'; drop table sessions --", 'x'.repeat(2000)]) {
      assert.equal(validateSessionId(sid), undefined);
    }
  });

  it('knows a session by the handle that it had before a rotation of the secret', () => {
    const before = new SessionIds({ prefix: 'app:', secrets: ['old'], hashIds: false });
    const after = new SessionIds({ prefix: 'app:', secrets: ['new', 'old'], hashIds: false });
    const [oldKey] = before.rowKeysFor('abc');
    const [newKey] = after.rowKeysFor('abc');
    for (const key of [oldKey, newKey]) {
      for (const handle of [handleOf(oldKey), handleOf(newKey)]) assert(after.hasHandle(key, handle));
      assert(!after.hasHandle(key, handleOf(before.rowKeysFor('abd')[0])));
    }
    const hashed = new SessionIds({ prefix: 'app:', secrets: ['new', 'old'], hashIds: true });
    const [key, olderKey] = hashed.rowKeysFor('abc') as [string, string];
    assert(hashed.hasHandle(key, handleOf(key)));
    assert(!hashed.hasHandle(key, handleOf(olderKey)), 'nobody can tell the older key');
  });

  it('names a session by a stable handle that gives nothing away', () => {
    assert.equal(handleOf('abc'), handleOf('abc'));
    assert.notEqual(handleOf('abc'), handleOf('abd'));
    assert.match(handleOf('abc'), /^[\w-]{24}$/);
    assert(!createHash('sha256').update('abc').digest('base64url').startsWith(handleOf('abc')), 'not the hashed ID');
  });
});
