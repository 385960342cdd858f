/** The app processes of `npm run chaos`, and what they tell. */

import { type ChildProcess, fork } from 'node:child_process';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { now } from './clock.js';
import type { Log } from './log.js';
import type { AppOptions, FromApp, ToApp } from './messages.js';

interface App {
  readonly child: ChildProcess;
  /** It has told something: it runs, and takes signals. */
  readonly running: Promise<unknown>;
  /** It makes no more calls. */
  readonly resting: Promise<unknown>;
  readonly ended: Promise<number | null>;
  /** Calls without an answer. */
  open: number;
}

export class AppProcesses {
  readonly #options: Omit<AppOptions, 'name' | 'servesHttp'>;
  readonly #log: Log;
  readonly #apps: App[] = [];
  #started = 0;
  /** Calls that were not answered in time. */
  unanswered = 0;

  /** @param options of all processes; `seed` is that of the run */
  constructor(options: Omit<AppOptions, 'name' | 'servesHttp'>, log: Log) {
    this.#options = options;
    this.#log = log;
  }

  /** Starts a process. Those in every second slot, the first one included, run a Fastify app. */
  start(slot: number): void {
    const number = this.#started++;
    const name = `app${number}`;
    const seed = this.#options.seed * 1000 + number;
    const options: AppOptions = { ...this.#options, name, seed, servesHttp: slot % 2 === 0 };
    // Not as an argument: all users of the machine can see those, and the URI has the password.
    const env = { ...process.env, CHAOS_APP: JSON.stringify(options) };
    const child = fork(path.join(import.meta.dirname, 'app.ts'), { execArgv: ['--import', 'tsx'], env });
    // After all its messages.
    const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
    void ended.then(() => this.#log.processDied(name, now()));
    const running = Promise.race([new Promise((resolve) => child.once('message', resolve)), ended]);
    const isAtRest = new Promise<void>((resolve) =>
      child.on('message', (message: FromApp) => message === 'at rest' && resolve()),
    );
    const app: App = { child, running, resting: Promise.race([isAtRest, ended]), ended, open: 0 };
    this.#apps[slot] = app;
    child.on('message', (message: FromApp) => this.#hear(name, app, message));
  }

  async kill(slot: number): Promise<void> {
    const app = this.#apps[slot];
    app?.child.kill('SIGKILL');
    await app?.ended;
  }

  async terminate(slot: number): Promise<void> {
    const app = this.#apps[slot];
    if (app) await this.#end(app, () => app.child.kill('SIGTERM'));
  }

  /** Lets all processes finish their calls; they go on watching. */
  async rest(): Promise<void> {
    for (const app of this.#apps) tell(app, 'rest');
    await Promise.race([Promise.all(this.#apps.map(({ resting }) => resting)), this.#patience()]);
  }

  async stop(): Promise<void> {
    await Promise.all(this.#apps.map((app) => this.#end(app, () => tell(app, 'stop'))));
  }

  #hear(name: string, app: App, message: FromApp): void {
    if (message === 'at rest') return;
    if ('began' in message) {
      this.#log.began(message.began);
      return;
    }
    const { report } = message;
    this.#log.add(name, report);
    app.open = report.open;
    for (const created of report.created) for (const other of this.#apps) tell(other, { created });
  }

  /** Ends an app in order; what it leaves unanswered counts. */
  async #end(app: App, end: () => void): Promise<void> {
    await app.running;
    end();
    const code = await Promise.race([app.ended, this.#patience()]);
    if (code === 0) return;
    this.unanswered += Math.max(app.open, 1);
    const what = code === 'late' ? 'did not end' : `ended with ${code}`;
    console.error(`an app process ${what}, ${app.open} calls unanswered`);
    app.child.kill('SIGKILL');
    await app.ended;
  }

  #patience(): Promise<'late'> {
    return sleep(5 * this.#options.timeout, 'late', { ref: false });
  }
}

function tell(app: App | undefined, message: ToApp): void {
  if (app?.child.connected) app.child.send(message, () => {});
}
