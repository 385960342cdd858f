/**
 * Servers of frameworks that create session objects of their own. Their requests can be made to overlap, in this
 * process or in other processes.
 */

import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { PgStore } from '../../lib/index.js';
import { closeStores, freshTable, openStore, postgresUri } from './postgres.js';
import { Gate, type Listening, Visitor } from './race-app.js';

/**
 * Starts an app with these routes: `POST /login/:name` begins a session; `POST /key/:name` passes the gate, and sets
 * keys of its own at two depths; `POST /logout` destroys the session; `GET /session` shows its data.
 */
export type StartServer = (store: PgStore, gate: Pick<Gate, 'pass'>) => Promise<Listening>;

/** Imports the function `start` of a module. */
export async function startOf(file: string): Promise<StartServer> {
  const { start } = await import(pathToFileURL(file).href);
  return start;
}

/** A server, and the gate of its requests. */
interface Raced extends Listening {
  arrived(count: number): Promise<void>;
  open(): void;
}

async function startHere(file: string, table: string): Promise<Raced> {
  const gate = new Gate();
  const { url, close } = await (await startOf(file))(await openStore({ table }), gate);
  return { url, close, arrived: (count) => gate.arrived(count), open: () => gate.open() };
}

async function startProcess(file: string, table: string): Promise<Raced> {
  const args = [file, await postgresUri(), table];
  const child: ChildProcess = fork(fileURLToPath(import.meta.url), args, { execArgv: ['--import', 'tsx'] });
  const ended = once(child, 'exit').then(([code]) => Promise.reject(new Error(`the process ended with ${code}`)));
  const [url] = (await Promise.race([once(child, 'message'), ended])) as [string];
  ended.catch(() => {});
  return {
    url,
    async arrived(count) {
      const arrived = once(child, 'message');
      child.send(count);
      await arrived;
    },
    open: () => child.send('open'),
    async close() {
      const exited = once(child, 'exit');
      child.disconnect();
      await exited;
    },
  };
}

/**
 * Defines specs which assert that the store's promises hold with the framework of a module, in one process and in two.
 */
export function itKeepsThePromises(file: string): void {
  const places = { 'in one process': [startHere], 'in two processes': [startProcess, startProcess] };
  for (const [place, starts] of Object.entries(places)) {
    describe(place, () => {
      let servers: Raced[] = [];

      before(async () => {
        const table = freshTable();
        servers = await Promise.all(starts.map((start) => start(file, table)));
      });

      after(async () => {
        await Promise.all(servers.map((server) => server.close()));
        await closeStores();
      });

      async function loggedIn(): Promise<Visitor> {
        const visitor = new Visitor();
        await visitor.post(`${servers[0]?.url}/login/ann`);
        return visitor;
      }

      /**
       * Sends 20 requests, in turn to each server. `then` runs when all have loaded the session, and none has saved it.
       */
      async function overlap(visitor: Visitor, then: () => unknown = () => {}): Promise<void> {
        const share = 20 / servers.length;
        const requests = Array.from({ length: 20 }, (_, n) =>
          visitor.twin().post(`${servers[n % servers.length]?.url}/key/r${n}`),
        );
        await Promise.all(servers.map((server) => server.arrived(share)));
        await then();
        for (const server of servers) server.open();
        await Promise.all(requests);
      }

      it('20 parallel requests each keep what they changed', async () => {
        const visitor = await loggedIn();
        await overlap(visitor);
        const names = Array.from({ length: 20 }, (_, n) => `r${n}`);
        for (const { url } of servers) {
          assert.deepEqual((await visitor.session(url)).data, {
            user: 'ann',
            files: Object.fromEntries(names.map((name) => [name, { name }])),
            ...Object.fromEntries(names.map((name) => [name, name])),
          });
        }
      });

      it('a logout is final for requests that had loaded the session before', async () => {
        const visitor = await loggedIn();
        await overlap(visitor, () => visitor.twin().post(`${servers.at(-1)?.url}/logout`));
        for (const { url } of servers) assert.deepEqual((await visitor.twin().session(url)).data, {});
      });
    });
  }
}

async function serve(file: string, uri: string, table: string): Promise<void> {
  const gate = new Gate();
  const store = new PgStore({ uri, table, autodelete: false });
  const { url } = await (await startOf(file))(store, gate);
  process.on('disconnect', () => process.exit());
  process.on('message', async (message: number | 'open') => {
    if (message === 'open') return gate.open();
    await gate.arrived(message);
    process.send?.('arrived');
  });
  process.send?.(url);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [file, uri, table] = process.argv.slice(2) as [string, string, string];
  void serve(file, uri, table);
}
