/** The promises hold with a framework that makes session objects of its own, over HTTP. Others are in spec/tools. */

import path from 'node:path';
import { itKeepsThePromises } from '../support/race-server.js';

describe('Fastify, without a line in the app', () => {
  itKeepsThePromises(path.join(import.meta.dirname, '../support/race-fastify.ts'));
});
