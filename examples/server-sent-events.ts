/** Server-Sent Events: a stream ends with a reason when its session ends, in whichever process that happens. */

import express from 'express';
import { PgStore } from 'express-pg-store';
import session, { type SessionData } from 'express-session';

const store = new PgStore({ watchInterval: 1 });
const secret = process.env.SESSION_SECRET ?? 'for trying it out only';
const app = express();
app.use(session({ store, secret, resave: false, saveUninitialized: false }));
app.post('/sign-in/:user', ({ session, params }, response) => {
  Object.assign(session, { user: params.user });
  response.sendStatus(204);
});
app.post('/sign-out', ({ session }, response, next) => {
  session.destroy((error) => (error ? next(error) : response.sendStatus(204)));
});
app.get('/events', ({ session, sessionID }, response) => {
  const { user } = session as SessionData & { user?: string };
  // A session without a user may not be stored yet, so `watch` would report its end at once.
  if (user === undefined) return void response.sendStatus(401);
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const send = (event: string, data: string) => response.write(`event: ${event}\ndata: ${data}\n\n`);
  send('hello', user);
  const stop = store.watch(sessionID, (reason) => {
    send('signed-out', reason);
    response.end();
  });
  response.on('close', stop);
});

const port = Number(process.env.PORT ?? 3000);
app.listen(port, '127.0.0.1', () => console.log(`http://localhost:${port}`));
