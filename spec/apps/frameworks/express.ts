/** The store with Express 5 and 4. */

import type { Express } from 'express';
import session from 'express-session';
import type { PgStore } from '../../../lib/index.js';

export function useSessions(app: Express, store: PgStore): Express {
  app.use(
    session({
      store,
      secret: 'keyboard cat',
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: 3_600_000 },
    }),
  );
  app.post('/cart/:item', (req, res) => {
    req.session.cart = { ...req.session.cart, [req.params.item]: 1 };
    res.json(req.session.cart);
  });
  app.get('/cart', (req, res) => {
    res.json(req.session.cart ?? {});
  });
  app.post('/logout', (req, res, next) => {
    req.session.destroy((error) => (error ? next(error) : res.sendStatus(204)));
  });
  return app;
}
