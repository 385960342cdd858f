/**
 * Every history of calls is one that a plain model could have produced, whatever their order and
 * timing.
 */

import assert from 'node:assert/strict';
import { setImmediate as tick } from 'node:timers/promises';
import { promisify } from 'node:util';
import fc from 'fast-check';
import type { PgStore } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { closeStores, freshTable, openStore } from '../support/postgres.js';
import { explain, type Flat, type Operation } from '../support/race-model.js';
import { type AnySession, generated, load } from '../support/sessions.js';

/** Requests of one program, the last two of them on the second store, as in another process. */
const REQUESTS = 4;
/** Where a request may change something: no two paths lie inside each other. */
const PATHS = ['user', 'a', 'b', 'files.a', 'files.b', 'deep.in.a', 'deep.in.b'];

type Action =
  | { do: 'load' | 'new' | 'save' | 'touch' | 'destroy' | 'regenerate' | 'signOut' }
  | { do: 'change' | 'remove'; path: string }
  | { do: 'cookie' };

interface Step {
  readonly request: number;
  readonly action: Action;
  /** Whether the program waits for the answers of all calls so far. */
  readonly waits: boolean;
}

const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 4, arbitrary: fc.constant<Action>({ do: 'load' }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('change' as const), path: fc.constantFrom(...PATHS) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('remove' as const), path: fc.constantFrom(...PATHS) }) },
  { weight: 7, arbitrary: fc.constant<Action>({ do: 'save' }) },
  { weight: 2, arbitrary: fc.constant<Action>({ do: 'touch' }) },
  { weight: 1, arbitrary: fc.constant<Action>({ do: 'cookie' }) },
  { weight: 1, arbitrary: fc.constantFrom<Action>({ do: 'new' }, { do: 'destroy' }, { do: 'regenerate' }) },
  { weight: 2, arbitrary: fc.constant<Action>({ do: 'signOut' }) },
);
const step: fc.Arbitrary<Step> = fc.record({
  request: fc.nat(REQUESTS - 1),
  action,
  waits: fc.oneof({ weight: 1, arbitrary: fc.constant(true) }, { weight: 4, arbitrary: fc.constant(false) }),
});
const program = fc.array(step, { minLength: 1, maxLength: 24, size: 'max' });
/** Programs run side by side, each on a session of its own: their calls share statements. */
const programs = fc.array(program, { minLength: 1, maxLength: 60, size: 'max' });

describe('concurrency by model', () => {
  afterEach(closeStores);

  it('explains thousands of random programs of several requests in two processes', async function () {
    this.timeout(120_000);
    const table = freshTable();
    // A skipped touch does not notice a destroyed session: here each touch is sent.
    const options = { table, touchAfter: 0, user: (session: any) => session.user };
    const stores = [await openStore(options), await openStore(options)] as const;
    const dropped = new Map<string, number[]>();
    for (const [process, store] of stores.entries()) {
      store.on('dropped', (handle) => {
        const counts = dropped.get(handle) ?? [0, 0];
        counts[process] = (counts[process] ?? 0) + 1;
        dropped.set(handle, counts);
      });
    }
    let sids = 0;
    let run = 0;

    const seed = process.env.SEED === undefined ? {} : { seed: Number(process.env.SEED) };
    await fc.assert(
      fc.asyncProperty(programs, async (all) => {
        const started = all.map((steps) => {
          const sid = `sid${++sids}`;
          return { sid, steps, operations: perform(stores, sid, steps) };
        });
        await Promise.all(started.map(({ operations }) => operations));
        await tick();
        for (const { sid, steps, operations } of started) {
          run++;
          const history = await operations;
          const answer = explain(history, dropped.get(handleOf(sid)) ?? [0, 0]);
          assert(answer, `no order of these calls explains their answers:\n${show(steps, history)}`);
        }
      }),
      // A failing program is shrunk, but not forever: then the seed would not be shown.
      { numRuns: 100, interruptAfterTimeLimit: 60_000, ...seed },
    );
    assert(run >= 1000, `only ${run} programs were run in a minute`);
  });
});

/** Runs a program, call by call; gives what was called when, and what the answers were. */
async function perform(stores: readonly [PgStore, PgStore], sid: string, steps: Step[]): Promise<Operation[]> {
  const operations: Operation[] = [];
  let clock = 0;
  let objects = 0;
  let values = 0;
  const user = `user of ${sid}`;
  const running: Promise<unknown>[] = [];
  const sessions: ({ object: number; session: AnySession } | undefined)[] = [];
  /** A request does not go on before its session is loaded or created anew. */
  const busy: (Promise<unknown> | undefined)[] = [];

  function call(operation: Omit<Operation, 'start' | 'end'>, work: () => Promise<unknown>): Promise<unknown> {
    const entry: Operation = { ...operation, start: ++clock, end: Number.POSITIVE_INFINITY };
    operations.push(entry);
    const answer = work().then((found) => {
      entry.end = ++clock;
      if (entry.kind === 'load') entry.found = flat(found as AnySession | undefined);
    });
    running.push(answer);
    return answer;
  }

  function find(request: number): Promise<unknown> {
    const process = request < REQUESTS / 2 ? 0 : 1;
    const object = ++objects;
    return call({ kind: 'load', process, object }, async () => {
      const session = await load(stores[process], sid);
      sessions[request] = session && { object, session };
      return session;
    });
  }

  function make(request: number): void {
    const store = stores[request < REQUESTS / 2 ? 0 : 1];
    const data = { made: `value ${++values}`, user, files: {}, deep: { in: {} } };
    const session = generated(store, sid, data, 3_600_000);
    sessions[request] = { object: ++objects, session };
  }

  make(0);
  steps = [{ request: 0, action: { do: 'save' }, waits: true }, ...steps];
  for (const { request, action, waits } of steps) {
    if (waits) await Promise.all(running);
    await busy[request];
    const process = request < REQUESTS / 2 ? 0 : 1;
    const store = stores[process];
    if (action.do === 'load' || (!sessions[request] && action.do !== 'new')) busy[request] = find(request);
    else if (action.do === 'new') make(request);
    else if (action.do === 'signOut') {
      call({ kind: 'signOut', process, object: 0, user }, () => store.destroySessionsOf(user));
    } else if (action.do === 'destroy') call({ kind: 'destroy', process, object: 0 }, () => store.destroy(sid));
    else {
      const { object, session } = sessions[request] as { object: number; session: AnySession };
      if (action.do === 'change') {
        const value = action.path === 'user' ? user : `value ${++values}`;
        inside(session, action.path, (place, key) => (place[key] = value));
      } else if (action.do === 'remove') inside(session, action.path, (place, key) => delete place[key]);
      else if (action.do === 'cookie') session.cookie.maxAge = 3_600_000 + ++values * 1000;
      else if (action.do === 'save') {
        call({ kind: 'set', process, object, ours: flat(session) as Flat }, () => store.set(sid, session));
      } else if (action.do === 'touch') {
        call({ kind: 'touch', process, object, ours: flat(session) as Flat }, () => store.touch(sid, session));
      } else {
        // With a `genid` that gives the same session ID again.
        (store as any).generate = (req: { renew: () => void }) => req.renew();
        const req: any = { sessionID: sid, sessionStore: store, renew: () => make(request) };
        busy[request] = call({ kind: 'destroy', process, object: 0 }, () =>
          promisify(store.regenerate.bind(store))(req),
        );
      }
    }
  }
  await Promise.all(running);
  await find(0);
  return operations;
}

function inside(session: AnySession, path: string, work: (place: any, key: string) => void): void {
  const keys = path.split('.');
  const last = keys.pop() as string;
  work(
    keys.reduce((place: any, key) => place[key], session),
    last,
  );
}

/** A session as a map from paths to values; its cookie's `maxAge` to the second. */
function flat(session: AnySession | undefined): Flat | null {
  if (!session) return null;
  const { cookie, ...data } = session;
  const entries: [string, unknown][] = [['cookie', Math.round((cookie.originalMaxAge ?? 0) / 1000)]];
  const walk = (value: any, path: string) => {
    if (typeof value !== 'object') entries.push([path, value]);
    else for (const [key, inner] of Object.entries(value)) walk(inner, path ? `${path}.${key}` : key);
  };
  walk(data, '');
  return new Map(entries as [string, string][]);
}

function show(steps: Step[], history: Operation[]): string {
  const program = steps.map(
    ({ request, action, waits }) => `${waits ? 'wait; ' : ''}${request}: ${Object.values(action)}`,
  );
  const calls = history.map(({ ours, found, ...rest }) =>
    JSON.stringify({ ...rest, ours: ours && Object.fromEntries(ours), found: found && Object.fromEntries(found) }),
  );
  return [...program, '', ...calls].join('\n');
}
