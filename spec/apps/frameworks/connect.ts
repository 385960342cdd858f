/** The store with Connect. */

import type { IncomingMessage } from 'node:http';
import connect from 'connect';
import session, { type Session, type SessionData } from 'express-session';
import type { PgStore } from '../../../lib/index.js';

type Request = IncomingMessage & { session: Session & SessionData & { cart?: Record<string, number> } };

export function connectApp(store: PgStore): connect.Server {
  const app = connect();
  app.use(
    session({
      store,
      secret: 'keyboard cat',
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: 3_600_000 },
    }) as unknown as connect.NextHandleFunction,
  );
  app.use('/cart', (req, res) => {
    const { session } = req as Request;
    const item = req.url?.slice(1);
    if (req.method === 'POST' && item) session.cart = { ...session.cart, [item]: 1 };
    res.setHeader('content-type', 'application/json').end(JSON.stringify(session.cart ?? {}));
  });
  app.use('/logout', (req, res, next) => {
    (req as Request).session.destroy((error) => (error ? next(error) : res.writeHead(204).end()));
  });
  return app;
}
