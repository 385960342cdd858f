/** Server processes for races between processes. Each one serves Express 4 and 5 on one store. */

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { RedisStore } from 'connect-redis';
import type { Store } from 'express-session';
import { createClient } from 'redis';
import { PgStore } from '../../lib/index.js';
import { type ExpressVersion, Gate, listen, raceApp } from './race-app.js';

/** The number of shards of the specs' tables, which is `SHARDS` in spec/support/postgres.ts. */
const SHARDS = Number(process.env.SESSIONS_SHARDS || 0);

type Message = { expect: number } | 'open' | 'close';

/** A server process, for the spec that has started it. */
export class RaceProcess {
  readonly urls: Record<ExpressVersion, string>;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, urls: Record<ExpressVersion, string>) {
    this.#child = child;
    this.urls = urls;
  }

  /**
   * @param table the table of a PgStore; empty for a process that uses connect-redis alone
   * @param redis the connection string of connect-redis, which is in option `previous` if there is a table
   */
  static async start(uri: string, table: string, redis = ''): Promise<RaceProcess> {
    const root = path.join(import.meta.dirname, '..', '..');
    const child = fork(fileURLToPath(import.meta.url), [uri, table, redis], {
      cwd: root,
      execArgv: ['--import', 'tsx'],
    });
    const urls = await Promise.race([
      once(child, 'message').then(([message]) => message),
      once(child, 'exit').then(([code]) => Promise.reject(new Error(`the process ended with ${code}`))),
    ]);
    return new RaceProcess(child, urls);
  }

  /** Resolves once so many requests wait at the process's gate. */
  async arrived(count: number): Promise<void> {
    const arrived = once(this.#child, 'message');
    this.#send({ expect: count });
    await arrived;
  }

  open(): void {
    this.#send('open');
  }

  async close(): Promise<void> {
    const exited = once(this.#child, 'exit');
    this.#send('close');
    await exited;
  }

  #send(message: Message): void {
    this.#child.send(message);
  }
}

async function serve(uri: string, table: string, redis: string): Promise<void> {
  const client = redis ? createClient({ url: redis }) : undefined;
  await client?.connect();
  const other = client && new RedisStore({ client });
  const own = table
    ? new PgStore({
        uri,
        table,
        autodelete: false,
        timeout: 60_000,
        previous: other,
        ...(SHARDS && { shards: SHARDS }),
      })
    : undefined;
  const store = (own ?? other) as Store;
  const gate = new Gate();
  const servers = await Promise.all(([4, 5] as const).map((express) => listen(raceApp({ store, gate, express }))));
  const close = async () => {
    await Promise.all(servers.map((server) => server.close()));
    await own?.close();
    await client?.close();
    if (process.connected) process.disconnect();
  };
  process.on('disconnect', () => process.exit());
  process.on('message', async (message: Message) => {
    if (message === 'open') gate.open();
    else if (message === 'close') await close();
    else {
      await gate.arrived(message.expect);
      process.send?.('arrived');
    }
  });
  process.send?.({ 4: servers[0]?.url, 5: servers[1]?.url });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [uri, table, redis] = process.argv.slice(2) as [string, string, string];
  // With a top-level `await`, Mocha would load the files that import this one a second time, and with them the shared
  // server.
  void serve(uri, table, redis);
}
