/** In which order do calls take effect? Per session, the order in which they were made. */

type Start = () => void;

interface Lane {
  readers: number;
  writing: boolean;
  readonly queue: { readonly write: boolean; readonly start: Start }[];
}

/**
 * Runs tasks of one key in call order; tasks of different keys do not wait for each other.
 *
 * Reads of one key may run side by side; a write runs alone. A key costs memory only while it has tasks.
 */
export class KeyOrder {
  readonly #lanes = new Map<string, Lane>();
  /** What came after a running or waiting `exclusive` task. */
  #held: Start[] | undefined;
  #whenIdle: Start | undefined;

  read<T>(key: string, task: () => Promise<T>): Promise<T> {
    return this.#enter(key, false, task);
  }

  write<T>(key: string, task: () => Promise<T>): Promise<T> {
    return this.#enter(key, true, task);
  }

  /** Runs a task that concerns every key: after all that was called before it, before all that is called after it. */
  exclusive<T>(task: () => Promise<T>): Promise<T> {
    if (this.#held) return this.#hold(this.#held, () => this.exclusive(task));
    this.#held = [];
    return this.#runExclusive(task);
  }

  async #runExclusive<T>(task: () => Promise<T>): Promise<T> {
    try {
      if (this.#lanes.size > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
      return await task();
    } finally {
      const held = this.#held ?? [];
      this.#held = undefined;
      // At once, before anything called from now on; those after another exclusive task go back behind it.
      for (const start of held) start();
    }
  }

  #hold<T>(held: Start[], enter: () => Promise<T>): Promise<T> {
    return new Promise((resolve) => held.push(() => resolve(enter())));
  }

  #enter<T>(key: string, write: boolean, task: () => Promise<T>): Promise<T> {
    if (this.#held) return this.#hold(this.#held, () => this.#enter(key, write, task));
    let lane = this.#lanes.get(key);
    if (!lane) {
      lane = { readers: 0, writing: false, queue: [] };
      this.#lanes.set(key, lane);
    } else if (lane.writing || write || lane.queue.length > 0) {
      const busy = lane;
      return new Promise<void>((start) => busy.queue.push({ write, start })).then(() =>
        this.#track(key, busy, write, task),
      );
    }
    if (write) lane.writing = true;
    else lane.readers++;
    return this.#track(key, lane, write, task);
  }

  #track<T>(key: string, lane: Lane, write: boolean, task: () => Promise<T>): Promise<T> {
    const leave = () => this.#leave(key, lane, write);
    const running = task();
    running.then(leave, leave);
    return running;
  }

  #leave(key: string, lane: Lane, write: boolean): void {
    if (write) lane.writing = false;
    else lane.readers--;
    for (let next = lane.queue[0]; next; next = lane.queue[0]) {
      if (lane.writing || (next.write && lane.readers > 0)) return;
      lane.queue.shift();
      if (next.write) lane.writing = true;
      else lane.readers++;
      next.start();
    }
    if (lane.writing || lane.readers > 0) return;
    this.#lanes.delete(key);
    if (this.#lanes.size === 0) {
      this.#whenIdle?.();
      this.#whenIdle = undefined;
    }
  }
}
