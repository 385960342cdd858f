/** Runs a program of examples/ in a process of its own, as its reader would. */

import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';
import { freePort } from './free-port.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

export class ExampleProgram {
  readonly url: string;
  readonly ended: Promise<number | null>;
  readonly process: ChildProcess;
  #output = '';

  private constructor(port: number, child: ChildProcess) {
    this.url = `http://127.0.0.1:${port}`;
    this.process = child;
    this.ended = new Promise((resolve) => child.once('close', (code) => resolve(code)));
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text) => {
        this.#output += text;
      });
    }
  }

  /** Resolves once the program listens. It imports this project's source as `express-pg-store`. */
  static async start(file: string, databaseUrl: string, variables: NodeJS.ProcessEnv = {}): Promise<ExampleProgram> {
    const port = await freePort();
    const own = { DATABASE_URL: databaseUrl, PORT: String(port), TSX_TSCONFIG_PATH: 'spec/tsconfig.json' };
    const child = spawn(process.execPath, ['--import', 'tsx', `examples/${file}`], {
      cwd: ROOT,
      env: { ...process.env, ...own, ...variables },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const program = new ExampleProgram(port, child);
    await program.says(/http:/);
    return program;
  }

  /** Resolves once the program's output matches. It rejects if the program ends before that. */
  says(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = pattern.exec(this.#output);
        if (!found) return;
        this.process.stdout?.off('data', look);
        resolve(found);
      };
      this.process.stdout?.on('data', look);
      void this.ended.then((code) => reject(new Error(`it ended with ${code}: ${this.#output}`)));
      look();
    });
  }

  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<number | null> {
    this.process.kill(signal);
    return this.ended;
  }
}
