/** The cookbook's graceful shutdown. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import { eventually } from '../support/eventually.js';
import { KeepAliveClients } from '../support/keep-alive-clients.js';
import { freshTable, postgresUri, sqlClient } from '../support/postgres.js';
import { withRecipe } from '../support/recipes.js';

/** What is added to the recipe: an app whose routes answer at once, when it is told, or never. */
const APP = `
import express from 'express';
import session from 'express-session';
import { PgStore } from 'express-pg-store';
const store = new PgStore({ uri: process.env.URI, table: process.env.SESSIONS_TABLE });
const app = express();
app.use(session({ store, secret: 'x', resave: false, saveUninitialized: false }));
app.get('/', (request, response) => {
  request.session.n = 1;
  response.end('answered');
});
app.get('/slow', (request, response) => {
  console.log('asked');
  process.once('SIGTERM', () => setTimeout(() => {
    request.session.slow = true;
    response.end('answered');
  }, 100));
});
app.get('/stream', (request, response) => {
  response.write('beginning');
  console.log('asked');
});
const server = app.listen(0, '127.0.0.1', () => console.log('http://127.0.0.1:' + server.address().port + '/'));
stopOnSignals(server, store, Number(process.env.DEADLINE) || undefined);
`;

describe('graceful shutdown', () => {
  interface Running {
    readonly url: string;
    readonly table: string;
    says(pattern: RegExp): Promise<string>;
    /** Sends SIGTERM; resolves with the exit code. */
    stop(): Promise<number | null>;
  }

  async function withApp(deadline: number, work: (app: Running) => Promise<void>): Promise<void> {
    const table = freshTable();
    const env = { ...process.env, URI: await postgresUri(), SESSIONS_TABLE: table, DEADLINE: String(deadline) };
    await withRecipe(
      'docs/operations.md',
      'stopOnSignals',
      async (file) => {
        const child = spawn(process.execPath, ['--import', 'tsx', file], { env, stdio: ['ignore', 'pipe', 'inherit'] });
        const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
        let output = '';
        child.stdout.setEncoding('utf8').on('data', (text) => {
          output += text;
        });
        const says = (pattern: RegExp) => eventually(() => pattern.exec(output)?.[0] as string);
        const stop = () => {
          child.kill('SIGTERM');
          return ended;
        };
        try {
          await work({ url: await says(/http:\S+(?=\n)/), table, says, stop });
        } finally {
          child.kill('SIGKILL');
          await ended;
        }
      },
      APP,
    );
    const sql = await sqlClient();
    await sql`drop table if exists ${sql(table)}`;
  }

  it('the process ends with code 0 while busy clients keep their connections, and no request is cut off', async () => {
    await withApp(0, async ({ url, table, stop }) => {
      const clients = new KeepAliveClients(url, 8);
      await eventually(() => clients.answers > 50);
      assert.equal(await stop(), 0);
      await clients.stop();
      assert.deepEqual(clients.refusals, []);
      // Each request begins a session, which is stored before the answer.
      const sql = await sqlClient();
      const [{ sessions }] = await sql`select count(*)::int as sessions from ${sql(table)}`;
      assert.equal(sessions, clients.answers);
    });
  });

  it('the process ends although a client keeps a connection without using it', async () => {
    await withApp(0, async ({ url, stop }) => {
      const agent = new http.Agent({ keepAlive: true });
      const [response] = (await once(http.get(url, { agent }), 'response')) as [http.IncomingMessage];
      response.resume();
      await once(response, 'end');
      assert.equal(await stop(), 0);
      agent.destroy();
    });
  });

  it('what is under way is answered and stored, and its connection is the client’s no longer', async () => {
    await withApp(0, async ({ url, table, says, stop }) => {
      const agent = new http.Agent({ keepAlive: true });
      const answer = once(http.get(`${url}slow`, { agent }), 'response');
      await says(/asked/);
      const code = stop();
      const [response] = (await answer) as [http.IncomingMessage];
      assert.equal(response.headers.connection, 'close');
      response.resume();
      await once(response, 'end');
      assert.equal(await code, 0);
      agent.destroy();
      const sql = await sqlClient();
      const rows = await sql`select data::text from ${sql(table)}`;
      assert.deepEqual([...rows], [{ data: '{"slow":true}' }]);
    });
  });

  it('a stream without an end is cut off at the deadline, with code 1', async () => {
    await withApp(300, async ({ url, says, stop }) => {
      const request = http.get(`${url}stream`, (response) => response.on('error', () => {}).resume());
      await says(/asked/);
      assert.equal(await stop(), 1);
      request.destroy();
    });
  });
});
