/** Starts pgpool-II in front of a PostgreSQL server, on a free port. It stops at the latest when this process ends. */

import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { eventually } from './eventually.js';
import { removeFolder, temporaryFolder } from './folders.js';
import { freePort } from './free-port.js';
import { guardServer } from './guard.js';
import { giveToServerUser, serverUser } from './server-user.js';

export class Pgpool {
  /** The connection string that leads through pgpool-II. */
  readonly uri: string;
  readonly #process: ChildProcess;
  readonly #folder: string;

  private constructor(uri: string, child: ChildProcess, folder: string) {
    this.uri = uri;
    this.#process = child;
    this.#folder = folder;
  }

  /** @param target the server's connection string, with the user and password of its clients */
  static async start(target: string, settings: Record<string, string | number> = {}): Promise<Pgpool> {
    const uri = new URL(target);
    const folder = temporaryFolder();
    const port = await freePort();
    // pgpool-II creates its sockets and the file with its process ID in this folder.
    const own = path.join(folder, 'own');
    fs.mkdirSync(own, { mode: 0o700 });
    giveToServerUser(own);
    const config = {
      // In mode `raw`, pgpool-II leaves some statements in a transaction that it never commits.
      backend_clustering_mode: 'streaming_replication',
      sr_check_period: 0,
      backend_hostname0: uri.hostname,
      backend_port0: uri.port || 5432,
      // Without this setting, pgpool-II never uses the server again after a restart of the server.
      backend_flag0: 'DISALLOW_TO_FAILOVER',
      failover_on_backend_error: 'off',
      load_balance_mode: 'off',
      num_init_children: 40,
      listen_addresses: '127.0.0.1',
      port,
      socket_dir: own,
      pcp_listen_addresses: '127.0.0.1',
      pcp_port: await freePort(),
      pcp_socket_dir: own,
      pid_file_name: path.join(own, 'pgpool.pid'),
      logdir: own,
      enable_pool_hba: 'on',
      pool_passwd: path.join(folder, 'pool_passwd'),
      ...settings,
    };
    const files = {
      'pgpool.conf': Object.entries(config)
        .map(([name, value]) => `${name} = '${value}'\n`)
        .join(''),
      'pool_hba.conf': 'host all all 127.0.0.1/32 scram-sha-256\n',
      pool_passwd: `${decodeURIComponent(uri.username)}:TEXT${decodeURIComponent(uri.password)}\n`,
      'pcp.conf': '',
    };
    for (const [name, text] of Object.entries(files)) {
      fs.writeFileSync(path.join(folder, name), text, { mode: 0o600 });
      giveToServerUser(path.join(folder, name));
    }
    const logFile = path.join(folder, 'pgpool.log');
    const log = fs.openSync(logFile, 'a', 0o600);
    const child = spawn('pgpool', ['-n', '-f', 'pgpool.conf', '-a', 'pool_hba.conf', '-F', 'pcp.conf'], {
      ...serverUser(),
      cwd: folder,
      stdio: ['ignore', log, log],
    });
    fs.closeSync(log);
    guardServer(child, 'QUIT');
    let failure: Error | undefined;
    child.once('error', (error) => {
      failure = error;
    });
    child.once('exit', (code) => {
      failure ??= new Error(`pgpool-II ended with ${code}:\n${fs.readFileSync(logFile, 'utf8')}`);
    });
    uri.host = `127.0.0.1:${port}`;
    const pooler = new Pgpool(uri.href, child, folder);
    await eventually(() => {
      if (failure) throw failure;
      return answers(port);
    });
    return pooler;
  }

  /** Ends pgpool-II at once, with its clients' connections ("immediate shutdown"). */
  async close(): Promise<void> {
    const child = this.#process;
    if (child.exitCode === null && child.signalCode === null) {
      const exited = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGQUIT');
      await exited;
    }
    await removeFolder(this.#folder);
  }
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}
