import assert from 'node:assert/strict';
import { closeStores, openStore } from './support/postgres.js';
import { load, plain } from './support/sessions.js';

describe('smoke', () => {
  afterEach(closeStores);
  it('keeps both changes of two requests', async () => {
    const store = await openStore();
    await store.set('a', plain({ x: 1 }));
    const [one, two] = [await load(store, 'a'), await load(store, 'a')];
    assert(one && two);
    one.a = 1;
    two.b = 2;
    await Promise.all([store.set('a', one), store.set('a', two)]);
    const { cookie: _, ...data } = (await store.get('a')) as any;
    assert.deepEqual(data, { x: 1, a: 1, b: 2 });
  });
});
