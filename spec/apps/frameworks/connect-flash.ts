/** The store with connect-flash. */

import flash from 'connect-flash';
import express, { type Express } from 'express';
import session from 'express-session';
import type { PgStore } from '../../../lib/index.js';

export function flashApp(store: PgStore): Express {
  const app = express();
  app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false }));
  app.use(flash());
  app.post('/order', (req, res, next) => {
    // With a format: without one connect-flash 0.1.1 calls `util.isArray`, which Node 23 removed.
    req.flash('info', '%s', 'Your order is on its way.');
    // The redirect's target may be requested before this response has ended: save first.
    req.session.save((error) => (error ? next(error) : res.redirect('/')));
  });
  app.get('/', (req, res) => {
    res.json(req.flash('info'));
  });
  return app;
}
