/** Keeps calls on one session ID in the order in which they were made. */

/** Runs a task in the order of the calls on a key, such as a session ID. */
export type InOrder<T> = (key: string, task: () => Promise<T>) => Promise<T>;

type Start = () => void;

interface LockState {
  readers: number;
  isWriting: boolean;
  readonly queue: { readonly isWrite: boolean; readonly start: Start }[];
}

/**
 * Runs the tasks of one key in the order of the calls. Tasks of different keys do not wait for each other.
 *
 * Reads of one key may run at the same time, and a write runs alone (a readers-writer lock). A key takes up memory only
 * while it has tasks.
 */
export class KeyedReadWriteLock {
  readonly #locks = new Map<string, LockState>();

  read<T>(key: string, task: () => Promise<T>): Promise<T> {
    return this.#enter(key, false, task);
  }

  write<T>(key: string, task: () => Promise<T>): Promise<T> {
    return this.#enter(key, true, task);
  }

  /** Resolves when all tasks have ended that the key has at this moment. */
  async idle(key: string): Promise<void> {
    if (this.#locks.has(key)) await this.#enter(key, true, async () => {});
  }

  #enter<T>(key: string, isWrite: boolean, task: () => Promise<T>): Promise<T> {
    let lock = this.#locks.get(key);
    if (!lock) {
      lock = { readers: 0, isWriting: false, queue: [] };
      this.#locks.set(key, lock);
    } else if (lock.isWriting || isWrite || lock.queue.length > 0) {
      return this.#wait(key, lock, isWrite, task);
    }
    occupy(lock, isWrite);
    return this.#run(key, lock, isWrite, task);
  }

  async #wait<T>(key: string, lock: LockState, isWrite: boolean, task: () => Promise<T>): Promise<T> {
    await new Promise<void>((start) => lock.queue.push({ isWrite, start }));
    return this.#run(key, lock, isWrite, task);
  }

  #run<T>(key: string, lock: LockState, isWrite: boolean, task: () => Promise<T>): Promise<T> {
    const leave = () => this.#leave(key, lock, isWrite);
    const running = task();
    running.then(leave, leave);
    return running;
  }

  #leave(key: string, lock: LockState, wasWrite: boolean): void {
    if (wasWrite) lock.isWriting = false;
    else lock.readers--;
    for (let next = lock.queue.at(0); next; next = lock.queue.at(0)) {
      if (lock.isWriting || (next.isWrite && lock.readers > 0)) return;
      lock.queue.shift();
      occupy(lock, next.isWrite);
      next.start();
    }
    if (!lock.isWriting && lock.readers === 0) this.#locks.delete(key);
  }
}

function occupy(lock: LockState, isWrite: boolean): void {
  if (isWrite) lock.isWriting = true;
  else lock.readers++;
}
