/**
 * express-openid-connect: tokens stay out of the cookie, parallel requests keep each other's changes, and a logout is
 * final, also in other processes. Besides `npm ci` it needs `npm install express-openid-connect`.
 */

import express from 'express';
import openId from 'express-openid-connect';
import { PgStore } from 'express-pg-store';

const port = process.env.PORT ?? 3000;

/** Whose session it is: the subject of the ID token. */
function subject({ data }) {
  const [, claims] = data?.id_token?.split('.') ?? [];
  return claims && JSON.parse(Buffer.from(claims, 'base64url').toString()).sub;
}

const store = new PgStore({ user: subject }); // finds PostgreSQL by DATABASE_URL
const app = express();
// Before `auth`, which has sessions of its own and awaits the store: it remembers what it loads for this request.
app.use(store.scope);
app.use(
  openId.auth({
    issuerBaseURL: process.env.ISSUER_BASE_URL,
    baseURL: process.env.BASE_URL ?? `http://localhost:${port}`,
    clientID: process.env.CLIENT_ID,
    secret: process.env.SESSION_SECRET ?? 'for trying it out only, 32 characters',
    authRequired: false,
    session: { store },
  }),
);
app.get('/', openId.requiresAuth(), (req, res) => {
  res.json(req.oidc.user);
});
app.post('/sign-out-everywhere', openId.requiresAuth(), async (req, res) => {
  res.json({ ended: await store.destroySessionsOf(req.oidc.user.sub) });
});
app.listen(port, '127.0.0.1', () => console.log(`http://localhost:${port}`));
