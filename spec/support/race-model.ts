/**
 * What a session may hold after these calls: a model without a database, and the search for an
 * order that explains them.
 */

/** A session as a map from paths to values. `cookie` is one of the paths. */
export type Flat = ReadonlyMap<string, unknown>;

/** One call to a store and its answer. */
export interface Operation {
  readonly kind: 'load' | 'set' | 'touch' | 'destroy' | 'signOut';
  /** Which process called. */
  readonly process: number;
  /** Which session object it was: each load creates a new one. */
  readonly object: number;
  /** The object's content at the call. */
  readonly ours?: Flat;
  /** Whose sessions a sign-out destroys. */
  readonly user?: string;
  /** When it was called and answered, in steps of the program. */
  readonly start: number;
  end: number;
  /** What a load found. */
  found?: Flat | null;
}

interface State {
  readonly row: Flat | null;
  /**
   * What each session object saw when it was loaded or last saved; absent for one that the store
   * does not know.
   */
  readonly seen: ReadonlyMap<number, Flat>;
  /** How many `dropped` events each process has seen. */
  readonly dropped: readonly number[];
}

/**
 * Whether some order of the calls gives each of them the answer that it got (linearizability:
 * Herlihy and Wing, 1990; the search is Wing and Gong's). The order keeps what is certain: a call
 * that was answered before another one was made came first, and of two calls from one process that
 * do not both read, the one that was made first.
 */
export function explain(operations: Operation[], dropped: readonly number[]): boolean {
  const before = operations.map((later, n) =>
    operations.flatMap((earlier, m) => {
      const isOrdered =
        m < n && earlier.process === later.process && !(earlier.kind === 'load' && later.kind === 'load');
      return earlier.end < later.start || isOrdered ? [m] : [];
    }),
  );
  const failed = new Set<string>();

  function search(done: bigint, state: State): boolean {
    if (done === (1n << BigInt(operations.length)) - 1n) return state.dropped.join() === dropped.join();
    if (state.dropped.some((count, process) => count > (dropped[process] ?? 0))) return false;
    const place = `${done} ${keyOf(state)}`;
    if (failed.has(place)) return false;
    for (const [n, operation] of operations.entries()) {
      const bit = 1n << BigInt(n);
      if (done & bit || before[n]?.some((m) => !(done & (1n << BigInt(m))))) continue;
      const next = apply(state, operation);
      if (next && search(done | bit, next)) return true;
    }
    failed.add(place);
    return false;
  }

  return search(0n, { row: null, seen: new Map(), dropped: dropped.map(() => 0) });
}

/** The state after a call; `undefined` where it would have had another answer. */
function apply(state: State, { kind, process, object, ours, found, user }: Operation): State | undefined {
  const { row } = state;
  if (kind === 'load') {
    if (!isSame(row, found ?? null)) return undefined;
    return row ? { ...state, seen: new Map(state.seen).set(object, row) } : state;
  }
  if (kind === 'destroy') return { ...state, row: null };
  if (kind === 'signOut') return row?.get('user') === user ? { ...state, row: null } : state;
  const seen = state.seen.get(object);
  const held = ours as Flat;
  if (kind === 'set' && !seen) return { ...state, row: held, seen: new Map(state.seen).set(object, held) };
  if (!row) {
    if (!seen) return state;
    return { ...state, dropped: state.dropped.map((count, n) => (n === process ? count + 1 : count)) };
  }
  if (kind === 'set') {
    return {
      ...state,
      row: new Map(paths(row, held).flatMap((path) => entry(path, changed(path, seen as Flat, held, row)))),
      seen: new Map(state.seen).set(object, held),
    };
  }
  // A touch changes the cookie and nothing else.
  const cookie = changed('cookie', seen ?? new Map(), held, row);
  const next = { ...state, row: new Map(row).set('cookie', cookie) };
  if (!seen) return next;
  return { ...next, seen: new Map(state.seen).set(object, new Map(seen).set('cookie', held.get('cookie'))) };
}

/** What a path holds after a save: ours where we changed it, but a removal yields to a change. */
function changed(path: string, seen: Flat, ours: Flat, row: Flat): unknown {
  const [was, is, stored] = [seen.get(path), ours.get(path), row.get(path)];
  if (is === was) return stored;
  return is === undefined && stored !== was ? stored : is;
}

function entry(path: string, value: unknown): [string, unknown][] {
  return value === undefined ? [] : [[path, value]];
}

function paths(...flats: Flat[]): string[] {
  return [...new Set(flats.flatMap((flat) => [...flat.keys()]))];
}

function isSame(a: Flat | null, b: Flat | null): boolean {
  if (!a || !b) return a === b;
  return a.size === b.size && paths(a).every((path) => a.get(path) === b.get(path));
}

function keyOf({ row, seen, dropped }: State): string {
  const text = (flat: Flat | null) => flat && [...flat].sort();
  return JSON.stringify([text(row), [...seen].map(([object, flat]) => [object, text(flat)]).sort(), dropped]);
}
