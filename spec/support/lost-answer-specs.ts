/**
 * Specs of saves whose answer was lost: such a save does not count twice, and does not come back after its request has
 * undone it.
 */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { PgStoreOptions } from '../../lib/index.js';
import type { Loss } from './losing-answers.js';
import { data, loaded, plain } from './sessions.js';
import type { World } from './worlds.js';

const LOST: Loss = { kind: 'update', fault: 'answer lost' };
const RESET = { code: 'ECONNRESET' };

/** Adds up what the sides counted. */
const counters = (base: any, ours: any, theirs: any) => ({ ...theirs, ...ours, n: theirs.n + ours.n - base.n });

/** @param world where the specs run */
export function describeLostAnswers(world: World): void {
  describe(`a save whose answer was lost, ${world.name}`, () => {
    afterEach(world.closeStores);

    /** Opens a store that can lose answers, and another one on its table, which stands for another process. */
    async function open(options: PgStoreOptions = {}) {
      const table = await world.createTable();
      const retry = { attempts: 1, delay: 1 };
      const { store: other } = await table.open(options);
      const { store, lose } = await table.openLosing({ retry, ...options });
      await store.set('sid', plain({ n: 0 }));
      return { store, other, lose };
    }

    for (const encryption of [{}, { encryptionKey: 'k'.repeat(32) }]) {
      const how = 'encryptionKey' in encryption ? ', encrypted' : '';

      it(`counts once where the store repeats it${how}`, async () => {
        const { store, lose } = await open({ ...encryption, retry: { attempts: 2, delay: 1 }, merge: counters });
        const request = await loaded(store, 'sid');
        for (const n of [1, 2]) {
          request.n++;
          lose(LOST);
          await store.set('sid', request);
          assert.deepEqual(await data(store, 'sid'), { n });
        }
      });

      it(`counts once where the app repeats it, with another change or without${how}`, async () => {
        const { store, lose } = await open({ ...encryption, merge: counters });
        const request = await loaded(store, 'sid');
        request.n++;
        lose(LOST);
        await assert.rejects(store.set('sid', request), RESET);
        await store.set('sid', request);
        assert.deepEqual(await data(store, 'sid'), { n: 1 });
        request.n++;
        lose(LOST);
        await assert.rejects(store.set('sid', request), RESET);
        request.n++;
        await store.set('sid', request);
        assert.deepEqual(await data(store, 'sid'), { n: 3 });
      });
    }

    it('is undone once its request removed what it had set, and saved again', async () => {
      for (const between of [false, true]) {
        const { store, other, lose } = await open();
        const request = await loaded(store, 'sid');
        request.user = 'ann';
        lose(LOST);
        await assert.rejects(store.set('sid', request), RESET);
        if (between) {
          const theirs = await loaded(other, 'sid');
          assert.equal(theirs.user, 'ann', 'it was done');
          theirs.theirs = 1;
          await other.set('sid', theirs);
        }
        delete request.user;
        await store.set('sid', request);
        assert.deepEqual(await data(store, 'sid'), between ? { n: 0, theirs: 1 } : { n: 0 });
      }
    });

    it('takes its cookie back, too', async () => {
      const { store, lose } = await open();
      const request = await loaded(store, 'sid');
      request.a = 1;
      request.cookie.sameSite = 'none';
      lose(LOST);
      await assert.rejects(store.set('sid', request), RESET);
      request.cookie.sameSite = undefined;
      await store.set('sid', request);
      assert.equal((await loaded(store, 'sid')).cookie.sameSite, undefined);
    });

    it('stays with what another process saved on top of it, where the store repeats it', async () => {
      const { store, other, lose } = await open({ retry: { attempts: 2, delay: 1 } });
      const request = await loaded(store, 'sid');
      request.ours = 1;
      lose({
        ...LOST,
        meanwhile: async () => {
          const theirs = await loaded(other, 'sid');
          theirs.theirs = theirs.ours;
          await other.set('sid', theirs);
        },
      });
      await store.set('sid', request);
      assert.deepEqual(await data(store, 'sid'), { n: 0, ours: 1, theirs: 1 });
    });

    it('in any sequence of saves done, lost and not sent, of one request beside another process: the last acknowledged one stands', async () => {
      const { store, other, lose } = await open();
      const step = fc.record({
        change: fc.dictionary(fc.constantFrom('a', 'b', 'c'), fc.option(fc.nat(2)), { maxKeys: 2 }),
        fault: fc.constantFrom('answered', 'not sent', 'answer lost') as fc.Arbitrary<Loss['fault'] | 'answered'>,
        /** Whether the other process saves a change before the next step. */
        between: fc.boolean(),
      });
      let sids = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 10 }), async (steps) => {
          const sid = `sid${++sids}`;
          await store.set(sid, plain({ a: 0 }));
          const request = await loaded(store, sid);
          let theirs: number | undefined;
          for (const [n, { change, fault, between }] of [
            ...steps,
            { change: {}, fault: 'answered' as const, between: false },
          ].entries()) {
            for (const [key, value] of Object.entries(change)) {
              if (value === null) delete request[key];
              else request[key] = value;
            }
            if (fault !== 'answered') lose({ kind: 'update', fault });
            // A save that needs no statement succeeds, whatever the fault.
            const isAnswered = await store.set(sid, request).then(
              () => true,
              () => false,
            );
            lose({ kind: 'no statement', fault: 'not sent' });
            if (isAnswered) {
              const { cookie: _, ...ours } = request;
              assert.deepEqual(await data(other, sid), { ...ours, ...(theirs === undefined ? {} : { theirs }) });
            }
            if (between) {
              const session = await loaded(other, sid);
              session.theirs = theirs = n;
              await other.set(sid, session);
            }
          }
        }),
        { numRuns: 200 },
      );
    });
  });
}
