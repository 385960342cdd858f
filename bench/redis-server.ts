/**
 * The Redis that is measured: that of REDIS_URL, or one of its own where `redis-server` is
 * installed.
 */

import { execFileSync, spawn } from 'node:child_process';
import { createClient } from 'redis';
import { freePort, temporaryFolder } from '../example/postgres-server.js';
import { endWithProcess } from '../spec/support/guard.js';

export interface Redis {
  readonly url: string;
  readonly version: string;
  close(): Promise<void>;
}

/** Nothing where there is none. Our own writes nothing to disk: its fastest setting. */
export async function startRedis(): Promise<Redis | undefined> {
  const given = process.env.REDIS_URL;
  if (given) return { url: given, version: await versionOf(given), close: async () => {} };
  try {
    execFileSync('redis-server', ['--version'], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  const port = await freePort();
  const settings = ['--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', temporaryFolder()];
  const server = spawn('redis-server', ['--port', String(port), ...settings], { stdio: 'ignore' });
  endWithProcess(server);
  const url = `redis://127.0.0.1:${port}`;
  return {
    url,
    version: await versionOf(url),
    close: async () => {
      const exited = new Promise((resolve) => server.once('exit', resolve));
      server.kill('SIGKILL');
      await exited;
    },
  };
}

/** Waits for the server: the client tries again until it answers. */
async function versionOf(url: string): Promise<string> {
  const client = createClient({ url });
  client.on('error', () => {});
  await client.connect();
  const info = await client.info('server');
  await client.close();
  return /redis_version:(\S+)/.exec(info)?.[1] ?? 'unknown';
}
