/** Watches of an app process. */

import type { PgStore } from '../../../lib/index.js';
import { now } from './clock.js';
import type { Reporter } from './reporter.js';

/** How many sessions a process watches at a time. When it begins with another one, it stops the oldest watch. */
const WATCHES = 300;

export class Watching {
  readonly #store: PgStore;
  readonly #reporter: Reporter;
  /** The functions that stop the watches under way, oldest first. */
  readonly #stops = new Map<string, () => void>();

  constructor(store: PgStore, reporter: Reporter) {
    this.#store = store;
    this.#reporter = reporter;
  }

  watch(sid: string): void {
    const id = this.#reporter.newName();
    this.#reporter.report.watched.push({ id, sid });
    const stop = this.#store.watch(sid, (reason) => {
      if (this.#stops.delete(id)) this.#reporter.report.told.push({ id, at: now(), reason });
      else this.#reporter.report.toldAgain.push(id);
    });
    this.#stops.set(id, stop);
    if (this.#stops.size > WATCHES) this.#stopOldest();
  }

  #stopOldest(): void {
    const [oldest] = this.#stops;
    if (!oldest) return;
    const [id, stop] = oldest;
    stop();
    this.#stops.delete(id);
    this.#reporter.report.stopped.push(id);
  }
}
