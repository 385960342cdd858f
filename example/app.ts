/** What does the example show? One page about the visitor's session, and what PostgreSQL has of it. */

import path from 'node:path';
import express, { type Express } from 'express';
import session from 'express-session';
import type { Sql } from 'postgres';
import { PgStore } from '../lib/index.js';
import { nameOf, passport } from './accounts.js';
import { headers, sameOriginOnly } from './security.js';
import { page, type StoredRow } from './views.js';

declare module 'express-session' {
  interface SessionData {
    views?: number;
    cart?: Record<string, number>;
  }
}

const PRODUCTS = ['apples', 'bread', 'cheese'];

export async function createApp({ sql, secret }: { sql: Sql; secret: string }): Promise<{
  app: Express;
  close: () => Promise<void>;
}> {
  const store = new PgStore({ sql, table: 'example_sessions' });
  await store.ready();
  const app = express();
  app.disable('x-powered-by');
  app.use(headers, sameOriginOnly);
  app.use(express.static(path.join(import.meta.dirname, 'public')));
  app.use(express.urlencoded({ extended: false, limit: '10kb' }));
  app.use(
    session({
      store,
      secret,
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: 7 * 24 * 3600 * 1000, httpOnly: true, sameSite: 'lax', secure: 'auto' },
    }),
  );
  app.use(passport.session());

  app.get('/', async (request, response) => {
    request.session.views = (request.session.views ?? 0) + 1;
    const rows = await sql<StoredRow[]>`
      select sid, user_id, version, data::text, updated_at, expires_at from example_sessions
      order by updated_at desc limit 10`;
    response.send(page({ user: nameOf(request.user), session: request.session, products: PRODUCTS, rows }).text);
  });
  app.post(
    '/sign-in',
    passport.authenticate('local', { failureRedirect: '/?wrong', keepSessionInfo: true }),
    (_, response) => response.redirect(303, '/'),
  );
  app.post('/sign-out', (request, response, next) => {
    request.session.destroy((error) => (error ? next(error) : response.clearCookie('connect.sid').redirect(303, '/')));
  });
  app.post('/cart', (request, response) => {
    const { product } = request.body ?? {};
    if (PRODUCTS.includes(product)) {
      request.session.cart ??= {};
      request.session.cart[product] = (request.session.cart[product] ?? 0) + 1;
    }
    response.redirect(303, '/#cart');
  });
  return { app, close: () => store.close() };
}
