/** Assertions about a network that cuts connections, for specs of each transport. */

import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import type { PgStore } from '../../lib/index.js';
import { Load } from './fault-load.js';
import type { FaultProxy } from './fault-proxy.js';
import { plain } from './sessions.js';

/** Cuts all connections again and again while 32 writers save. No call fails, and no acknowledged write is lost. */
export async function assertSurvivesCuts(
  store: PgStore,
  proxy: FaultProxy,
  cuts: number,
  { uri, table }: { uri: string; table: string },
): Promise<void> {
  const writers = await Load.start(store);
  for (let n = 0; n < cuts; n++) {
    await writers.progress(20);
    proxy.cut();
  }
  await writers.progress();
  await writers.stop();
  assert.deepEqual(writers.errors, []);
  assert.equal(await writers.lost(uri, table), 0);
}

/**
 * Cuts an idle connection. A statement is answered, whichever moment of the cut it is sent at.
 *
 * @param store has one connection
 */
export async function assertAnswersDuringCuts(store: PgStore, proxy: FaultProxy): Promise<void> {
  for (let turns = 0; turns < 8; turns++) {
    await store.get('sid');
    proxy.cut();
    for (let n = 0; n < turns; n++) await setImmediate();
    await store.set('sid', plain({ turns }));
    assert.equal(((await store.get('sid')) as any).turns, turns);
  }
}
