/** Visits to sessions of users: sign-ins, and calls that destroy many of a user's sessions. */

import type { PgStore } from '../../../lib/index.js';
import { now } from './clock.js';
import type { KnownSessions } from './known-sessions.js';
import type { Reporter } from './reporter.js';
import type { StoreVisits } from './store-visits.js';

/** How many users are in use at a time: few, so that processes meet. */
const USERS = 10;
/** For so many milliseconds: so no user has too many sessions and calls to be checked. */
const USED_FOR = 20_000;

export class UserVisits {
  readonly #store: PgStore;
  readonly #reporter: Reporter;
  readonly #known: KnownSessions;
  readonly #visits: StoreVisits;
  readonly #pick: () => number;

  constructor(store: PgStore, reporter: Reporter, known: KnownSessions, visits: StoreVisits, pick: () => number) {
    this.#store = store;
    this.#reporter = reporter;
    this.#known = known;
    this.#visits = visits;
    this.#pick = pick;
  }

  /** A call at random. */
  async visit(): Promise<void> {
    const user = `user ${Math.floor(now() / USED_FOR)}-${Math.floor(this.#pick() * USERS)}`;
    const sid = this.#known.any(user);
    const dice = this.#pick();
    if (sid === undefined || dice < 0.15) await this.#signIn(user);
    else if (dice < 0.18) await this.#limit(user);
    else if (dice < 0.2) await this.#destroySessions(user, this.#exception(user));
    else if (dice < 0.22) await this.#signInAndOutEverywhere(user);
    else if (dice < 0.25) await this.#visits.destroy(sid);
    else await this.#visits.saveOf(user, sid);
  }

  async #signIn(user: string): Promise<void> {
    const session = { sid: this.#reporter.newName(), user };
    const subject = { kind: 'signIn', ...session } as const;
    if (await this.#reporter.decisiveCall(subject, () => this.#visits.store(session))) this.#reporter.created(session);
  }

  /** Does not wait until the session is stored: it is destroyed all the same. */
  async #signInAndOutEverywhere(user: string): Promise<void> {
    await Promise.all([this.#signIn(user), this.#destroySessions(user, undefined)]);
  }

  async #limit(user: string): Promise<void> {
    const except = this.#exception(user);
    const most = Math.floor(this.#pick() * 5);
    await this.#reporter.decisiveCall(
      { kind: 'limitSessionsOf', user, most, except },
      () => this.#store.limitSessionsOf(user, most, { except }),
      { isLimited: false },
    );
  }

  async #destroySessions(user: string, except: string | undefined): Promise<void> {
    await this.#reporter.decisiveCall(
      { kind: 'destroySessionsOf', user, except },
      () => this.#store.destroySessionsOf(user, { except }),
      { isLimited: false },
    );
  }

  #exception(user: string): string | undefined {
    return this.#pick() < 0.5 ? this.#known.any(user) : undefined;
  }
}
