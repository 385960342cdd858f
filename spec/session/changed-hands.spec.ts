/** No stored session mixes two users, whatever requests of two processes do with it at the same time. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { RandomOrder } from '../support/memory-statements.js';
import { MemoryTable } from '../support/memory-table.js';
import { memoryWorld, openMemoryStore } from '../support/memory-world.js';
import { random } from '../support/random.js';
import { type AnySession, generated, load } from '../support/sessions.js';

const USERS = ['A', 'B', 'C'];

/** What a request does with its session before a save. */
interface Step {
  /** `stays`: whoever it was; `nobody`: signs out. */
  readonly becomes: string;
  readonly key: string;
  /** Whether the answer to the save is lost. */
  readonly isLost: boolean;
}

const step: fc.Arbitrary<Step> = fc.record({
  becomes: fc.constantFrom('stays', 'stays', 'stays', 'stays', 'nobody', ...USERS),
  key: fc.constantFrom('x', 'y', 'z'),
  isLost: fc.integer({ min: 0, max: 9 }).map((dice) => dice === 0),
});
/** Each of these saves several times. */
const requests = fc.array(fc.array(step, { minLength: 1, maxLength: 4 }), { minLength: 2, maxLength: 8 });

/** Signs in or out as an app does: nothing of another user stays in the session. */
function become(session: AnySession, user: string): void {
  if (user === 'stays' || (session.user ?? 'nobody') === user) return;
  if (session.user) for (const key of Object.keys(session)) if (key.startsWith('by ')) delete session[key];
  if (user === 'nobody') delete session.user;
  else session.user = user;
}

describe('a session that changes hands, by random requests of two processes', () => {
  afterEach(memoryWorld().closeStores);

  it('never holds what one user’s request wrote beside another `user`', async () => {
    let mixtures = 0;
    let dropped = 0;
    await fc.assert(
      fc.asyncProperty(requests, fc.nat(), async (all, seed) => {
        const table = new MemoryTable();
        const how = { order: new RandomOrder(random(seed)), locked: 0.1 };
        const options = { touchAfter: 0, user: (session: any) => session.user, retry: { attempts: 1 } };
        const stores = [openMemoryStore(options, table, how), openMemoryStore(options, table, how)] as const;
        for (const { store } of stores)
          store.on('dropped', (_handle, _call, why) => (dropped += Number(why !== 'destroyed')));
        await stores[0].store.set('sid', generated(stores[0].store, 'sid', {}));
        const look = () => {
          const { user, ...others } = JSON.parse(String(table.rows.get('sid')?.data));
          const writers = new Set(Object.keys(others).map((key) => key.split(' ')[1]));
          assert(writers.size === 0 || (writers.size === 1 && writers.has(user)), String(table.rows.get('sid')?.data));
          if (writers.size > 0) mixtures++;
        };
        await Promise.all(
          all.map(async (steps, n) => {
            const { store, statements } = stores[n % 2 ? 1 : 0];
            const session = await load(store, 'sid');
            assert(session);
            for (const { becomes, key, isLost } of steps) {
              become(session, becomes);
              if (session.user) session[`by ${session.user} ${key}`] = n;
              if (isLost) statements.lose({ kind: 'update', fault: 'answer lost' });
              // A lost answer is an error of that save; the next one goes on from there.
              await store.set('sid', session).catch((error) => assert.equal(error.code, 'ECONNRESET'));
              look();
            }
          }),
        );
        await memoryWorld().closeStores();
      }),
      { numRuns: 400 },
    );
    assert(mixtures > 1000 && dropped > 100, `${mixtures} and ${dropped}: the programs are too tame`);
  });
});
