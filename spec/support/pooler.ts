/** A connection pooler in front of a PostgreSQL server. It stops at the latest when this process ends. */

import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { eventually } from './eventually.js';
import { removeFolder } from './folders.js';
import { guardServer } from './guard.js';
import { giveToServerUser, serverUser } from './server-user.js';

export interface PoolerProgram {
  readonly command: string;
  readonly args: readonly string[];
  /** A temporary folder with the pooler's files, in which it runs; `close()` removes it. */
  readonly folder: string;
  /** The connection string that leads through the pooler. */
  readonly uri: string;
  /** The signal by which it ends, with its clients' connections. */
  readonly signal: NodeJS.Signals;
}

export class Pooler {
  /** The connection string that leads through the pooler. */
  readonly uri: string;
  readonly #program: PoolerProgram;
  readonly #process: ChildProcess;

  private constructor(program: PoolerProgram, child: ChildProcess) {
    this.uri = program.uri;
    this.#program = program;
    this.#process = child;
  }

  /** Resolves once it takes connections. */
  static async start(program: PoolerProgram): Promise<Pooler> {
    const { command, args, folder, uri, signal } = program;
    const logFile = path.join(folder, 'log');
    const log = fs.openSync(logFile, 'a', 0o600);
    const child = spawn(command, args, { ...serverUser(), cwd: folder, stdio: ['ignore', log, log] });
    fs.closeSync(log);
    guardServer(child, signal === 'SIGQUIT' ? 'QUIT' : 'KILL');
    let failure: Error | undefined;
    child.once('error', (error) => {
      failure = error;
    });
    child.once('exit', (code) => {
      failure ??= new Error(`${command} ended with ${code}:\n${fs.readFileSync(logFile, 'utf8')}`);
    });
    await eventually(() => {
      if (failure) throw failure;
      return answers(Number(new URL(uri).port));
    });
    return new Pooler(program, child);
  }

  async close(): Promise<void> {
    const child = this.#process;
    if (child.exitCode === null && child.signalCode === null) {
      const exited = new Promise((resolve) => child.once('exit', resolve));
      child.kill(this.#program.signal);
      await exited;
    }
    await removeFolder(this.#program.folder);
  }
}

/** Writes a file that only the user of servers may read. */
export function writeForServer(file: string, text: string): void {
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
