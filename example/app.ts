/** The example's routes: one page that shows the visitor's session, and the rows of the table. */

import { randomUUID } from 'node:crypto';
import path from 'node:path';
import connectPgSimple from 'connect-pg-simple';
import express, { type Express, type Request } from 'express';
import session, { MemoryStore } from 'express-session';
import type pg from 'pg';
import type { Sql } from 'postgres';
import { PgStore } from '../lib/index.js';
import { nameOf, passport } from './accounts.js';
import { browserName, devicesOf } from './devices.js';
import { Lab, type Race } from './lab.js';
import { type LateRequest, LateRequests } from './late-request.js';
import { headers, ownHostsOnly, sameOriginOnly } from './security.js';
import { endNotice, SessionEndStreams } from './session-end.js';
import { page, type StoredRow } from './views.js';

declare module 'express-session' {
  interface SessionData {
    views?: number;
    cart?: Record<string, number>;
    device?: { id: string; browser: string };
    race?: Race;
    lateRequest?: LateRequest;
    notice?: string;
  }
}

const PRODUCTS = ['apples', 'bread', 'cheese'];

export interface ExampleOptions {
  sql: Sql;
  /** The pool of connect-pg-simple, one of the stores with which the page compares PgStore. */
  pool: pg.Pool;
  /** Signs the cookies, and is the secret for the hashes of session IDs in the table. */
  secret: string;
  /** The table of the app's own sessions. The names of its other tables begin with this name. */
  table?: string;
  /** The host names under which the app is reached, besides `localhost`. */
  hosts?: readonly string[] | undefined;
  /** How long each store's turn takes when the page measures their speed, in milliseconds. Default: 250. */
  turnMs?: number;
}

export interface Example {
  app: Express;
  close(): Promise<void>;
}

/** The tables: of the app's own sessions, and of the two stores on PostgreSQL that the panels compare. */
export function tableNames(table = 'example_sessions'): Record<'own' | 'lab' | 'simple', string> {
  return { own: table, lab: `${table}_lab`, simple: `${table}_simple` };
}

export async function createApp(options: ExampleOptions): Promise<Example> {
  const { sql, pool, secret, table, hosts, turnMs = 250 } = options;
  const names = tableNames(table);
  // The page shows rows to everybody, so the table holds hashed IDs, which cannot be used as session IDs.
  const store = new PgStore({ sql, table: names.own, hashIds: true, secret });
  const labStore = new PgStore({ sql, table: names.lab });
  const SimpleStore = connectPgSimple(session);
  const simpleStore = new SimpleStore({ pool, tableName: names.simple, createTableIfMissing: true });
  await Promise.all([store.ready(), labStore.ready()]);
  const lab = await Lab.start(labStore, simpleStore, turnMs);
  const stores = { PgStore: labStore, 'connect-pg-simple': simpleStore, MemoryStore: new MemoryStore() };
  const lateRequests = await LateRequests.start(stores);
  const ends = new SessionEndStreams(store);

  const app = express();
  app.disable('x-powered-by');
  app.use(headers, ownHostsOnly(hosts), sameOriginOnly);
  app.use(express.static(path.join(import.meta.dirname, 'public')));
  app.use(express.urlencoded({ extended: false, limit: '10kb' }));
  app.use(
    session({
      store,
      secret,
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: 7 * 24 * 3600 * 1000, httpOnly: true, sameSite: 'lax', secure: 'auto' },
    }),
  );
  app.use(passport.session());

  app.get('/', async (request, response) => {
    const { session, user } = request;
    session.views = (session.views ?? 0) + 1;
    session.device ??= { id: randomUUID(), browser: browserName(request.get('user-agent')) };
    const notice = session.notice ?? endNotice(request.query.ended);
    delete session.notice;
    // The session is saved now, not at the end of the request, so that the table on the page shows it.
    await saved(request);
    const devices = user ? await devicesOf(store, user.id, session.device.id) : [];
    const rows = await sql<StoredRow[]>`
      select sid, user_id, version, data::text, data #>> '{device,id}' = ${session.device.id} as is_this_one,
        extract(epoch from now() - updated_at)::float8 as age, expires_at
      from ${sql(names.own)} where expires_at > now() order by updated_at desc limit 6`;
    const wrong = 'wrong' in request.query;
    response.send(page({ name: nameOf(user), session, notice, wrong, devices, products: PRODUCTS, rows }).text);
  });

  const signIn = passport.authenticate('local', { failureRedirect: '/?wrong', keepSessionInfo: true });
  app.post('/sign-in', signIn, (_, response) => response.redirect(303, '/'));
  app.post('/sign-out', (request, response, next) => {
    request.session.destroy((error) => (error ? next(error) : response.clearCookie('connect.sid').redirect(303, '/')));
  });
  app.post('/devices/sign-out-others', async (request, response) => {
    if (request.user) {
      const ended = await store.destroySessionsOf(request.user.id, { except: request.sessionID });
      request.session.notice = `${ended} other ${ended === 1 ? 'device' : 'devices'} signed out.`;
    }
    response.redirect(303, '/');
  });
  app.post('/devices/:handle/sign-out', async (request, response) => {
    if (request.user) {
      const ended = await store.destroyByHandle(request.params.handle, { user: request.user.id });
      request.session.notice = ended ? 'That device is signed out.' : 'That device was signed out already.';
    }
    response.redirect(303, '/');
  });

  app.post('/cart', ({ body, session }, response) => {
    if (PRODUCTS.includes(body?.product)) {
      session.cart ??= {};
      session.cart[body.product] = (session.cart[body.product] ?? 0) + 1;
    } else if (body?.product === '') delete session.cart;
    response.redirect(303, '/#cart');
  });

  app.get('/session-end', ends.handler);

  app.post('/late-request', async (request, response) => {
    request.session.lateRequest = await lateRequests.run();
    response.redirect(303, '/#late-request');
  });
  app.post('/race', async (request, response) => {
    request.session.race = await lab.race();
    response.redirect(303, '/#race');
  });
  app.post('/speed', async (request, response) => {
    // Each result is sent at once as a line of JSON, so that the page can draw it while the others are measured.
    response.type('application/x-ndjson');
    const send = (line: object) => void response.write(`${JSON.stringify(line)}\n`);
    const ran = await lab.speed(request.body?.work === 'write', send, () => !response.destroyed);
    if (!ran) response.status(409);
    response.end();
  });

  const close = async () => {
    ends.close();
    await Promise.all([lab.close(), lateRequests.close()]);
    await Promise.all([store.close(), labStore.close(), simpleStore.close()]);
  };
  return { app, close };
}

function saved({ session }: Request): Promise<void> {
  return new Promise((resolve, reject) => session.save((error) => (error ? reject(error) : resolve())));
}
