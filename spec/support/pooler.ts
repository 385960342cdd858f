/**
 * A PgBouncer of one's own before a PostgreSQL server: starts on a free port, stops when asked and
 * with the process.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { freePort } from '../../example/postgres-server.js';
import { eventually } from './eventually.js';
import { endWithProcess } from './guard.js';

export type PoolMode = 'transaction' | 'session' | 'statement';

export class PgBouncer {
  /**
   * Through the pooler. In transaction mode statements are not prepared: PgBouncer 1.20 and older
   * cannot pass them on.
   */
  readonly uri: string;
  readonly #process: ChildProcess;
  readonly #folder: string;

  private constructor(uri: string, child: ChildProcess, folder: string) {
    this.uri = uri;
    this.#process = child;
    this.#folder = folder;
  }

  /** @param target where the server is: postgres://user@host:port/database, without a password */
  static async start(
    target: string,
    mode: PoolMode,
    settings: Record<string, string | number> = {},
  ): Promise<PgBouncer> {
    const { hostname, port: targetPort, username, pathname } = new URL(target);
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'express-pg-store-'));
    const port = await freePort();
    const config = {
      listen_addr: '127.0.0.1',
      listen_port: port,
      unix_socket_dir: '',
      auth_type: 'trust',
      auth_file: path.join(folder, 'users.txt'),
      auth_user: decodeURIComponent(username),
      pool_mode: mode,
      max_client_conn: 2000,
      // The pools of `appPool` send them.
      ignore_startup_parameters: 'options',
      // In session mode each client keeps one.
      default_pool_size: mode === 'session' ? 500 : 60,
      logfile: path.join(folder, 'pgbouncer.log'),
      ...settings,
    };
    const file = path.join(folder, 'pgbouncer.ini');
    const lines = Object.entries(config).map(([name, value]) => `${name} = ${value}`);
    const database = `* = host=${hostname} port=${targetPort}`;
    fs.writeFileSync(config.auth_file, `"${config.auth_user}" ""\n`);
    fs.writeFileSync(file, ['[databases]', database, '[pgbouncer]', ...lines, ''].join('\n'));
    const child = spawn('pgbouncer', [...asSomebody(folder), '-q', file], { stdio: 'ignore' });
    endWithProcess(child);
    let failure: Error | undefined;
    child.once('error', (error) => {
      failure = error;
    });
    child.once('exit', (code) => {
      failure ??= new Error(`PgBouncer ended with ${code}:\n${logOf(folder)}`);
    });
    const prepare = mode === 'session' ? '' : '?prepare=false';
    const pooler = new PgBouncer(`postgres://${username}@127.0.0.1:${port}${pathname}${prepare}`, child, folder);
    await eventually(() => {
      if (failure) throw failure;
      return answers(port);
    });
    return pooler;
  }

  async close(): Promise<void> {
    const child = this.#process;
    if (child.exitCode === null && child.signalCode === null) {
      const exited = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      await exited;
    }
    fs.rmSync(this.#folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** PgBouncer refuses to run as root. */
function asSomebody(folder: string): string[] {
  if (process.getuid?.() !== 0) return [];
  const id = Number(execFileSync('id', ['-u', 'nobody'], { encoding: 'utf8' }));
  const group = Number(execFileSync('id', ['-g', 'nobody'], { encoding: 'utf8' }));
  fs.chownSync(folder, id, group);
  return ['-u', 'nobody'];
}

function logOf(folder: string): string {
  const file = path.join(folder, 'pgbouncer.log');
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '';
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}
