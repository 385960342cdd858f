/** pgpool-II in front of a PostgreSQL server, on a free port. */

import fs from 'node:fs';
import path from 'node:path';
import { temporaryFolder } from './folders.js';
import { freePort } from './free-port.js';
import { Pooler, writeForServer } from './pooler.js';
import { giveToServerUser } from './server-user.js';

/** @param target the server's connection string, with the user and password of its clients */
export async function startPgpool(target: string, settings: Record<string, string | number> = {}): Promise<Pooler> {
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
  const lines = Object.entries(config).map(([name, value]) => `${name} = '${value}'\n`);
  writeForServer(path.join(folder, 'pgpool.conf'), lines.join(''));
  writeForServer(path.join(folder, 'pool_hba.conf'), 'host all all 127.0.0.1/32 scram-sha-256\n');
  writeForServer(config.pool_passwd, `${decodeURIComponent(uri.username)}:TEXT${decodeURIComponent(uri.password)}\n`);
  writeForServer(path.join(folder, 'pcp.conf'), '');
  uri.host = `127.0.0.1:${port}`;
  const args = ['-n', '-f', 'pgpool.conf', '-a', 'pool_hba.conf', '-F', 'pcp.conf'];
  // The signal of an immediate shutdown.
  return Pooler.start({ command: 'pgpool', args, folder, uri: uri.href, signal: 'SIGQUIT' });
}
