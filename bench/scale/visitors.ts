/**
 * A random population that creates, loads, changes and leaves sessions; the same for the same seed.
 */

import { random } from '../../spec/support/random.js';

export interface Traffic {
  /** Sessions that are alive at any time. */
  readonly sample: number;
  readonly seconds: number;
  /** Share of the sessions whose visitors are there. */
  readonly active: number;
  /** Seconds, on average; both are exponential. */
  readonly visit: number;
  readonly pause: number;
  /** Share of the requests that change the session, and of the visits that end with a sign-out. */
  readonly changes: number;
  readonly signOuts: number;
  readonly ttl: number;
  readonly touchAfter: number;
}

export interface Calls {
  create(row: number, at: number): void;
  /** @param movesExpiry whether `touchAfter` is over */
  request(row: number, at: number, changes: boolean, movesExpiry: boolean): void;
  destroy(row: number, at: number): void;
  expire(row: number): void;
}

/**
 * Where an unexpired session is missing the next visitor gets a new one; the others come back to
 * theirs.
 */
export class Visitors {
  readonly #random: () => number;
  readonly expiresAt: Float64Array;
  readonly #leavesAt: Float64Array;
  readonly #asksAt: Float64Array;
  readonly #idle: number[];
  /** Visitors by the second of their next request. */
  readonly #wheel: number[][] = Array.from({ length: 64 }, () => []);
  #rows: number;
  #here = 0;
  #arrival = 0;

  constructor(
    readonly traffic: Traffic,
    readonly calls: Calls,
    seed = 1,
  ) {
    const { sample, ttl, active, visit, seconds } = traffic;
    this.#random = random(seed);
    const most = Math.ceil(sample * (1.1 + (2 * seconds * active) / visit));
    this.expiresAt = Float64Array.from({ length: most }, () => ttl * this.#random());
    this.#leavesAt = new Float64Array(most);
    this.#asksAt = new Float64Array(most);
    this.#idle = Array.from({ length: sample }, (_, row) => row);
    this.#rows = sample;
  }

  /** All that happens until `time + 1`. */
  second(time: number): void {
    const { sample, active, visit, pause, changes, signOuts, ttl, touchAfter } = this.traffic;
    if (time % Math.ceil(ttl / 1440) === 0) this.#expire(time);
    for (; this.#arrival < time + 1; this.#arrival += (this.#exponential() * visit) / (sample * active)) this.#arrive();
    const asking = this.#wheel[time % 64];
    this.#wheel[time % 64] = [];
    for (const row of asking) {
      while (this.#asksAt[row] < Math.min(time + 1, this.#leavesAt[row])) {
        const expiry = this.#asksAt[row] + ttl;
        const moves = expiry - this.expiresAt[row] >= Math.min(touchAfter, ttl / 10);
        if (moves) this.expiresAt[row] = expiry;
        this.calls.request(row, this.#asksAt[row], this.#random() < changes, moves);
        this.#asksAt[row] += this.#exponential() * pause;
      }
      if (this.#leavesAt[row] >= time + 1) this.#wait(row);
      else this.#leave(row, this.#random() < signOuts);
    }
  }

  #arrive(): void {
    const { sample, ttl, visit, pause } = this.traffic;
    const isNew = this.#idle.length + this.#here < sample;
    const row = isNew ? this.#rows++ : this.#takeIdle();
    if (isNew) {
      this.expiresAt[row] = this.#arrival + ttl;
      this.calls.create(row, this.#arrival);
    }
    this.#asksAt[row] = this.#arrival + (isNew ? this.#exponential() * pause : 0);
    this.#leavesAt[row] = this.#arrival + this.#exponential() * visit;
    this.#wait(row);
    this.#here++;
  }

  /** For the next request or the end of the visit. */
  #wait(row: number): void {
    this.#wheel[Math.floor(Math.min(this.#asksAt[row], this.#leavesAt[row])) % 64].push(row);
  }

  #leave(row: number, signsOut: boolean): void {
    this.#here--;
    if (signsOut) this.calls.destroy(row, this.#leavesAt[row]);
    else this.#idle.push(row);
  }

  #takeIdle(): number {
    const place = Math.floor(this.#random() * this.#idle.length);
    const row = this.#idle[place];
    const last = this.#idle.pop() as number;
    if (last !== row) this.#idle[place] = last;
    return row;
  }

  #expire(time: number): void {
    let left = 0;
    for (const row of this.#idle) {
      if (this.expiresAt[row] <= time) this.calls.expire(row);
      else this.#idle[left++] = row;
    }
    this.#idle.length = left;
  }

  #exponential(): number {
    return -Math.log(1 - this.#random());
  }
}
