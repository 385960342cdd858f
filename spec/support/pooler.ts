/** Starts PgBouncer in front of a PostgreSQL server, on a free port. It stops at the latest when this process ends. */

import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { eventually } from './eventually.js';
import { removeFolder, temporaryFolder } from './folders.js';
import { freePort } from './free-port.js';
import { guardServer } from './guard.js';
import { giveToServerUser, serverUser } from './server-user.js';

export type PoolMode = 'transaction' | 'session' | 'statement';

export class PgBouncer {
  /**
   * The connection string that leads through the pooler. In transaction mode it turns prepared statements off, which
   * PgBouncer up to 1.20 does not support there.
   */
  readonly uri: string;
  readonly #process: ChildProcess;
  readonly #folder: string;

  private constructor(uri: string, child: ChildProcess, folder: string) {
    this.uri = uri;
    this.#process = child;
    this.#folder = folder;
  }

  /**
   * Starts the pooler, whose clients need the same passwords as those of the server.
   *
   * @param target the server's connection string, with the user and password of a superuser
   */
  static async start(
    target: string,
    mode: PoolMode,
    settings: Record<string, string | number> = {},
  ): Promise<PgBouncer> {
    const uri = new URL(target);
    const folder = temporaryFolder();
    const port = await freePort();
    const user = decodeURIComponent(uri.username);
    const config = {
      listen_addr: '127.0.0.1',
      listen_port: port,
      unix_socket_dir: '',
      auth_type: 'scram-sha-256',
      auth_file: path.join(folder, 'users.txt'),
      // PgBouncer asks the server for the passwords of all users as this user.
      auth_user: user,
      pool_mode: mode,
      max_client_conn: 2000,
      // The pools of `appPool` send these parameters, which PgBouncer would otherwise refuse.
      ignore_startup_parameters: 'options',
      // In session mode each client keeps a connection of its own.
      default_pool_size: mode === 'session' ? 500 : 60,
      ...settings,
    };
    const lines = Object.entries(config).map(([name, value]) => `${name} = ${value}`);
    const database = `* = host=${uri.hostname} port=${uri.port || 5432}`;
    const file = path.join(folder, 'pgbouncer.ini');
    writeForServer(config.auth_file, `"${user}" "${decodeURIComponent(uri.password)}"\n`);
    writeForServer(file, ['[databases]', database, '[pgbouncer]', ...lines, ''].join('\n'));
    const log = fs.openSync(path.join(folder, 'pgbouncer.log'), 'a', 0o600);
    const child = spawn('pgbouncer', [file], { ...serverUser(), cwd: folder, stdio: ['ignore', 'ignore', log] });
    fs.closeSync(log);
    guardServer(child, 'KILL');
    let failure: Error | undefined;
    child.once('error', (error) => {
      failure = error;
    });
    child.once('exit', (code) => {
      failure ??= new Error(
        `PgBouncer ended with ${code}:\n${fs.readFileSync(path.join(folder, 'pgbouncer.log'), 'utf8')}`,
      );
    });
    uri.host = `127.0.0.1:${port}`;
    if (mode !== 'session') uri.searchParams.set('prepare', 'false');
    const pooler = new PgBouncer(uri.href, child, folder);
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
    await removeFolder(this.#folder);
  }
}

/** Writes a file that only the user of servers may read. */
function writeForServer(file: string, text: string): void {
  fs.writeFileSync(file, text, { mode: 0o600 });
  giveToServerUser(file);
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}
