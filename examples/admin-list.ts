/**
 * An API for support staff, who authenticate themselves with ADMIN_TOKEN: it shows who is signed in, and signs a user
 * out everywhere. The store of the app whose sessions these are needs the same option `user`.
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

/** The number of sessions in all, and of each user. `sessions()` reads in pages, so memory does not grow with them. */
app.get('/sessions', async (_request, response) => {
  const users: Record<string, number> = Object.create(null);
  let total = 0;
  for await (const { userId } of store.sessions()) {
    total++;
    if (userId !== undefined) users[userId] = (users[userId] ?? 0) + 1;
  }
  response.json({ total, users });
});

/** A user's latest sessions, without their data, which support staff need not see. */
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
