/**
 * The Fastify app of `race-fastify.ts`, on a store that express-session uses as well. Such a store needs `store.scope`
 * as a hook.
 */

import { startFastify } from './race-fastify.js';
import type { StartServer } from './race-server.js';
import { plain } from './sessions.js';

export const start: StartServer = (store, gate) => {
  store.createSession({ sessionID: 'another', sessionStore: store } as any, plain());
  return startFastify(store, gate, (app) => app.addHook('onRequest', store.scope));
};
