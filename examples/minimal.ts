/** Counts a visitor's page views in a session. */

import express from 'express';
import { PgStore } from 'express-pg-store';
import session from 'express-session';

declare module 'express-session' {
  interface SessionData {
    views?: number;
  }
}

const store = new PgStore(); // finds PostgreSQL by DATABASE_URL
const secret = process.env.SESSION_SECRET ?? 'for trying it out only';
const app = express();
app.use(session({ store, secret, resave: false, saveUninitialized: false }));
app.get('/', ({ session }, response) => {
  session.views = (session.views ?? 0) + 1;
  response.send(`You were here ${session.views} times.`);
});
const port = Number(process.env.PORT ?? 3000);
app.listen(port, '127.0.0.1', () => console.log(`http://localhost:${port}`));
