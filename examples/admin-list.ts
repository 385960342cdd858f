/**
 * For support staff, who sign in elsewhere and have ADMIN_TOKEN: who is signed in, and sign-out of a user everywhere.
 * The app's own store has option `user` as well, so that the table knows whose session it is.
 */

import { timingSafeEqual } from 'node:crypto';
import express from 'express';
import { PgStore } from 'express-pg-store';

declare module 'express-session' {
  interface SessionData {
    userId?: string;
  }
}

const { ADMIN_TOKEN } = process.env;
if (!ADMIN_TOKEN) throw new Error('ADMIN_TOKEN is not set');
const expected = Buffer.from(`Bearer ${ADMIN_TOKEN}`);

const store = new PgStore({ user: (session) => session.userId });
const app = express();
app.use((request, response, next) => {
  const given = Buffer.from(request.get('authorization') ?? '');
  const isAdmin = given.length === expected.length && timingSafeEqual(given, expected);
  return isAdmin ? next() : response.sendStatus(401);
});

/** How many sessions there are, and how many of each user. Read in pages: memory stays flat with millions of them. */
app.get('/sessions', async (_request, response) => {
  const users: Record<string, number> = Object.create(null);
  let total = 0;
  for await (const { userId } of store.sessions()) {
    total++;
    if (userId !== undefined) users[userId] = (users[userId] ?? 0) + 1;
  }
  response.json({ total, users });
});

/** A user's latest sessions, without their data: support staff need not read these. */
app.get('/users/:user/sessions', async (request, response) => {
  const sessions = await store.sessionsOf(request.params.user, { limit: 50 });
  response.json(
    sessions.map(({ handle, createdAt, lastSeenAt, expiresAt }) => ({ handle, createdAt, lastSeenAt, expiresAt })),
  );
});

app.delete('/users/:user/sessions', async (request, response) => {
  response.json({ ended: await store.destroySessionsOf(request.params.user) });
});

const port = Number(process.env.PORT ?? 3000);
app.listen(port, '127.0.0.1', () => console.log(`http://localhost:${port}`));
