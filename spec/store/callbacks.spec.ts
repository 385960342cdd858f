/** An exception in a callback is the app's own. */

import assert from 'node:assert/strict';
import { runNode } from '../support/child.js';
import { freshTable, postgresUri } from '../support/postgres.js';

describe('callbacks', () => {
  it('leaves an exception in a callback to the app: thrown once, called once, session intact', async () => {
    const OPTIONS = JSON.stringify({ uri: await postgresUri(), table: freshTable() });
    const { code, stdout, stderr } = await runNode(
      `import { PgStore } from './lib/index.js';
       const store = new PgStore({ ...JSON.parse(process.env.OPTIONS), maxConnections: 2 });
       const cookie = { maxAge: 60000 };
       const calls = {
         set: ['a', { n: 1, cookie }], get: ['a'], touch: ['a', { cookie }], destroy: ['nobody'],
         all: [], length: [], clear: [],
       };
       const thrown = [], called = [];
       process.on('uncaughtException', (error) => thrown.push(error.message));
       process.on('unhandledRejection', () => thrown.push('rejection'));
       for (const [name, args] of Object.entries(calls)) {
         await new Promise((resolve) => {
           store[name](...args, () => {
             called.push(name);
             setTimeout(resolve, 5);
             throw new Error(name);
           });
         });
       }
       store.get('a\\0', () => { throw new Error('odd') });
       await store.set('a', { n: 1, cookie });
       const { n } = await store.get('a');
       await store.close();
       console.log(JSON.stringify({ thrown, called, n, names: Object.keys(calls) }));`,
      { env: { OPTIONS } },
    );
    assert.equal(code, 0, stderr);
    const { thrown, called, n, names } = JSON.parse(stdout);
    assert.deepEqual(called, names);
    assert.deepEqual(thrown, [...names, 'odd']);
    assert.equal(n, 1);
  });

  it('ends a process by an exception in a callback, as any uncaught one does', async () => {
    const OPTIONS = JSON.stringify({ uri: await postgresUri(), table: freshTable() });
    const { code, stderr } = await runNode(
      `import { PgStore } from './lib/index.js';
       new PgStore(JSON.parse(process.env.OPTIONS)).get('a', () => { throw new Error('mine') });`,
      { env: { OPTIONS } },
    );
    assert.equal(code, 1);
    assert.match(stderr, /Error: mine/);
  });
});
