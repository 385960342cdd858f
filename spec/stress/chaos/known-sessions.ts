/** The sessions that an app process has heard of, and what it has saved in them. */

import type { Created } from './messages.js';

/** How many sessions are in use at a time: few, so that processes meet. */
const SESSIONS = 40;
/** The same of each user. */
const SESSIONS_OF_USER = 8;
const USERS = 30;

export class KnownSessions {
  readonly #pick: () => number;
  readonly #sids: string[] = [];
  readonly #ofUsers = new Map<string, string[]>();
  readonly #keys = new Map<string, string[]>();

  /** @param pick random numbers from 0 to below 1 */
  constructor(pick: () => number) {
    this.#pick = pick;
  }

  add({ sid, user }: Created): void {
    const sids = user === undefined ? this.#sids : this.#sidsOf(user);
    sids.push(sid);
    if (sids.length > (user === undefined ? SESSIONS : SESSIONS_OF_USER)) this.#keys.delete(sids.shift() as string);
  }

  /** One of the sessions without a user, or of the user, at random; `undefined` where there is none. */
  any(user?: string): string | undefined {
    const sids = user === undefined ? this.#sids : (this.#ofUsers.get(user) ?? []);
    return sids[Math.floor(this.#pick() * sids.length)];
  }

  /** A save of this process that added the key was acknowledged. */
  saved(sid: string, key: string): void {
    const keys = this.#keys.get(sid);
    if (keys) keys.push(key);
    else this.#keys.set(sid, [key]);
  }

  /** The keys that this process has saved in the session. */
  keysOf(sid: string): readonly string[] {
    return [...(this.#keys.get(sid) ?? [])];
  }

  /** Users are in use for a while only: the oldest are forgotten. */
  #sidsOf(user: string): string[] {
    const known = this.#ofUsers.get(user);
    if (known) return known;
    const sids: string[] = [];
    this.#ofUsers.set(user, sids);
    const [oldest] = this.#ofUsers.keys();
    if (this.#ofUsers.size > USERS && oldest !== undefined) this.#forgetUser(oldest);
    return sids;
  }

  #forgetUser(user: string): void {
    for (const sid of this.#ofUsers.get(user) ?? []) this.#keys.delete(sid);
    this.#ofUsers.delete(user);
  }
}
