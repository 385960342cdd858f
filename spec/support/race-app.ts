/** An Express app whose requests can be made to overlap, and its visitors. */

import http, { type RequestListener } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import express5, { type Express, type Request } from 'express';
import session, { type SessionOptions, type Store } from 'express-session';
import { maxAgeOf } from './sessions.js';

// `express4` is an alias in package.json for Express 4, which has no types.
const express4: () => Express = createRequire(import.meta.url)('express4');

export type ExpressVersion = 4 | 5;

/** Makes requests overlap: it holds each one when it has loaded its session, until a spec opens the gate for all. */
export class Gate {
  #waiting: (() => void)[] = [];
  #expected: { count: number; arrived: () => void } | undefined;

  /** Waits until the gate is opened. */
  pass(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#look();
    });
  }

  /** Resolves once so many requests wait at the gate. */
  arrived(count: number): Promise<void> {
    return new Promise((resolve) => {
      this.#expected = { count, arrived: resolve };
      this.#look();
    });
  }

  /** Lets all requests through that wait. */
  open(): void {
    for (const go of this.#waiting.splice(0)) go();
  }

  #look(): void {
    if (!this.#expected || this.#waiting.length < this.#expected.count) return;
    this.#expected.arrived();
    this.#expected = undefined;
  }
}

export interface RaceAppOptions {
  store: Store;
  gate: Gate;
  /** The version of Express. Default 5. */
  express?: ExpressVersion;
  /** Further options of express-session. */
  session?: Partial<SessionOptions>;
  /** Gets the errors that reach Express's error handler. */
  onError?: (error: unknown) => void;
}

type AnySession = session.Session & Record<string, any>;

const sessionOf = (req: Request) => req.session as AnySession;
const call = (req: Request, method: 'save' | 'reload' | 'regenerate' | 'destroy') =>
  promisify(sessionOf(req)[method]).call(sessionOf(req));

/** An app whose routes use their session in ordinary ways; only the gate makes its requests overlap. */
export function raceApp({ store, gate, express = 5, session: options, onError }: RaceAppOptions): Express {
  const app = express === 4 ? express4() : express5();
  app.use(
    session({
      store,
      secret: 'not a secret',
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: 3_600_000 },
      ...options,
    }),
  );

  function route(path: string, work: (req: Request, name: string) => unknown): void {
    app.post(path, (req, res, next) => {
      Promise.resolve(work(req, String(req.params.name)))
        .then(() => res.json({ done: true }))
        .catch(next);
    });
  }

  app.get('/session', (req, res) => {
    const { cookie, ...data } = sessionOf(req);
    res.json({ data, maxAge: maxAgeOf(cookie), sameSite: cookie.sameSite });
  });
  route('/login/:name', (req, name) => {
    Object.assign(req.session, { user: name, files: {}, deep: { in: { side: {} } } });
  });
  route('/logout', (req) => call(req, 'destroy'));
  route('/regenerate/:name', async (req, name) => {
    await call(req, 'regenerate');
    sessionOf(req).user = name;
  });
  route('/max-age/:name', (req, name) => {
    req.session.cookie.maxAge = Number(name);
  });
  route('/same-site/:name', (req, name) => {
    req.session.cookie.sameSite = name as 'lax';
  });
  route('/key/:name', async (req, name) => {
    await gate.pass();
    sessionOf(req)[name] = name;
  });
  route('/nested/:name', async (req, name) => {
    await gate.pass();
    sessionOf(req).files[name] = { name };
  });
  route('/everywhere/:name', async (req, name) => {
    await gate.pass();
    const own = sessionOf(req);
    own[name] = name;
    own.files[name] = { name };
    own.deep.in.side[name] = [name];
  });
  route('/look', () => gate.pass());
  route('/steps/:name', async (req, name) => {
    sessionOf(req)[`${name} 1`] = true;
    await call(req, 'save');
    await gate.pass();
    sessionOf(req)[`${name} 2`] = true;
    await call(req, 'save');
    sessionOf(req)[`${name} 3`] = true;
  });
  route('/reload/:name', async (req, name) => {
    await gate.pass();
    sessionOf(req).files[name] = 'forgotten';
    await call(req, 'reload');
    sessionOf(req).files[`${name} reloaded`] = true;
  });
  route('/save-and-leave', (req) => {
    sessionOf(req).late = true;
    req.session.save();
    return call(req, 'destroy');
  });
  app.use((error: unknown, _req: unknown, res: any, _next: unknown) => {
    onError?.(error);
    if (!res.headersSent) res.status(500);
    res.end(String(error));
  });
  return app;
}

export interface Listening {
  readonly url: string;
  close(): Promise<void>;
}

export async function listen(app: RequestListener): Promise<Listening> {
  const server = http.createServer(app);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** A browser, which keeps its session's cookie. */
export class Visitor {
  cookie = '';

  async post(url: string): Promise<void> {
    await this.#send('POST', url);
  }

  async session(url: string): Promise<{ data: Record<string, any>; maxAge: number; sameSite: string }> {
    return JSON.parse(await this.#send('GET', `${url}/session`));
  }

  /** Another browser window: it has the same cookie now, and keeps its own from now on. */
  twin(): Visitor {
    return Object.assign(new Visitor(), { cookie: this.cookie });
  }

  async #send(method: string, url: string): Promise<string> {
    const response = await fetch(url, { method, headers: this.cookie ? { cookie: this.cookie } : {} });
    const text = await response.text();
    if (response.status !== 200) throw new Error(`${method} ${url}: ${response.status} ${text}`);
    const [cookie] = response.headers.getSetCookie();
    if (cookie) this.cookie = cookie.split(';')[0] as string;
    return text;
  }
}
