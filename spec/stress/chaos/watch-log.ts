/** What the watches of all processes were told, and what they should have been told. */

import type { Destructions } from './destructions.js';
import type { Report, ToldEnd } from './messages.js';

interface Watch {
  readonly sid: string;
  readonly process: string;
}

export class WatchLog {
  begun = 0;
  told = 0;
  readonly toldAgain: string[] = [];
  /** Ends for a reason that cannot be: no session expires during a run. */
  readonly expired: string[] = [];
  readonly #destructions: Destructions;
  /** Those that have neither been told nor stopped, and whose process lives. */
  readonly #open = new Map<string, Watch>();
  readonly #ends: { readonly sid: string; readonly at: number }[] = [];

  constructor(destructions: Destructions) {
    this.#destructions = destructions;
  }

  add(process: string, report: Report): void {
    this.begun += report.watched.length;
    for (const { id, sid } of report.watched) this.#open.set(id, { sid, process });
    for (const end of report.told) this.#end(end);
    for (const id of report.stopped) this.#open.delete(id);
    this.toldAgain.push(...report.toldAgain);
  }

  processDied(process: string): void {
    for (const [id, watch] of this.#open) if (watch.process === process) this.#open.delete(id);
  }

  /** Watches that are to be told: their session has no row. */
  untold(isThere: (sid: string) => boolean): string[] {
    return [...this.#open].filter(([, { sid }]) => !isThere(sid)).map(([id, { sid }]) => `${id} of ${sid}`);
  }

  /**
   * Ends of sessions that nobody had begun to destroy.
   *
   * @param isCreated whether the session's creation was acknowledged
   */
  falseEnds(isCreated: (sid: string) => boolean): string[] {
    const isFalse = ({ sid, at }: { sid: string; at: number }) =>
      isCreated(sid) && !this.#destructions.mayBeGone(sid, at);
    return this.#ends.filter(isFalse).map(({ sid }) => sid);
  }

  #end({ id, at, reason }: ToldEnd): void {
    const watch = this.#open.get(id);
    if (!watch) throw new Error('the end of a watch that is not open');
    this.#open.delete(id);
    this.told++;
    this.#ends.push({ sid: watch.sid, at });
    if (reason !== 'destroyed') this.expired.push(`${watch.sid}: ${reason}`);
  }
}
