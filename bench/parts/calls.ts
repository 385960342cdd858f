/** Measures the calls of each store, without HTTP. */

import diagnostics from 'node:diagnostics_channel';
import { type Call, measure, type Sample } from '../figures/measure.js';
import { SESSIONS, sessionIdFrom, sessionOf } from '../stores/data.js';
import { type LoadedSession, loadAll, openPgStore, type Peer, type Servers, saveAll } from '../stores/peers.js';

/** The operations: `set` is the store's `set` of a loaded and changed session, `replace` that of a plain object. */
export const OPERATIONS = ['get', 'set', 'replace', 'touch'] as const;
export type Operation = (typeof OPERATIONS)[number];
export const IN_FLIGHT = [128, 1] as const;

/** A store with its calls, which use sessions that were loaded as requests load them. */
export interface Subject {
  readonly peer: Peer;
  readonly calls: Record<Operation, Call>;
}

/** Stores the sessions, and loads them. */
export async function prepare(peer: Peer, sids = sidsOf(SESSIONS)): Promise<Subject> {
  await saveAll(peer, sids, sessionOf);
  return subjectOf(peer, sids);
}

/** Loads sessions that are in the store already. */
export async function subjectOf(peer: Peer, sids: string[]): Promise<Subject> {
  const sessions = await loadAll(peer, sids);
  return { peer, calls: callsOf(peer, sids, sessions) };
}

export function sidsOf(count: number): string[] {
  return Array.from({ length: count }, (_, n) => sessionIdFrom(n));
}

export function callsOf({ store }: Peer, sids: string[], sessions: LoadedSession[]): Record<Operation, Call> {
  // The turn goes on from round to round, so a session is used again only after all the others.
  let turn = 0;
  let views = 0;
  const next = () => turn++ % sids.length;
  const plain = sids.map((_, n) => sessionOf(n) as LoadedSession);
  const touch = store.touch?.bind(store);
  if (!touch) throw new Error('a store without touch');
  return {
    get: (_, done) => store.get(sids[next()], done),
    set: (_, done) => {
      const n = next();
      sessions[n].views = ++views;
      sessions[n].touch();
      store.set(sids[n], sessions[n], done);
    },
    // The plain objects have rows of their own. Otherwise each `set` of a loaded session would meet their changes.
    replace: (_, done) => {
      const n = next();
      plain[n].views = ++views;
      store.set(`plain-${sids[n]}`, plain[n], done);
    },
    // As express-session does at the end of a request, the session gets a new expiry before the store's touch.
    touch: (_, done) => {
      const n = next();
      sessions[n].touch();
      touch(sids[n], sessions[n], done as () => void);
    },
  };
}

/**
 * One round of measurements: for each operation all stores take turns, in another order in each round.
 *
 * @param milliseconds the time of one measurement
 * @param number the number of the round, which decides the order
 */
export async function round(
  subjects: Subject[],
  milliseconds: number,
  number: number,
  add: (name: string, operation: Operation, inFlight: number, sample: Sample) => void,
  inFlights: readonly number[] = IN_FLIGHT,
  operations: readonly Operation[] = OPERATIONS,
): Promise<void> {
  const shift = number % subjects.length;
  const order = [...subjects.slice(shift), ...subjects.slice(0, shift)];
  for (const inFlight of inFlights) {
    for (const operation of operations) {
      for (const { peer, calls } of order) {
        add(peer.name, operation, inFlight, await measure(calls[operation], inFlight, milliseconds));
      }
    }
  }
}

/** Counts the statements that touches send of sessions that were just saved, with the default `touchAfter`. */
export async function skippedTouches(servers: Servers): Promise<{ touches: number; statements: number }> {
  let statements = 0;
  const count = () => {
    statements++;
  };
  const peer = await openPgStore(servers, {});
  const { calls } = await prepare(peer);
  diagnostics.subscribe('express-pg-store:statement', count);
  const touches = 2_000;
  const touch = (n: number) => new Promise<void>((resolve) => calls.touch(n, () => resolve()));
  await Promise.all(Array.from({ length: touches }, (_, n) => touch(n)));
  diagnostics.unsubscribe('express-pg-store:statement', count);
  await peer.close();
  return { touches, statements };
}
