/** A session keeps what each of its requests did, and stays destroyed once it was destroyed: on PostgreSQL. */

import assert from 'node:assert/strict';
import { describeConcurrency } from '../support/concurrency-specs.js';
import { closeStores } from '../support/postgres.js';
import { postgresWorld } from '../support/postgres-world.js';
import { openCountedStore } from '../support/race-statements.js';
import { type AnySession, generated, loaded } from '../support/sessions.js';

describeConcurrency(postgresWorld);

describe('what concurrency costs', () => {
  afterEach(closeStores);

  it('is one statement to load and one to save, and no word of the data more', async () => {
    const { store, sent } = await openCountedStore();
    const made = generated(store, 'sid', { text: 'x'.repeat(1000) });
    const inserting = await sent(() => store.set('sid', made));
    let request: AnySession | undefined;
    const loading = await sent(async () => {
      request = await loaded(store, 'sid');
    });
    assert(request);
    request.more = 1;
    const saving = await sent(() => store.set('sid', request as AnySession));
    const kinds = [...inserting, ...loading, ...saving].map(({ kind }) => kind);
    assert.deepEqual(kinds, ['insert', 'select', 'update']);
    const [statement] = saving;
    const { cookie: _, ...data } = request;
    assert.deepEqual(
      statement?.values.filter((value) => String(value).includes('xxx')),
      [JSON.stringify(data)],
    );
  });
});
