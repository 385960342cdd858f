/** Makes the calls of an app process, and tells the main process of them. */

import { now } from './clock.js';
import type { Created, FromApp, Report, Subject } from './messages.js';

/** The answer to a call, and when the call was made. */
export interface Answer<T> {
  readonly value: T;
  readonly made: number;
}

interface CallOptions {
  /** Whether option `timeout` limits the whole call. Default `true`. */
  isLimited?: boolean;
}

export class Reporter {
  /** What has not been told yet. */
  report = emptyReport();
  /** How many calls have failed, and statements been repeated, so far: an answer may have been lost each time. */
  disturbances = 0;
  readonly #process: string;
  #open = 0;
  #names = 0;

  /** @param process the name of this process */
  constructor(process: string) {
    this.#process = process;
  }

  /** A name that no process has used. */
  newName(): string {
    return `${this.#process}-${this.#names++}`;
  }

  /** Resolves once the message is on its way: it arrives, even if this process is killed then. */
  tell(message: FromApp): Promise<void> {
    return new Promise((resolve) => (process.connected ? process.send?.(message, () => resolve()) : resolve()));
  }

  flush(): Promise<void> {
    const report = { ...this.report, open: this.#open };
    this.report = emptyReport();
    return this.tell({ report });
  }

  /** Makes a call; `undefined` if it failed. */
  async call<T>(make: () => Promise<T>, { isLimited = true }: CallOptions = {}): Promise<Answer<T> | undefined> {
    const made = now();
    this.report.calls++;
    this.#open++;
    try {
      return { value: await make(), made };
    } catch (error: any) {
      this.disturbances++;
      this.report.failed++;
      this.report.codes[error.code] = (this.report.codes[error.code] ?? 0) + 1;
      return undefined;
    } finally {
      this.#open--;
      if (isLimited) this.report.longest = Math.max(this.report.longest, now() - made);
    }
  }

  /** Makes a call that decides which sessions are there, and tells of it before and afterwards. */
  async decisiveCall<T>(
    subject: Subject,
    make: () => Promise<T>,
    options?: CallOptions,
  ): Promise<Answer<T> | undefined> {
    const id = this.newName();
    await this.tell({ began: { id, process: this.#process, at: now(), subject } });
    const made = now();
    const answer = await this.call(make, options);
    this.report.ended.push({ id, made, at: now(), isAcknowledged: answer !== undefined });
    return answer;
  }

  created(session: Created): void {
    this.report.created.push(session);
  }

  /** A call that was made at that time has found the session. */
  found(sid: string, made: number): void {
    this.report.found[sid] = Math.max(this.report.found[sid] ?? 0, made);
  }

  /** A call that was answered just now has not found the session. */
  missed(sid: string): void {
    this.report.missed[sid] ??= now();
  }
}

export function emptyReport(): Report {
  return {
    calls: 0,
    failed: 0,
    dropped: 0,
    open: 0,
    longest: 0,
    codes: {},
    requests: 0,
    created: [],
    saved: [],
    updated: [],
    ended: [],
    found: {},
    missed: {},
    stale: 0,
    watched: [],
    told: [],
    toldAgain: [],
    stopped: [],
  };
}
