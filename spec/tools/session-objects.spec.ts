/**
 * The promises hold with frameworks that make session objects of their own and await `get`, over HTTP, by
 * `store.scope`.
 */

import path from 'node:path';
import { itKeepsThePromises } from '../support/race-server.js';
import { skipWithoutTools } from '../support/tools.js';

for (const name of ['koa', 'openid-connect']) {
  describe(`${name}, by \`store.scope\``, () => {
    before(function () {
      skipWithoutTools.call(this);
    });

    itKeepsThePromises(path.join(import.meta.dirname, `races/${name}.ts`));
  });
}
