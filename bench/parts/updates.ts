/** Compares `update` with what apps do without it: `get`, a change, `set`. */

import type { SessionData } from 'express-session';
import type { PgStore } from '../../lib/index.js';
import { type Call, measure } from '../figures/measure.js';
import { ratioOf, type UpdateRow } from '../figures/results.js';
import { Samples } from '../figures/samples.js';
import { sessionOf } from '../stores/data.js';
import { load, openPgStore, type Servers, saveAll } from '../stores/peers.js';
import { sidsOf } from './calls.js';

export const UPDATE = 'update';
export const GET_THEN_SET = 'get, then set';
export const UPDATES_IN_FLIGHT = [1, 128] as const;

/** The results for each number of calls in flight. */
export function updateRows(samples: Samples): UpdateRow[] {
  return UPDATES_IN_FLIGHT.map((inFlight) => ({
    inFlight,
    ratio: ratioOf(samples, UPDATE, GET_THEN_SET, 'update', inFlight),
  }));
}

export async function updates(
  servers: Servers,
  milliseconds: number,
  rounds: number,
  onStep: (part: string) => void,
): Promise<Samples> {
  const peer = await openPgStore(servers, { table: 'updates' });
  const store = peer.store as PgStore;
  const sids = sidsOf(2_000);
  await saveAll(peer, sids, sessionOf);
  let turn = 0;
  const nextSid = () => sids[turn++ % sids.length] as string;
  const calls: Record<string, Call> = {
    [UPDATE]: (_, done) => {
      store.update(nextSid(), addView).then(() => done(), done);
    },
    [GET_THEN_SET]: (_, done) => {
      const sid = nextSid();
      load(peer, sid).then((session) => {
        addView(session);
        store.set(sid, session, done);
      }, done);
    },
  };
  const samples = new Samples();
  for (let round = 0; round <= rounds; round++) {
    for (const inFlight of UPDATES_IN_FLIGHT) {
      for (const [name, call] of Object.entries(calls)) {
        onStep(`${name}, ${inFlight} in flight`);
        const sample = await measure(call, inFlight, milliseconds);
        // The first round warms up the compiler and the caches, and is not counted.
        if (round > 0) samples.add(name, 'update', inFlight, sample);
      }
    }
  }
  await peer.close();
  return samples;
}

function addView(session: SessionData): void {
  const counted = session as unknown as { views: number };
  counted.views++;
}
