/**
 * Runs random programs, each with several requests on one session in two processes, and checks that a model explains
 * the answers of their calls.
 */

import { setImmediate as tick } from 'node:timers/promises';
import { promisify } from 'node:util';
import fc from 'fast-check';
import type { PgStore } from '../../lib/index.js';
import { handleOf } from '../../lib/session/session-id.js';
import { explain, type Flat, type Operation } from './race-model.js';
import { type AnySession, generated, load } from './sessions.js';

/** The number of requests in a program. The last two use the second store, which stands for another process. */
const REQUESTS = 4;
/** The paths that a request may change. No path lies inside another one. */
const PATHS = ['user', 'a', 'b', 'files.a', 'files.b', 'deep.in.a', 'deep.in.b'];

type Action =
  | { do: 'load' | 'new' | 'save' | 'touch' | 'destroy' | 'regenerate' | 'signOut' | 'signOuts' | 'limit' }
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
  {
    weight: 2,
    arbitrary: fc.constantFrom<Action>({ do: 'signOut' }, { do: 'signOut' }, { do: 'signOuts' }, { do: 'limit' }),
  },
);
const step: fc.Arbitrary<Step> = fc.record({
  request: fc.nat(REQUESTS - 1),
  action,
  waits: fc.oneof({ weight: 1, arbitrary: fc.constant(true) }, { weight: 4, arbitrary: fc.constant(false) }),
});
const program = fc.array(step, { minLength: 1, maxLength: 24, size: 'max' });
/** Programs that run side by side, each on a session of its own, so that their calls share statements. */
const programs = fc.array(program, { minLength: 1, maxLength: 60, size: 'max' });

/**
 * Two stores on one table, which stand for two processes. They must have `touchAfter: 0`, so that each touch is sent.
 */
export type Stores = readonly [PgStore, PgStore];

export interface ModelCheck {
  /** How many times 1 to 60 programs are run side by side. */
  readonly runs: number;
  /** The seed of the random programs, to repeat a run that failed. */
  readonly seed?: number | undefined;
  /** Called after each run. */
  readonly onRunEnd?: () => void;
}

/**
 * Runs random programs, and resolves with their number.
 *
 * @throws an error that shows one program whose answers no order of its calls explains, or of which
 *         a call failed, with all that is known of it
 */
export async function checkByModel(stores: Stores, { runs, seed, onRunEnd }: ModelCheck): Promise<number> {
  const dropped = countDropped(stores);
  let programsRun = 0;
  let failure = '';
  const property = fc.asyncProperty(programs, async (all) => {
    const started = all.map((steps) => {
      const history: History = { sid: `sid${++programsRun}`, steps, operations: [] };
      return { history, end: perform(stores, history) };
    });
    const ends = await Promise.allSettled(started.map(({ end }) => end));
    // Events are emitted one tick after the answers.
    await tick();
    onRunEnd?.();
    for (const [n, { history }] of started.entries()) {
      const end = ends[n] as PromiseSettledResult<void>;
      const counts = dropped(history.sid);
      const isExplained = end.status === 'fulfilled' && explain(history.operations, counts);
      if (isExplained) continue;
      failure = describeFailure(history, counts, end.status === 'rejected' ? end.reason : undefined);
      return false;
    }
    return true;
  });

  const chosen = seed ?? Math.floor(Math.random() * 2 ** 31);
  const found = await fc.check(property, { numRuns: runs, seed: chosen, endOnFailure: true });
  if (!found.failed) return programsRun;
  // Looks for a shorter program that fails as well, for a limited time, since a failure that depends on the timing may
  // not occur again.
  await fc.check(property, { seed: chosen, path: found.counterexamplePath as string, interruptAfterTimeLimit: 20_000 });
  throw new Error(`${failure}\nThe same programs run again with SEED=${chosen}.`);
}

/** Counts the `dropped` events of each session, by process. */
function countDropped(stores: Stores): (sid: string) => number[] {
  const counted = new Map<string, number[]>();
  for (const [process, store] of stores.entries()) {
    store.on('dropped', (handle) => {
      const counts = counted.get(handle) ?? [0, 0];
      counts[process] = (counts[process] ?? 0) + 1;
      counted.set(handle, counts);
    });
  }
  return (sid) => counted.get(handleOf(sid)) ?? [0, 0];
}

/** A program, and the calls that it has made with their times and answers. */
interface History {
  readonly sid: string;
  readonly steps: readonly Step[];
  readonly operations: Operation[];
}

/** Runs a program, call by call. */
async function perform(stores: Stores, { sid, steps: given, operations }: History): Promise<void> {
  let clock = 0;
  let objects = 0;
  let values = 0;
  const user = `user of ${sid}`;
  const running: Promise<unknown>[] = [];
  const sessions: ({ object: number; session: AnySession } | undefined)[] = [];
  /** By request, the loading or creation of its session, for which it waits before it goes on. */
  const busy: (Promise<unknown> | undefined)[] = [];

  function call(operation: Omit<Operation, 'start' | 'end'>, work: () => Promise<unknown>): Promise<unknown> {
    const entry: Operation = { ...operation, start: ++clock, end: Number.POSITIVE_INFINITY };
    operations.push(entry);
    const answer = work().then((found) => {
      entry.end = ++clock;
      if (entry.kind === 'load') entry.found = flat(found as AnySession | undefined);
      if (entry.kind === 'signOut') entry.destroyed = found as number;
    });
    // The answer is awaited later. If it fails before that, it must not be an unhandled rejection.
    answer.catch(() => {});
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

  function signOut(process: number): void {
    const isUnderWay = ({ kind, ours, end, ...made }: Operation) =>
      kind === 'set' && made.process === process && end === Number.POSITIVE_INFINITY && ours?.get('user') === user;
    const underWay = operations.flatMap((operation, n) => (isUnderWay(operation) ? [n] : []));
    call({ kind: 'signOut', process, object: 0, user, underWay }, () =>
      (stores[process] as PgStore).destroySessionsOf(user),
    );
  }

  make(0);
  const steps: Step[] = [{ request: 0, action: { do: 'save' }, waits: true }, ...given];
  for (const { request, action, waits } of steps) {
    if (waits) await Promise.all(running);
    await busy[request];
    const process = request < REQUESTS / 2 ? 0 : 1;
    const store = stores[process];
    if (action.do === 'load' || (!sessions[request] && action.do !== 'new')) busy[request] = find(request);
    else if (action.do === 'new') make(request);
    else if (action.do === 'signOut') signOut(process);
    else if (action.do === 'signOuts') for (const one of [process, 1 - process, process]) signOut(one);
    else if (action.do === 'limit') {
      call({ kind: 'signOut', process, object: 0, user }, () => store.limitSessionsOf(user, 0));
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
        // The new session has the same ID, as with a `genid` that returns that ID again.
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

/**
 * Describes a failure: the program, and then each call with its process, its times, its session object, and the content
 * of that object or of the session that was found.
 */
function describeFailure({ sid, steps, operations }: History, dropped: number[], error: unknown): string {
  const program = steps.map(({ request, action, waits }) => {
    const what = 'path' in action ? `${action.do} ${action.path}` : action.do;
    return `${waits ? 'wait; ' : ''}${request} ${what}`;
  });
  const calls = operations.map(({ kind, process, object, start, end, ours, found, user, underWay, destroyed }, n) => {
    const beside = underWay?.length ? `, beside ${underWay.map((one) => `call ${one}`).join(' and ')}` : '';
    const call =
      kind === 'signOut'
        ? `signOut ${user}${beside}: ${destroyed} destroyed`
        : kind === 'destroy'
          ? kind
          : `${kind} #${object}`;
    const answer = Number.isFinite(end) ? String(end) : 'never answered';
    const held = ours ? ` ${describeSession(ours)}` : '';
    const result = kind === 'load' && found !== undefined ? ` found ${describeSession(found)}` : '';
    return `  call ${n}, process ${process}, ${start} to ${answer}: ${call}${held}${result}`;
  });
  const title = error ? `a call failed: ${describeError(error)}` : 'no order of these calls explains their answers';
  return [
    `${sid}: ${title}`,
    `Requests 0 and 1 run in process 0, 2 and 3 in process 1. Request 0 saves a new session, then: ${program.join(', ')}.`,
    ...calls,
    `\`dropped\` events: ${dropped[0]} in process 0, ${dropped[1]} in process 1`,
  ].join('\n');
}

function describeSession(flat: Flat | null): string {
  if (!flat) return 'none';
  return `{ ${[...flat].map(([path, value]) => `${path}: ${value}`).join(', ')} }`;
}

function describeError(error: unknown): string {
  const { code, message } = error as { code?: string; message?: string };
  return `${message ?? error}${code ? ` (${code})` : ''}`;
}
