/** Compares PgStore with two other stores while the page is open: it sends requests to the same small app on each. */

import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import express, { type Express } from 'express';
import session, { MemoryStore, type Store } from 'express-session';

/** How many requests write to the session at the same time. */
export const WRITES = 20;
export const STORES = ['PgStore', 'connect-pg-simple', 'MemoryStore'] as const;
export type StoreName = (typeof STORES)[number];

/** For each store, which of the parallel writes, numbered from 0, are in the session afterwards. */
export type Race = Record<StoreName, number[]>;
/** The rate of a store in one turn, in requests a second. */
export type Speed = { store: StoreName; rate: number };

/** How many visitors send requests at the same time. */
const CONNECTIONS = 20;
/** How many turns of each store come first and are not reported. */
const WARM_UP_TURNS = 3;
const TURNS = WARM_UP_TURNS + 11;

export class Lab {
  readonly #server: http.Server;
  readonly #turnMs: number;
  readonly #agent = new http.Agent({ keepAlive: true });
  #isMeasuring = false;

  private constructor(server: http.Server, turnMs: number) {
    this.#server = server;
    this.#turnMs = turnMs;
  }

  /**
   * Starts the apps, on a port of their own that only this machine can reach.
   *
   * @param turnMs how long a store's turn takes when speed is measured, in milliseconds
   */
  static async start(pgStore: Store, connectPgSimple: Store, turnMs: number): Promise<Lab> {
    const app = express();
    app.use('/PgStore', smallApp(pgStore));
    app.use('/connect-pg-simple', smallApp(connectPgSimple));
    app.use('/MemoryStore', smallApp(new MemoryStore()));
    const server = http.createServer({ keepAliveTimeout: 0 }, app);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new Lab(server, turnMs);
  }

  /** Sends parallel requests on one session of each store. Each request adds a key of its own to the session. */
  async race(): Promise<Race> {
    const results = await Promise.all(STORES.map(async (store) => [store, await this.#raceOn(store)] as const));
    return Object.fromEntries(results) as Race;
  }

  /**
   * Measures the requests a second on each store. The stores take short turns, so that other work on
   * the machine affects all of them alike.
   *
   * @param writes whether each request changes its session, or only reads it
   * @param onRate gets the rate of each turn, after the warm-up
   * @param isWanted is asked after each turn whether to go on
   * @returns `false`, without measuring, if a measurement was running already
   */
  async speed(writes: boolean, onRate: (speed: Speed) => void, isWanted: () => boolean): Promise<boolean> {
    if (this.#isMeasuring) return false;
    this.#isMeasuring = true;
    try {
      const visitors = await Promise.all(STORES.map((store) => this.#visitors(store)));
      for (let turn = 0; turn < TURNS; turn++) {
        for (const [n, store] of STORES.entries()) {
          const rate = await this.#rate(`/${store}/${writes ? 'count' : 'read'}`, visitors[n] ?? []);
          if (turn >= WARM_UP_TURNS) onRate({ store, rate });
          if (!isWanted()) return true;
        }
      }
      return true;
    } finally {
      this.#isMeasuring = false;
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

  /** The cookies of new visitors. */
  #visitors(store: StoreName): Promise<string[]> {
    return Promise.all(
      Array.from({ length: CONNECTIONS }, async () => (await this.#get(`/${store}/start`)).cookie ?? ''),
    );
  }

  /** Requests a second in one turn, in which each visitor sends one request after the other. */
  async #rate(path: string, cookies: string[]): Promise<number> {
    const begin = performance.now();
    let requests = 0;
    const visit = async (cookie: string) => {
      for (; performance.now() - begin < this.#turnMs; requests++) await this.#get(path, cookie);
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

/** The app that runs on each of the stores. */
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
    // The request takes as long as one with a query or a call to another service, so that the writes overlap.
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
