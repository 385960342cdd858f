/** The order of calls: calls on one session ID take effect in call order. */

type Start = () => void;

interface LockState {
  readers: number;
  writing: boolean;
  readonly queue: { readonly write: boolean; readonly start: Start }[];
}

/** A task on many keys under way. */
interface Bulk {
  readonly forKey: (key: string, isLater: boolean) => Promise<unknown>;
  /** What `forKey` does, by key. */
  readonly running: Map<string, Promise<unknown>>;
}

/**
 * Runs tasks of one key in call order; tasks of different keys do not wait for each other.
 *
 * Reads of one key may run side by side; a write runs alone. A key costs memory only while it has
 * tasks.
 */
export class KeyedReadWriteLock {
  readonly #locks = new Map<string, LockState>();
  readonly #bulks = new Set<Bulk>();

  read<T>(key: string, task: () => Promise<T>): Promise<T> {
    return this.#enter(key, false, task);
  }

  write<T>(key: string, task: () => Promise<T>): Promise<T> {
    return this.#enter(key, true, task);
  }

  /**
   * Runs a task on many keys, nobody knows which, and holds up none of them. A key that has tasks
   * at the call, or gets one before the task ends, gets `forKey` as a write in the task's place:
   * after what was called before the task, before what is called after it.
   *
   * @param rest the task, without the keys that it is given: those that have tasks at the call
   * @param forKey the task on one key; `isLater`: one that `rest` did not get
   * @returns what each of them resolved with
   */
  async bulk<T>(
    rest: (keys: string[]) => Promise<T>,
    forKey: (key: string, isLater: boolean) => Promise<T>,
  ): Promise<T[]> {
    const keys = [...this.#locks.keys()];
    const running = new Map<string, Promise<T>>();
    const bulk = { forKey, running };
    for (const key of keys) this.#place(bulk, key, false);
    this.#bulks.add(bulk);
    try {
      return [await rest(keys), ...(await Promise.all(running.values()))];
    } finally {
      this.#bulks.delete(bulk);
      await Promise.allSettled(running.values());
    }
  }

  #place(bulk: Bulk, key: string, isLater: boolean): void {
    if (bulk.running.has(key)) return;
    const task = this.#queue(key, true, () => bulk.forKey(key, isLater));
    task.catch(() => {});
    bulk.running.set(key, task);
  }

  #enter<T>(key: string, write: boolean, task: () => Promise<T>): Promise<T> {
    for (const bulk of this.#bulks) this.#place(bulk, key, true);
    return this.#queue(key, write, task);
  }

  #queue<T>(key: string, write: boolean, task: () => Promise<T>): Promise<T> {
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
  }
}
