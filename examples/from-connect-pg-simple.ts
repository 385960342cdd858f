/**
 * Moves an app from connect-pg-simple without signing anybody out. Stop all processes of the old app, then start this
 * one. It takes over a visitor's session at the first request, and all other sessions in the background. Once it has
 * logged that all were taken over, option `previous` can be removed.
 */

import connectPgSimple from 'connect-pg-simple';
import express from 'express';
import { PgStore } from 'express-pg-store';
import session from 'express-session';
import pg from 'pg';

declare module 'express-session' {
  interface SessionData {
    views?: number;
  }
}

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
pool.on('error', (error) => console.error(error.message));
const previous = new (connectPgSimple(session))({ pool });
const store = new PgStore({ previous });

const app = express();
// With the same cookie name and secret as before, the cookies in the browsers remain valid.
const secret = process.env.SESSION_SECRET ?? 'for trying it out only';
app.use(session({ store, secret, resave: false, saveUninitialized: false }));
app.get('/', ({ session }, response) => {
  session.views = (session.views ?? 0) + 1;
  response.send(`You were here ${session.views} times.`);
});
const port = Number(process.env.PORT ?? 3000);
app.listen(port, '127.0.0.1', () => console.log(`http://localhost:${port}`));

/** Reads the session IDs page by page, because connect-pg-simple cannot list them, and there may be millions. */
async function* oldSessionIds(): AsyncGenerator<string> {
  let last = '';
  for (;;) {
    // With both operands cast to text, PostgreSQL's own operator matches exactly. Otherwise, in a database where others
    // may create operators, one of theirs could be chosen.
    const { rows } = await pool.query('select sid from session where sid::text > $1::text order by sid limit 1000', [
      last,
    ]);
    if (rows.length === 0) return;
    for (const { sid } of rows) yield sid;
    last = rows.at(-1).sid;
  }
}

const taken = await store.takeOver({ sids: oldSessionIds() });
console.log(`${taken} sessions were taken over`);
