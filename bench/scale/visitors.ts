/** A random population of visitors who create, load, change and leave sessions; the same for the same seed. */

import { random } from '../../spec/support/random.js';

export interface Traffic {
  /** The number of unexpired sessions at any time. */
  readonly sample: number;
  /** The duration of the simulation. */
  readonly seconds: number;
  /** Share of the sessions whose visitors send requests at any time. */
  readonly active: number;
  /** The mean duration of a visit, in seconds. It is distributed exponentially. */
  readonly visit: number;
  /** The mean time between two requests of a visit, in seconds. It is distributed exponentially. */
  readonly pause: number;
  /** Share of the requests that change the session. */
  readonly changes: number;
  /** Share of the visits that end with a sign-out. */
  readonly signOuts: number;
  /** The lifetime of a session after a request, in seconds. */
  readonly ttl: number;
  /** The store's option, in seconds. */
  readonly touchAfter: number;
}

/** Is told what the visitors do. `at` is the time in seconds since the start. */
export interface Calls {
  create(row: number, at: number): void;
  /** @param movesExpiry whether the stored expiry is older than `touchAfter` allows */
  request(row: number, at: number, changes: boolean, movesExpiry: boolean): void;
  destroy(row: number, at: number): void;
  expire(row: number): void;
}

/**
 * While fewer sessions than `sample` are unexpired, the next visitor gets a new session. Otherwise the visitor of an
 * unexpired session comes back. Times are seconds since the start, and a session is named by the number of its row.
 */
export class Visitors {
  readonly #random: () => number;
  /** When each session expires. */
  readonly expiresAt: Float64Array;
  /** When each visitor leaves, and sends the next request. */
  readonly #leavesAt: Float64Array;
  readonly #asksAt: Float64Array;
  /** Sessions whose visitors are away. */
  readonly #idle: number[];
  /** Sessions by the second of their visitors' next request or end of visit, modulo 64 (a timing wheel). */
  readonly #wheel: number[][] = Array.from({ length: 64 }, () => []);
  /** How many rows were created so far. */
  #rows: number;
  /** How many visitors are present. */
  #here = 0;
  /** When the next visitor arrives. */
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

  /** Simulates the second from `time` to `time + 1`. */
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

  /** Puts the session on the wheel, for the next request or the end of the visit. */
  #wait(row: number): void {
    this.#wheel[Math.floor(Math.min(this.#asksAt[row], this.#leavesAt[row])) % 64].push(row);
  }

  #leave(row: number, signsOut: boolean): void {
    this.#here--;
    if (signsOut) this.calls.destroy(row, this.#leavesAt[row]);
    else this.#idle.push(row);
  }

  /** Takes a random session whose visitor is away. */
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

  /** A random number with exponential distribution and mean 1. */
  #exponential(): number {
    return -Math.log(1 - this.#random());
  }
}
