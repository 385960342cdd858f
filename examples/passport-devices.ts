/** Signs users in with Passport, shows them the devices on which they are signed in, and signs devices out. */

import express, { type RequestHandler } from 'express';
import { PgStore } from 'express-pg-store';
import session from 'express-session';
import passport from 'passport';
import { Strategy } from 'passport-local';

declare module 'express-session' {
  interface SessionData {
    browser?: string;
  }
}

/** A real app reads its table of users, and compares the password with a hash. */
const PASSWORDS = new Map([['ada', 'engine']]);
passport.use(new Strategy((name, password, done) => done(null, PASSWORDS.get(name) === password && { id: name })));
passport.serializeUser((user, done) => done(null, user.id));
passport.deserializeUser((id: string, done) => done(null, { id }));

// Without option `user`, the store takes the user from `session.passport.user`, where Passport keeps it.
const store = new PgStore();
const secret = process.env.SESSION_SECRET ?? 'for trying it out only';
const app = express();
// With `sameSite: 'lax'`, browsers do not send the cookie with a POST request from another site's page.
app.use(session({ store, secret, resave: false, saveUninitialized: false, cookie: { sameSite: 'lax' } }));
app.use(passport.session());
app.use(express.json());

app.post('/sign-in', passport.authenticate('local'), (request, response) => {
  request.session.browser = request.get('user-agent');
  response.sendStatus(204);
});

const signedIn: RequestHandler = (request, response, next) => (request.user ? next() : response.sendStatus(401));
const idOf = (user: Express.User | undefined) => (user as Express.User).id;

app.get('/devices', signedIn, async (request, response) => {
  const sessions = await store.sessionsOf(idOf(request.user));
  // A handle may be shown to the user, because it cannot be used as a session ID.
  response.json(sessions.map(({ handle, lastSeenAt, session }) => ({ handle, lastSeenAt, browser: session.browser })));
});
app.post('/devices/:handle/sign-out', signedIn, async (request, response) => {
  const isEnded = await store.destroyByHandle(String(request.params.handle), { user: idOf(request.user) });
  response.sendStatus(isEnded ? 204 : 404);
});
app.post('/sign-out-others', signedIn, async (request, response) => {
  const ended = await store.destroySessionsOf(idOf(request.user), { except: request.sessionID });
  response.json({ ended });
});

const port = Number(process.env.PORT ?? 3000);
app.listen(port, '127.0.0.1', () => console.log(`http://localhost:${port}`));
