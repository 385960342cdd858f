/** Measures a whole Express 5 app with each store, under load from another process. */

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Sample } from '../figures/measure.js';
import type { PeerName, Servers } from '../stores/peers.js';
import type { Answer } from './app-process.js';
import type { Load, LoadResult } from './load-process.js';

export const CONNECTIONS = 100;

/** An app in a process of its own. */
export class App {
  readonly name: PeerName;
  readonly port: number;
  readonly #process: ChildProcess;

  private constructor(name: PeerName, port: number, child: ChildProcess) {
    this.name = name;
    this.port = port;
    this.#process = child;
  }

  static async start(name: PeerName, servers: Servers): Promise<App> {
    // The connection strings contain passwords, so they are not passed as arguments, which all users of a machine see.
    const child = start('app-process.ts', { BENCH_APP: JSON.stringify({ name, servers }) });
    const { port } = await answer<Answer>(child);
    return new App(name, port as number, child);
  }

  /** The app's CPU time so far, and its event loop delay since the last call. */
  async usage(): Promise<Required<Pick<Answer, 'cpu' | 'delay'>>> {
    const answered = answer<Required<Answer>>(this.#process);
    this.#process.send('usage');
    return answered;
  }

  stop(): Promise<void> {
    return stop(this.#process);
  }
}

/** The load generator in a process of its own. */
export class LoadGenerator {
  readonly #process = start('load-process.ts');

  async run(load: Load): Promise<LoadResult> {
    const answered = answer<LoadResult>(this.#process);
    this.#process.send(load);
    const result = await answered;
    if (result.failed > 0) throw new Error(`${result.failed} of ${result.requests} requests to ${load.path} failed`);
    return result;
  }

  stop(): Promise<void> {
    return stop(this.#process);
  }
}

export async function measureApp(app: App, generator: LoadGenerator, path: string, seconds: number): Promise<Sample> {
  const before = await app.usage();
  const { rate, p50, p99, requests } = await generator.run({
    port: app.port,
    path,
    connections: CONNECTIONS,
    seconds,
  });
  const { cpu, delay } = await app.usage();
  return { rate, p50, p99, cpu: (cpu - before.cpu) / requests, delay };
}

function start(script: string, variables: NodeJS.ProcessEnv = {}): ChildProcess {
  const file = fileURLToPath(new URL(script, import.meta.url));
  return fork(file, { execArgv: ['--import', 'tsx'], env: { ...process.env, ...variables } });
}

/** Stops a child process. Both scripts end when they are disconnected. */
async function stop(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit');
  child.disconnect();
  await exited;
}

/** The child's next message. It rejects if the child ends instead. */
function answer<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const gone = (code: number | null) =>
      reject(new Error(`${path.basename(child.spawnargs.at(-1) ?? '')} ended (${code})`));
    child.once('exit', gone);
    child.once('message', (message) => {
      child.off('exit', gone);
      resolve(message as T);
    });
  });
}
