/** The promises hold with a framework that makes session objects of its own, over HTTP. Others are in spec/tools. */

import path from 'node:path';
import { itKeepsThePromises } from '../support/race-server.js';

describe('Fastify, without a line in the app', () => {
  itKeepsThePromises(path.join(import.meta.dirname, '../support/race-fastify.ts'));
});

describe('Fastify on a store that express-session uses as well, with `store.scope` as a hook', () => {
  itKeepsThePromises(path.join(import.meta.dirname, '../support/race-fastify-scope.ts'));
});
