/**
 * A pgpool-II of one's own before a PostgreSQL server: starts on a free port, stops when asked and with the process.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from './free-port.js';

export class Pgpool {
  /** The server's URI with the address of pgpool-II. */
  readonly uri: string;
  readonly #process: ChildProcess;
  readonly #folder: string;

  private constructor(uri: string, child: ChildProcess, folder: string) {
    this.uri = uri;
    this.#process = child;
    this.#folder = folder;
    running.add(child);
    child.once('exit', () => running.delete(child));
  }

  /** @param target where the server is, with the password if it asks for one */
  static async start(target: string, settings: Record<string, string | number> = {}): Promise<Pgpool> {
    const uri = new URL(target);
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'express-pg-store-'));
    const port = await freePort();
    const config = {
      // Mode `raw` leaves some statements in a transaction that it never commits.
      backend_clustering_mode: 'streaming_replication',
      sr_check_period: 0,
      backend_hostname0: uri.hostname,
      backend_port0: uri.port || 5432,
      // Otherwise pgpool-II gives the server up for good when it is restarted.
      backend_flag0: 'DISALLOW_TO_FAILOVER',
      failover_on_backend_error: 'off',
      load_balance_mode: 'off',
      connection_cache: 'on',
      num_init_children: 40,
      listen_addresses: '127.0.0.1',
      port,
      socket_dir: folder,
      pcp_listen_addresses: '127.0.0.1',
      pcp_port: await freePort(),
      pcp_socket_dir: folder,
      pid_file_name: path.join(folder, 'pgpool.pid'),
      logdir: folder,
      enable_pool_hba: 'on',
      pool_passwd: path.join(folder, 'pool_passwd'),
      ...settings,
    };
    const write = (name: string, text: string) => fs.writeFileSync(path.join(folder, name), text, { mode: 0o600 });
    write(
      'pgpool.conf',
      Object.entries(config)
        .map(([name, value]) => `${name} = '${value}'\n`)
        .join(''),
    );
    write('pool_hba.conf', `host all all 127.0.0.1/32 ${uri.password ? 'scram-sha-256' : 'trust'}\n`);
    write('pool_passwd', `${decodeURIComponent(uri.username)}:TEXT${decodeURIComponent(uri.password)}\n`);
    write('pcp.conf', '');
    const files = ['-f', 'pgpool.conf', '-a', 'pool_hba.conf', '-F', 'pcp.conf'];
    const log = fs.openSync(path.join(folder, 'pgpool.log'), 'a', 0o600);
    const child = spawn('pgpool', ['-n', ...files], {
      ...ownedBySomebody(folder),
      cwd: folder,
      stdio: ['ignore', log, log],
    });
    fs.closeSync(log);
    let failure: Error | undefined;
    child.once('error', (error) => {
      failure = error;
    });
    child.once('exit', (code) => {
      failure ??= new Error(
        `pgpool-II ended with ${code}:\n${fs.readFileSync(path.join(folder, 'pgpool.log'), 'utf8')}`,
      );
    });
    uri.host = `127.0.0.1:${port}`;
    const pooler = new Pgpool(uri.href, child, folder);
    while (!(await answers(port))) {
      if (failure) throw failure;
      await sleep(25);
    }
    return pooler;
  }

  /** Ends it at once, with the connections of its clients. */
  async close(): Promise<void> {
    const child = this.#process;
    if (child.exitCode === null && child.signalCode === null) {
      const exited = new Promise((resolve) => child.once('exit', resolve));
      // pgpool-II's immediate shutdown.
      child.kill('SIGQUIT');
      await exited;
    }
    fs.rmSync(this.#folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

const running = new Set<ChildProcess>();

process.on('exit', () => {
  for (const child of running) child.kill('SIGQUIT');
});

/** As root, it runs as somebody who may do nothing else. */
function ownedBySomebody(folder: string): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const idOf = (flag: string) => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }));
  const ids = { uid: idOf('-u'), gid: idOf('-g') };
  for (const file of ['.', ...fs.readdirSync(folder)]) fs.chownSync(path.join(folder, file), ids.uid, ids.gid);
  return ids;
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}
