/** Shows for each store what becomes of a session if its visitor signs out while a slow request still has it. */

import http from 'node:http';
import type { AddressInfo } from 'node:net';
import express, { type Express, type Request } from 'express';
import session, { type SessionData, type Store } from 'express-session';
import { type Html, html } from './html.js';
import { STORES, type StoreName } from './lab.js';

/** For each store, the name of the visitor who is signed in at the end; `null`: nobody is. */
export type LateRequest = Record<StoreName, string | null>;

/** Coordinates a slow request with the sign-out: the request waits after it has loaded its session. */
class SlowRequest {
  /** Resolves when the request has loaded its session. */
  readonly arrived: Promise<void>;
  readonly signedOut: Promise<void>;
  arrive: () => void = () => {};
  goOn: () => void = () => {};

  constructor() {
    this.arrived = new Promise((resolve) => {
      this.arrive = resolve;
    });
    this.signedOut = new Promise((resolve) => {
      this.goOn = resolve;
    });
  }
}

export class LateRequests {
  readonly #server: http.Server;
  readonly #slow = new Map<string, SlowRequest>();
  #runs = 0;

  private constructor(stores: Record<StoreName, Store>) {
    const app = express();
    for (const name of STORES) app.use(`/${name}`, this.#appOn(stores[name]));
    this.#server = http.createServer(app);
  }

  /** Starts the apps, on a port of their own that only this machine can reach. */
  static async start(stores: Record<StoreName, Store>): Promise<LateRequests> {
    const requests = new LateRequests(stores);
    await new Promise<void>((resolve) => requests.#server.listen(0, '127.0.0.1', resolve));
    return requests;
  }

  async run(): Promise<LateRequest> {
    const results = await Promise.all(STORES.map(async (store) => [store, await this.#runOn(store)] as const));
    return Object.fromEntries(results) as LateRequest;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #runOn(store: StoreName): Promise<string | null> {
    const id = String(this.#runs++);
    const slow = new SlowRequest();
    this.#slow.set(id, slow);
    const signIn = await this.#request(store, 'sign-in/ada');
    const [cookie] = signIn.headers.getSetCookie().map((text) => text.split(';')[0] ?? '');
    const request = this.#request(store, `slow/${id}`, cookie);
    await slow.arrived;
    await this.#request(store, 'sign-out', cookie);
    slow.goOn();
    await request;
    this.#slow.delete(id);
    return (await this.#request(store, 'who', cookie)).json() as Promise<string | null>;
  }

  async #request(store: StoreName, route: string, cookie = ''): Promise<Response> {
    const { port } = this.#server.address() as AddressInfo;
    const response = await fetch(`http://127.0.0.1:${port}/${store}/${route}`, { headers: { cookie } });
    if (!response.ok) throw new Error(`${store}/${route} answered ${response.status}`);
    return response;
  }

  #appOn(store: Store): Express {
    const app = express();
    const cookie = { maxAge: 60_000 };
    app.use(session({ store, secret: 'only on this machine', resave: false, saveUninitialized: false, cookie }));
    const dataOf = (request: Request) => request.session as SessionData & { name?: string; work?: string };
    app.get('/sign-in/:name', (request, response) => {
      dataOf(request).name = request.params.name;
      response.end();
    });
    app.get('/slow/:id', async (request, response) => {
      const slow = this.#slow.get(request.params.id);
      slow?.arrive();
      await slow?.signedOut;
      dataOf(request).work = 'done';
      response.end();
    });
    app.get('/sign-out', (request, response, next) => {
      request.session.destroy((error) => (error ? next(error) : response.end()));
    });
    app.get('/who', (request, response) => void response.json(dataOf(request).name ?? null));
    return app;
  }
}

/** The panel of the page that shows the result. */
export function latePanel(result: LateRequest | undefined): Html {
  return html`<section id="late-request">
  <h2>The late request</h2>
  <p>A slow request changes the session. Before it ends, its visitor signs out. Who is the visitor afterwards?</p>
  ${STORES.map((store) => {
    const name = result?.[store];
    const told = name ? html`<b>signed in again as ${name}</b>` : html`signed out for good`;
    return html`<p class="line" data-late="${store}"><b class="${store}">${store}</b>
      <output>${result ? told : 'not run yet'}</output></p>`;
  })}
  <form method="post" action="/late-request"><button class="main">Sign out during a request</button></form>
</section>`;
}
