/** The store with Passport. */

import express, { type NextFunction, type Request, type Response } from 'express';
import session from 'express-session';
import { Passport } from 'passport';
import { Strategy } from 'passport-local';
import type { PgStore } from '../../../lib/index.js';

declare global {
  namespace Express {
    interface User {
      id: string;
    }
  }
}

export function passportApp(store: PgStore): express.Express {
  const passport = new Passport();
  passport.use(
    new Strategy((username, password, done) => {
      done(null, password === 'open sesame' ? { id: username } : false);
    }),
  );
  // What is put into `session.passport.user` here is what the store's option `user` takes by
  // default.
  passport.serializeUser((user, done) => done(null, user.id));
  passport.deserializeUser((id: string, done) => done(null, { id }));

  const app = express();
  app.use(express.urlencoded());
  app.use(session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false }));
  app.use(passport.session());

  app.post('/login', passport.authenticate('local'), (req, res) => {
    res.json(req.user);
  });
  app.post('/logout', (req, res, next) => {
    req.logout((error) => (error ? next(error) : res.sendStatus(204)));
  });

  app.use(signedIn);
  app.get('/me', (req, res) => {
    res.json(req.user);
  });
  return app;
}

function signedIn(req: Request, res: Response, next: NextFunction): void {
  if (req.isAuthenticated()) next();
  else res.sendStatus(401);
}
