/** A session that changes hands is not mixed: what one user's request wrote never stands beside another user. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { parseOptions } from '../../lib/options.js';
import { Codec, type Content } from '../../lib/session/codec.js';
import { Reconciler, type Side, sideThatCounts } from '../../lib/session/reconcile.js';

const NOBODY = null;
const [A, B, C] = ['A', 'B', 'C'];
const USERS = [NOBODY, A, B, C];

/** docs: the users of base, ours and theirs, and whose content the row then gets. */
const TABLE: readonly (readonly [string | null, string | null, string | null, Side])[] = [
  // 1. Both sides have the same user.
  ...USERS.flatMap((base) => USERS.map((user) => [base, user, user, 'both'] as const)),
  // 2. A visitor without a user, whom one of the two requests signs in.
  ...[A, B, C].flatMap((user) => [[NOBODY, user, NOBODY, 'both'] as const, [NOBODY, NOBODY, user, 'both'] as const]),
  // 3. The request ran for a user who has signed out, or in as somebody else.
  [A, A, NOBODY, 'theirs'],
  [A, A, B, 'theirs'],
  [A, A, C, 'theirs'],
  [B, B, NOBODY, 'theirs'],
  [B, B, A, 'theirs'],
  [B, B, C, 'theirs'],
  [C, C, NOBODY, 'theirs'],
  [C, C, A, 'theirs'],
  [C, C, B, 'theirs'],
  // 4. The request signs somebody in or out itself: over a user who is still there, …
  [A, NOBODY, A, 'ours'],
  [A, B, A, 'ours'],
  [A, C, A, 'ours'],
  [B, NOBODY, B, 'ours'],
  [B, A, B, 'ours'],
  [B, C, B, 'ours'],
  [C, NOBODY, C, 'ours'],
  [C, A, C, 'ours'],
  [C, B, C, 'ours'],
  // … where others sign somebody in or out at the same time, …
  [A, NOBODY, B, 'ours'],
  [A, NOBODY, C, 'ours'],
  [A, B, NOBODY, 'ours'],
  [A, C, NOBODY, 'ours'],
  [A, B, C, 'ours'],
  [A, C, B, 'ours'],
  [B, NOBODY, A, 'ours'],
  [B, NOBODY, C, 'ours'],
  [B, A, NOBODY, 'ours'],
  [B, C, NOBODY, 'ours'],
  [B, A, C, 'ours'],
  [B, C, A, 'ours'],
  [C, NOBODY, A, 'ours'],
  [C, NOBODY, B, 'ours'],
  [C, A, NOBODY, 'ours'],
  [C, B, NOBODY, 'ours'],
  [C, A, B, 'ours'],
  [C, B, A, 'ours'],
  // … and where two users sign in to one visitor's session.
  [NOBODY, A, B, 'ours'],
  [NOBODY, A, C, 'ours'],
  [NOBODY, B, A, 'ours'],
  [NOBODY, B, C, 'ours'],
  [NOBODY, C, A, 'ours'],
  [NOBODY, C, B, 'ours'],
];

interface Stored {
  user?: string;
  /** By the user for whom a request wrote it. */
  [wroteFor: `by ${string}`]: string;
}

const codec = new Codec(parseOptions({ user: (session: any) => session.user }, {}));
const reconciler = new Reconciler(parseOptions({}, {}), codec);
const content = (data: object): Content => ({ data: JSON.stringify(data), cookie: '{"path":"/"}' });

describe('a session that changes hands', () => {
  it('is decided for each of the 64 combinations of users', () => {
    assert.equal(new Set(TABLE.map((line) => line.slice(0, 3).join())).size, 64);
    for (const [base, ours, theirs, side] of TABLE) {
      assert.equal(sideThatCounts(base, ours, theirs), side, `${base}, ${ours}, ${theirs}`);
    }
  });

  it('holds both sides’ changes, ours alone, or theirs alone', () => {
    const reconcile = (base: object, ours: object, theirs: object) => {
      const result = reconciler.reconcile(content(base), content(ours), content(theirs));
      return result && JSON.parse(result.data);
    };
    assert.deepEqual(reconcile({ cart: 1 }, { cart: 1, user: 'A' }, { cart: 2 }), { cart: 2, user: 'A' });
    assert.deepEqual(reconcile({ user: 'A' }, { user: 'A', x: 1 }, { user: 'A', y: 2 }), { user: 'A', x: 1, y: 2 });
    assert.equal(reconcile({ user: 'A' }, { user: 'A', x: 1 }, { y: 2 }), undefined);
    assert.deepEqual(reconcile({ user: 'A' }, { user: 'B', role: 'owner' }, { user: 'A', y: 2 }), {
      user: 'B',
      role: 'owner',
    });
    assert.deepEqual(reconcile({}, { user: 'A', role: 'owner' }, { user: 'B', role: 'guest' }), {
      user: 'A',
      role: 'owner',
    });
  });

  it('makes nobody of the keys of two sides whom neither of them has signed in', () => {
    const user = ({ tenant, name }: any) => tenant && name && `${tenant}/${name}`;
    const byTenant = new Reconciler(parseOptions({}, {}), new Codec(parseOptions({ user }, {})));
    const signsIn = content({ tenant: 'shop', name: 'ann', cart: 1 });
    const chooses = content({ tenant: 'bank' });
    assert.deepEqual(byTenant.reconcile(content({}), signsIn, chooses), signsIn);
    assert.equal(byTenant.reconcile(content({}), chooses, signsIn), undefined);
    assert.equal(byTenant.reconcile(content({}), content({ name: 'ann' }), chooses), undefined);
    assert.deepEqual(JSON.parse(String(byTenant.reconcile(content({}), content({ basket: 1 }), signsIn)?.data)), {
      tenant: 'shop',
      name: 'ann',
      cart: 1,
      basket: 1,
    });
  });

  it('keeps the cookie of the side that counts', () => {
    const withCookie = (data: object, path: string) => ({ ...content(data), cookie: JSON.stringify({ path }) });
    const base = withCookie({ user: 'A' }, '/');
    const ours = reconciler.reconcile(base, withCookie({}, '/'), withCookie({ user: 'A' }, '/theirs'));
    assert.deepEqual(ours, withCookie({}, '/'));
  });

  it('fails where option `user` throws, or is given what is not a user', () => {
    for (const [user, error] of [
      [
        () => {
          throw new Error('of the app');
        },
        /of the app/,
      ],
      [() => ({}) as string, { code: 'INVALID_USER' }],
    ] as const) {
      const broken = new Reconciler(parseOptions({}, {}), new Codec(parseOptions({ user }, {})));
      assert.throws(() => broken.reconcile(content({}), content({ a: 1 }), content({ b: 1 })), error);
    }
  });

  it('never holds what a request wrote for one user beside another user, in any history of requests', () => {
    const request = fc.record({
      /** How many saves others have done between its load and its save. */
      loadedBefore: fc.nat(4),
      becomes: fc.constantFrom<'stays' | string | null>('stays', 'stays', 'stays', ...USERS),
      key: fc.constantFrom('x', 'y'),
    });
    fc.assert(
      fc.property(fc.array(request, { minLength: 1, maxLength: 12 }), (requests) => {
        const history: Stored[] = [{}];
        for (const { loadedBefore, becomes, key } of requests) {
          const base = history[Math.max(0, history.length - 1 - loadedBefore)] as Stored;
          const ours: any = structuredClone(base);
          if (becomes === null) delete ours.user;
          else if (becomes !== 'stays') ours.user = becomes;
          // Signing out or in as somebody else begins anew, as a careful app does.
          if (base.user !== undefined && ours.user !== base.user)
            for (const name of Object.keys(ours)) {
              if (name.startsWith('by ')) delete ours[name];
            }
          if (ours.user !== undefined) ours[`by ${ours.user} ${key}`] = ours.user;
          const theirs = history.at(-1) as Stored;
          const stored = reconciler.reconcile(content(base), content(ours), content(theirs));
          history.push(stored ? JSON.parse(stored.data) : theirs);
          const { user, ...others } = history.at(-1) as Stored;
          for (const writer of Object.values(others)) assert.equal(writer, user, JSON.stringify(history, null, 1));
        }
      }),
      { numRuns: 5000 },
    );
  });
});
