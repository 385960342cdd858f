/** A session that changes hands while requests run on it never mixes two users. */

import assert from 'node:assert/strict';
import { setImmediate as immediate } from 'node:timers/promises';
import { handleOf } from '../../lib/session/session-id.js';
import { closeStores, openStore } from '../support/postgres.js';
import { data, loaded, plain } from '../support/sessions.js';

describe('a session that changes hands, in the table', () => {
  afterEach(closeStores);

  const open = () => openStore({ touchAfter: 0, user: (session) => (session as any).userId });

  for (const withKey of [{}, { encryptionKey: 'an encryption key of some length' }]) {
    it(`of two parallel sign-ins the later one counts, as it is${'encryptionKey' in withKey ? ', encrypted' : ''}`, async () => {
      const store = await openStore({ touchAfter: 0, user: (session) => (session as any).userId, ...withKey });
      await store.set('a', plain({ cart: 1 }));
      const [one, two] = [await loaded(store, 'a'), await loaded(store, 'a')];
      await store.set('a', Object.assign(one, { userId: 1, role: 'owner' }));
      await store.set('a', Object.assign(two, { userId: 2 }));
      assert.deepEqual(await data(store, 'a'), { cart: 1, userId: 2 });
      assert.equal((await store.sessionsOf(2)).length, 1);
      assert.equal((await store.sessionsOf(1)).length, 0);
    });
  }

  it('a sign-out by removing the user is final for slower requests, and an event says so', async () => {
    const store = await open();
    const dropped: unknown[] = [];
    store.on('dropped', (...args) => void dropped.push(args));
    await store.set('a', plain({ userId: 1 }));
    const [signsOut, slow] = [await loaded(store, 'a'), await loaded(store, 'a')];
    delete signsOut.userId;
    await store.set('a', signsOut);
    await store.set('a', Object.assign(slow, { secretOfOne: true }));
    assert.deepEqual(await data(store, 'a'), {});
    await immediate();
    assert.deepEqual(dropped, [[handleOf('a'), 'set', 'changed hands']]);
  });

  it('goes by Passport’s user without the option', async () => {
    const store = await openStore({ touchAfter: 0 });
    await store.set('a', plain({ passport: { user: 'ann' } }));
    const [signsOut, slow] = [await loaded(store, 'a'), await loaded(store, 'a')];
    delete signsOut.passport;
    await store.set('a', signsOut);
    await store.set('a', Object.assign(slow, { ofAnn: true }));
    assert.deepEqual(await data(store, 'a'), {});
  });
});
