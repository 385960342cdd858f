/** The store with Fastify and @fastify/session. */

import fastifyCookie from '@fastify/cookie';
import fastifySession, { type SessionStore } from '@fastify/session';
import fastify, { type FastifyInstance } from 'fastify';
import type { PgStore } from '../../../lib/index.js';

declare module 'fastify' {
  interface Session {
    cart?: Record<string, number>;
  }
}

export async function fastifyApp(store: PgStore | SessionStore): Promise<FastifyInstance> {
  const app = fastify();
  await app.register(fastifyCookie);
  await app.register(fastifySession, {
    store,
    secret: 'a secret of at least 32 characters',
    saveUninitialized: false,
    cookie: { secure: false, maxAge: 3_600_000 },
  });
  app.post<{ Params: { item: string } }>('/cart/:item', async ({ session, params }) => {
    session.cart = { ...session.cart, [params.item]: 1 };
    return session.cart;
  });
  app.get('/cart', async ({ session }) => session.cart ?? {});
  app.post('/logout', async ({ session }, reply) => {
    await session.destroy();
    return reply.code(204).send();
  });
  return app;
}
