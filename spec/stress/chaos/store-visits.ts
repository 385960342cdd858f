/** Visits to sessions by calls of the store, as express-session makes them, and changes from outside of requests. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { PgStore } from '../../../lib/index.js';
import { type AnySession, load, plain } from '../../support/sessions.js';
import type { KnownSessions } from './known-sessions.js';
import type { Created } from './messages.js';
import type { Answer, Reporter } from './reporter.js';
import type { Watching } from './watching.js';

/** No session expires during a run. */
export const LIFETIME_MS = 24 * 3_600_000;

export class StoreVisits {
  readonly #store: PgStore;
  readonly #reporter: Reporter;
  readonly #known: KnownSessions;
  readonly #watching: Watching;
  readonly #pick: () => number;

  constructor(store: PgStore, reporter: Reporter, known: KnownSessions, watching: Watching, pick: () => number) {
    this.#store = store;
    this.#reporter = reporter;
    this.#known = known;
    this.#watching = watching;
    this.#pick = pick;
  }

  /** A call at random. */
  async visit(): Promise<void> {
    const sid = this.#known.any();
    const dice = this.#pick();
    if (sid === undefined || dice < 0.06) await this.#create();
    else if (dice < 0.09) await this.destroy(sid);
    else if (dice < 0.18) await this.#touch(sid);
    else if (dice < 0.3) await this.#find(sid);
    else if (dice < 0.45) await this.#update(sid);
    else await this.#save(sid);
  }

  /** Changes a user's session. */
  async saveOf(user: string, sid: string): Promise<void> {
    await this.#change(sid, (set) => this.#reporter.decisiveCall({ kind: 'save', sid, user }, set));
  }

  async destroy(sid: string): Promise<void> {
    await this.#reporter.decisiveCall({ kind: 'destroy', sid }, () => this.#store.destroy(sid));
  }

  /** Stores a session, which half of the time is watched while it is being saved. */
  store({ sid, user }: Created): Promise<void> {
    const stored = this.#store.set(sid, plain({ isSignedIn: true, user }, LIFETIME_MS));
    if (this.#pick() < 0.5) this.#watching.watch(sid);
    return stored;
  }

  async #create(): Promise<void> {
    const session = { sid: this.#reporter.newName() };
    if (await this.#reporter.call(() => this.store(session))) this.#reporter.created(session);
  }

  async #find(sid: string): Promise<AnySession | undefined> {
    const keys = this.#known.keysOf(sid);
    const answer = await this.#reporter.call(() => load(this.#store, sid));
    if (!answer) return undefined;
    const { value: session, made } = answer;
    if (!session) {
      this.#reporter.missed(sid);
      return undefined;
    }
    this.#reporter.found(sid, made);
    this.#reporter.report.stale += keys.filter((key) => session[key] !== key).length;
    return session;
  }

  async #save(sid: string): Promise<void> {
    await this.#change(sid, (set) => this.#reporter.call(set));
  }

  /** A request that adds a key of its own to the session. */
  async #change(sid: string, call: (set: () => Promise<void>) => Promise<Answer<void> | undefined>): Promise<void> {
    const session = await this.#find(sid);
    if (!session) return;
    await sleep(this.#pick() * 20);
    const key = this.#reporter.newName();
    session[key] = key;
    if (!(await call(() => this.#store.set(sid, session)))) return;
    this.#reporter.report.saved.push([sid, key]);
    this.#known.saved(sid, key);
  }

  async #update(sid: string): Promise<void> {
    const id = this.#reporter.newName();
    const { disturbances } = this.#reporter;
    const answer = await this.#reporter.call(() =>
      this.#store.update(sid, (session: any) => {
        session.count = (session.count ?? 0) + 1;
        session.updates ??= {};
        session.updates[id] = (session.updates[id] ?? 0) + 1;
      }),
    );
    if (!answer) return;
    const mayCountTwice = this.#reporter.disturbances > disturbances;
    if (answer.value) this.#reporter.report.updated.push({ id, sid, mayCountTwice });
    else this.#reporter.missed(sid);
  }

  async #touch(sid: string): Promise<void> {
    const session = await this.#find(sid);
    if (session) await this.#reporter.call(() => this.#store.touch(sid, session));
  }
}
