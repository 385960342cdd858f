/** `npm start`: the example app, on a PostgreSQL of its own or on the one that DATABASE_URL names. */

import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import pg from 'pg';
import postgres from 'postgres';
import { privateFolder } from '../spec/support/folders.js';
import { isReachable } from '../spec/support/postgres-binaries.js';
import { isDataFolder, PostgresServer } from '../spec/support/postgres-server.js';
import { isRoot } from '../spec/support/server-user.js';
import { createApp } from './app.js';

const FOLDER = path.resolve(process.env.DATA_DIR ?? defaultFolder());
const PASSWORD_FILE = 'postgres-password';

/** Functions that stop what was started. They are called in reverse order at the end. */
const stops: (() => Promise<unknown>)[] = [];
let isStopping = false;

async function start(): Promise<void> {
  let app: http.RequestListener = (_, response) => void response.writeHead(503, { 'retry-after': '1' }).end('Starting');
  const server = http.createServer((request, response) => app(request, response));
  // The port is opened first, so that whoever runs `npm start` twice is told so before PostgreSQL is started.
  await listen(server, process.env.PORT ?? '3000', process.env.HOST ?? '127.0.0.1');

  const uri = process.env.DATABASE_URL || (await ownPostgres());
  const sql = postgres(uri, { onnotice: () => {} });
  stops.push(() => sql.end());
  const pool = new pg.Pool({ connectionString: uri });
  // A connection that is lost while nobody uses it would otherwise end the process.
  pool.on('error', () => {});
  stops.push(() => pool.end());
  const hosts = process.env.HOSTS?.split(',');
  const { app: ready, close } = await createApp({ sql, pool, secret: cookieSecret(), hosts });
  stops.push(close);
  app = ready;

  const { address, port } = server.address() as AddressInfo;
  console.log(`http://${urlHostOf(address)}:${port} is ready. Ctrl-C stops it.`);
}

function urlHostOf(address: string): string {
  if (address === '127.0.0.1') return 'localhost';
  return address.includes(':') ? `[${address}]` : address;
}

async function listen(server: http.Server, port: string, host: string): Promise<void> {
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) throw new Error(`PORT must be a port number, got '${port}'.`);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'EADDRINUSE';
      reject(taken ? new Error(`Port ${port} is taken. Try another one: PORT=${Number(port) + 1} npm start`) : error);
    });
    server.listen(Number(port), host, resolve);
  });
  stops.push(() => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeIdleConnections();
    return closed;
  });
}

/** Starts a PostgreSQL server of the example's own, whose data stay in its folder. @returns its connection string */
async function ownPostgres(): Promise<string> {
  privateFolder(FOLDER);
  const dataDir = path.join(FOLDER, 'postgres');
  if (isDataFolder(dataDir) && !fs.existsSync(path.join(FOLDER, PASSWORD_FILE))) {
    throw new Error(
      `${dataDir} is of an earlier version of this example, without a password. Delete it to begin anew.`,
    );
  }
  console.log(`Starting PostgreSQL; its data are kept in ${dataDir}`);
  const server = await PostgresServer.start({ dataDir, password: keptSecret(PASSWORD_FILE) }).catch((error: Error) => {
    const [, other] = /lock file "postmaster.pid".*?PID (\d+)/s.exec(error.message) ?? [];
    if (other === undefined) throw error;
    throw new Error(`Another PostgreSQL uses these data already: process ${other}. Stop that one first.`);
  });
  stops.push(() => server.close());
  return server.uri;
}

/** The secret of cookies. It is kept between starts, because a new one would sign everybody out. */
function cookieSecret(): string {
  return process.env.SESSION_SECRET || keptSecret('cookie-secret');
}

/** A random secret that is created at the first start and kept in the example's folder. */
function keptSecret(name: string): string {
  privateFolder(FOLDER);
  const file = path.join(FOLDER, name);
  if (!fs.existsSync(file)) fs.writeFileSync(file, randomBytes(32).toString('hex'), { mode: 0o600 });
  return fs.readFileSync(file, 'utf8');
}

/**
 * The folder for data, in the clone if possible. If `npm start` runs as root, PostgreSQL runs as another user, who may
 * be unable to enter the clone, for example below /root.
 */
function defaultFolder(): string {
  const clone = path.join(import.meta.dirname, '..');
  if (!isRoot() || isReachable(clone)) return path.join(clone, '.data');
  return '/var/lib/express-pg-store-example';
}

async function stop(code: number): Promise<void> {
  // A second Ctrl-C ends the process at once.
  if (isStopping) process.exit(1);
  isStopping = true;
  for (const stopOne of stops.reverse()) await stopOne();
  process.exit(code);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void stop(0));

// npm passes a signal only to the shell in which it runs this script, and the shell does not pass it on. The end of
// that shell, which gives this process another parent, is taken for the signal.
const shell = process.ppid;
setInterval(() => process.ppid === shell || isStopping || void stop(0), 500).unref();

start().catch((error: Error) => {
  console.error(error.message);
  return stop(1);
});
