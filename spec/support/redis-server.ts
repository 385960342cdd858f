/**
 * The Redis server of benchmark and specs: the one in REDIS_URL, or one of their own if `redis-server` is installed.
 */

import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createClient } from 'redis';
import { temporaryFolder } from './folders.js';
import { freePort } from './free-port.js';
import { guardServer } from './guard.js';

export interface Redis {
  readonly url: string;
  readonly version: string;
  close(): Promise<void>;
}

/** Starts Redis with its fastest settings, which write nothing to disk. @returns `undefined` if there is no Redis */
export async function startRedis(): Promise<Redis | undefined> {
  const given = process.env.REDIS_URL;
  if (given) return { url: given, version: await versionOf(given), close: async () => {} };
  try {
    execFileSync('redis-server', ['--version'], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  const port = await freePort();
  const password = randomBytes(24).toString('hex');
  const server = spawn('redis-server', ['-'], { cwd: '/', stdio: ['pipe', 'ignore', 'ignore'] });
  guardServer(server, 'KILL');
  // The settings contain a password, so they are not passed as arguments, which all users of the machine can see.
  server.stdin?.end(
    `port ${port}\nbind 127.0.0.1\nrequirepass ${password}\nsave ""\nappendonly no\ndir ${temporaryFolder()}\n`,
  );
  const url = `redis://:${password}@127.0.0.1:${port}`;
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

/** The server's version. The client tries to connect until the server answers. */
async function versionOf(url: string): Promise<string> {
  const client = createClient({ url });
  client.on('error', () => {});
  await client.connect();
  const info = await client.info('server');
  await client.close();
  return /redis_version:(\S+)/.exec(info)?.[1] ?? 'unknown';
}
