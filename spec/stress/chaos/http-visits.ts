/** Visits to sessions by HTTP requests to a Fastify app that knows nothing of the faults. */

import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import fastifyCookie from '@fastify/cookie';
import fastifySession from '@fastify/session';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { PgStore } from '../../../lib/index.js';
import type { KnownSessions } from './known-sessions.js';
import type { Reporter } from './reporter.js';
import { LIFETIME_MS } from './store-visits.js';

/** All processes sign their cookies with it, so each knows the others' sessions. */
const SECRET = 'a secret of at least 32 characters';

interface Response {
  readonly status: number;
  readonly body: { readonly sid?: string; readonly code?: string };
}

export class HttpVisits {
  readonly #store: PgStore;
  readonly #app: FastifyInstance;
  readonly #url: string;
  readonly #reporter: Reporter;
  readonly #known: KnownSessions;
  readonly #pick: () => number;
  /** Without `keepAlive`: an idle connection would keep the server open when it closes. */
  readonly #agent = new http.Agent({ keepAlive: false });

  private constructor(
    store: PgStore,
    app: FastifyInstance,
    url: string,
    reporter: Reporter,
    known: KnownSessions,
    pick: () => number,
  ) {
    this.#store = store;
    this.#app = app;
    this.#url = url;
    this.#reporter = reporter;
    this.#known = known;
    this.#pick = pick;
  }

  /** @param store for this app alone: nobody else must call its `createSession`, as express-session does */
  static async start(
    store: PgStore,
    reporter: Reporter,
    known: KnownSessions,
    pick: () => number,
  ): Promise<HttpVisits> {
    const app = await newApp(store, pick);
    const url = await app.listen({ port: 0, host: '127.0.0.1' });
    return new HttpVisits(store, app, url, reporter, known, pick);
  }

  /** A request at random. */
  async visit(): Promise<void> {
    const sid = this.#known.any();
    const dice = this.#pick();
    if (sid === undefined || dice < 0.06) await this.#signIn();
    else if (dice < 0.1) await this.#signOut(sid);
    else await this.#save(sid);
  }

  /** As an app does it: the requests under way are answered, then the store ends. */
  async close(): Promise<void> {
    await this.#app.close();
    await this.#store.close();
  }

  async #signIn(): Promise<void> {
    const answer = await this.#reporter.call(() => this.#post('/sign-in'), { isLimited: false });
    const sid = answer?.value.body.sid;
    if (sid !== undefined) this.#reporter.created({ sid });
  }

  async #save(sid: string): Promise<void> {
    const key = this.#reporter.newName();
    const answer = await this.#reporter.call(() => this.#post(`/key/${key}`, sid), { isLimited: false });
    if (!answer) return;
    if (answer.value.status === 401) {
      this.#reporter.missed(sid);
      return;
    }
    this.#reporter.report.saved.push([sid, key]);
    this.#known.saved(sid, key);
  }

  /** Whoever is answered that nobody is signed in (401) knows as well that the session is gone. */
  async #signOut(sid: string): Promise<void> {
    const signOut = () => this.#post('/sign-out', sid);
    const answer = await this.#reporter.decisiveCall({ kind: 'destroy', sid }, signOut, { isLimited: false });
    if (answer?.value.status === 401) this.#reporter.missed(sid);
  }

  /** @throws Error with a `code`, unless the answer is 200 or 401 */
  async #post(path: string, sid?: string): Promise<Response> {
    const response = await this.#send(path, sid);
    if (response.status !== 200 && response.status !== 401) {
      throw Object.assign(new Error(`${path}: ${response.status}`), { code: response.body.code ?? response.status });
    }
    if (response.status === 200) this.#reporter.report.requests++;
    return response;
  }

  #send(path: string, sid: string | undefined): Promise<Response> {
    const headers = sid === undefined ? {} : { cookie: `sessionId=${encodeURIComponent(signed(sid))}` };
    return new Promise((resolve, reject) => {
      const request = http.request(`${this.#url}${path}`, { method: 'POST', agent: this.#agent, headers });
      request.on('error', reject);
      request.on('response', async (response) => {
        try {
          const text = Buffer.concat(await response.toArray()).toString();
          resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) });
        } catch (error) {
          reject(error);
        }
      });
      request.end();
    });
  }
}

function signed(sid: string): string {
  return fastifyCookie.sign(sid, SECRET);
}

async function newApp(store: PgStore, pick: () => number): Promise<FastifyInstance> {
  const app = fastify();
  await app.register(fastifyCookie);
  await app.register(fastifySession, {
    store,
    secret: SECRET,
    saveUninitialized: false,
    cookie: { secure: false, maxAge: LIFETIME_MS },
  });
  app.post('/sign-in', async ({ session }) => {
    Object.assign(session, { isSignedIn: true });
    return { sid: session.sessionId };
  });
  app.post<{ Params: { key: string } }>('/key/:key', { preHandler: needSignIn }, async ({ session, params }) => {
    await sleep(pick() * 20);
    Object.assign(session, { [params.key]: params.key });
    return {};
  });
  app.post('/sign-out', { preHandler: needSignIn }, async ({ session }) => {
    await session.destroy();
    return {};
  });
  return app;
}

async function needSignIn(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply | undefined> {
  return 'isSignedIn' in request.session ? undefined : reply.code(401).send({});
}
