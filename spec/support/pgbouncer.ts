/** PgBouncer in front of a PostgreSQL server, on a free port. */

import path from 'node:path';
import { temporaryFolder } from './folders.js';
import { freePort } from './free-port.js';
import { Pooler, writeForServer } from './pooler.js';

export type PoolMode = 'transaction' | 'session' | 'statement';

/**
 * Starts the pooler, whose clients need the same passwords as those of the server. In transaction mode its connection
 * string turns prepared statements off, which PgBouncer up to 1.20 does not support there.
 *
 * @param target the server's connection string, with the user and password of a superuser
 */
export async function startPgBouncer(
  target: string,
  mode: PoolMode,
  settings: Record<string, string | number> = {},
): Promise<Pooler> {
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
  uri.host = `127.0.0.1:${port}`;
  if (mode !== 'session') uri.searchParams.set('prepare', 'false');
  return Pooler.start({ command: 'pgbouncer', args: [file], folder, uri: uri.href, signal: 'SIGTERM' });
}
