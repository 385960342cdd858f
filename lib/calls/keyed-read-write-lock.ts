/** The order of calls: on one session ID, that in which they were made. */

type Start = () => void;

interface LockState {
  readers: number;
  writing: boolean;
  readonly queue: { readonly write: boolean; readonly start: Start }[];
}

/**
 * Runs tasks of one key in call order; tasks of different keys do not wait for each other.
 *
 * Reads of one key may run side by side; a write runs alone. A key costs memory only while it has tasks.
 */
export class KeyedReadWriteLock {
  readonly #locks = new Map<string, LockState>();
  /** What came after a running or waiting `exclusive` task. */
  #blockedByExclusive: Start[] | undefined;
  #whenIdle: Start | undefined;

  read<T>(key: string, task: () => Promise<T>): Promise<T> {
    return this.#enter(key, false, task);
  }

  write<T>(key: string, task: () => Promise<T>): Promise<T> {
    return this.#enter(key, true, task);
  }

  /** Runs a task that concerns every key: after all that was called before it, before all that is called after it. */
  exclusive<T>(task: () => Promise<T>): Promise<T> {
    if (this.#blockedByExclusive) return this.#hold(this.#blockedByExclusive, () => this.exclusive(task));
    this.#blockedByExclusive = [];
    return this.#runExclusive(task);
  }

  async #runExclusive<T>(task: () => Promise<T>): Promise<T> {
    try {
      if (this.#locks.size > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
      return await task();
    } finally {
      const blocked = this.#blockedByExclusive ?? [];
      this.#blockedByExclusive = undefined;
      // At once, before anything called from now on; those after another exclusive task go back behind it.
      for (const start of blocked) start();
    }
  }

  #hold<T>(blocked: Start[], enter: () => Promise<T>): Promise<T> {
    return new Promise((resolve) => blocked.push(() => resolve(enter())));
  }

  #enter<T>(key: string, write: boolean, task: () => Promise<T>): Promise<T> {
    if (this.#blockedByExclusive) return this.#hold(this.#blockedByExclusive, () => this.#enter(key, write, task));
    let lock = this.#locks.get(key);
    if (!lock) {
      lock = { readers: 0, writing: false, queue: [] };
      this.#locks.set(key, lock);
    } else if (lock.writing || write || lock.queue.length > 0) {
      const busy = lock;
      return new Promise<void>((start) => busy.queue.push({ write, start })).then(() =>
        this.#track(key, busy, write, task),
      );
    }
    if (write) lock.writing = true;
    else lock.readers++;
    return this.#track(key, lock, write, task);
  }

  #track<T>(key: string, lock: LockState, write: boolean, task: () => Promise<T>): Promise<T> {
    const leave = () => this.#leave(key, lock, write);
    const running = task();
    running.then(leave, leave);
    return running;
  }

  #leave(key: string, lock: LockState, write: boolean): void {
    if (write) lock.writing = false;
    else lock.readers--;
    for (let next = lock.queue[0]; next; next = lock.queue[0]) {
      if (lock.writing || (next.write && lock.readers > 0)) return;
      lock.queue.shift();
      if (next.write) lock.writing = true;
      else lock.readers++;
      next.start();
    }
    if (lock.writing || lock.readers > 0) return;
    this.#locks.delete(key);
    if (this.#locks.size === 0) {
      this.#whenIdle?.();
      this.#whenIdle = undefined;
    }
  }
}
