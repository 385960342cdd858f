/** Whose sessions they are, and which users are refused. */

import assert from 'node:assert/strict';
import { checkUser, userOf } from '../../lib/session/user.js';
import { plain } from '../support/sessions.js';

describe('user', () => {
  it('is Passport’s by default, where that is a string or a number', () => {
    assert.equal(userOf(plain()), null);
    assert.equal(userOf(plain({ passport: { user: 7 } })), '7');
    assert.equal(userOf(plain({ passport: { user: 'ann' } })), 'ann');
    assert.equal(userOf(plain({ passport: { user: { id: 7 } } })), null);
    for (const passport of [null, undefined, {}, 5, 'text']) assert.equal(userOf(plain({ passport })), null);
  });

  it('is what option `user` says; none for null and undefined', () => {
    assert.equal(
      userOf(plain({ account: 5 }), (session: any) => session.account),
      '5',
    );
    for (const none of [null, undefined] as any[])
      assert.equal(
        userOf(plain(), () => none),
        null,
      );
  });

  it('is a string or a number that a column and its index hold', () => {
    for (const user of ['ann', 7, '', '💥', 'ä'.repeat(1000)]) assert.equal(checkUser(user), String(user));
    for (const [user, got] of [
      [undefined, 'undefined'],
      [{}, 'object'],
      [true, 'boolean'],
      ['a\0b', 'one with a NUL character'],
      ['a\ud800', 'one with half a surrogate pair'],
      ['ä'.repeat(1001), 'one of more than 2000 bytes'],
    ]) {
      const message = `expected a string or a number as user, got ${got}`;
      assert.throws(() => checkUser(user), { code: 'INVALID_USER', message });
      if (user === undefined) continue;
      const option = () => user as string;
      assert.throws(() => userOf(plain(), option), { code: 'INVALID_USER', message: `option \`user\`: ${message}` });
    }
  });
});
