/** Compares PgStore with two other stores, live: the same small app on each, requested over HTTP. */

import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import express, { type Express } from 'express';
import session, { MemoryStore, type Store } from 'express-session';

export const WRITES = 20;
export const STORES = ['PgStore', 'connect-pg-simple', 'MemoryStore'] as const;
export type StoreName = (typeof STORES)[number];

/** Which of the parallel writes, numbered from 0, are in the session afterwards. */
export type Race = Record<StoreName, number[]>;
export type Speed = { store: StoreName; rate: number };

const CONNECTIONS = 20;
const WARM_UP = 3;
const SLICES = WARM_UP + 11;
const SLICE_MS = 250;

export class Lab {
  readonly #server: http.Server;
  readonly #agent = new http.Agent({ keepAlive: true });
  #busy = false;

  private constructor(server: http.Server) {
    this.#server = server;
  }

  /** The apps listen on this machine only, on a port of their own. */
  static async start(pgStore: Store, connectPgSimple: Store): Promise<Lab> {
    const app = express();
    app.use('/PgStore', smallApp(pgStore));
    app.use('/connect-pg-simple', smallApp(connectPgSimple));
    app.use('/MemoryStore', smallApp(new MemoryStore()));
    const server = http.createServer({ keepAliveTimeout: 0 }, app);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new Lab(server);
  }

  /** Parallel requests on one session, each of which adds its own key. */
  async race(): Promise<Race> {
    const results = await Promise.all(STORES.map(async (store) => [store, await this.#raceOn(store)] as const));
    return Object.fromEntries(results) as Race;
  }

  /**
   * Requests a second on each store, in turns of a quarter of a second, so that all meet the same
   * conditions.
   *
   * @returns whether it ran: one at a time
   */
  async speed(writing: boolean, onRate: (speed: Speed) => void, isWanted: () => boolean): Promise<boolean> {
    if (this.#busy) return false;
    this.#busy = true;
    try {
      const visitors = await Promise.all(STORES.map((store) => this.#visitors(store)));
      for (let slice = 0; slice < SLICES; slice++) {
        for (const [n, store] of STORES.entries()) {
          const rate = await this.#rate(`/${store}/${writing ? 'count' : 'read'}`, visitors[n] ?? []);
          if (slice >= WARM_UP) onRate({ store, rate });
          if (!isWanted()) return true;
        }
      }
      return true;
    } finally {
      this.#busy = false;
    }
  }

  async close(): Promise<void> {
    this.#agent.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #raceOn(store: StoreName): Promise<number[]> {
    const { cookie } = await this.#get(`/${store}/start`);
    await Promise.all(Array.from({ length: WRITES }, (_, n) => this.#get(`/${store}/write/${n}`, cookie)));
    const { body } = await this.#get(`/${store}/end`, cookie);
    return JSON.parse(body);
  }

  #visitors(store: StoreName): Promise<string[]> {
    return Promise.all(
      Array.from({ length: CONNECTIONS }, async () => (await this.#get(`/${store}/start`)).cookie ?? ''),
    );
  }

  async #rate(path: string, cookies: string[]): Promise<number> {
    const begin = performance.now();
    let requests = 0;
    const visit = async (cookie: string) => {
      for (; performance.now() - begin < SLICE_MS; requests++) await this.#get(path, cookie);
    };
    await Promise.all(cookies.map(visit));
    return Math.round((requests / (performance.now() - begin)) * 1000);
  }

  #get(path: string, cookie?: string): Promise<{ body: string; cookie: string | undefined }> {
    const { port } = this.#server.address() as AddressInfo;
    const options = { host: '127.0.0.1', port, path, agent: this.#agent, headers: cookie ? { cookie } : {} };
    return new Promise((resolve, reject) => {
      const request = http.get(options, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text) => {
          body += text;
        });
        response.on('end', () => {
          if (response.statusCode !== 200) reject(new Error(`${path} answered ${response.statusCode}: ${body}`));
          else resolve({ body, cookie: response.headers['set-cookie']?.[0]?.split(';')[0] });
        });
      });
      request.on('error', reject);
    });
  }
}

function smallApp(store: Store): Express {
  const app = express();
  const cookie = { maxAge: 600_000 };
  app.use(session({ store, secret: 'only on this machine', resave: false, saveUninitialized: false, cookie }));
  const data = (request: express.Request) =>
    request.session as unknown as { kept: Record<string, true>; count: number };
  app.get('/start', (request, response) => {
    Object.assign(request.session, { kept: {}, count: 0 });
    response.end();
  });
  app.get('/write/:n', async (request, response) => {
    // As long as a query or a call to another service takes.
    await sleep(25);
    data(request).kept[request.params.n] = true;
    response.end();
  });
  app.get('/read', (request, response) => void response.end(String(data(request).count)));
  app.get('/count', (request, response) => void response.end(String(++data(request).count)));
  app.get('/end', (request, response, next) => {
    const kept = Object.keys(data(request).kept).map(Number);
    request.session.destroy((error) => (error ? next(error) : response.json(kept)));
  });
  return app;
}
