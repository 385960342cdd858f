/**
 * What a session may hold after these calls: a model without a database, and the search for an order that explains
 * them.
 */

/** A session as a map from paths to values. `cookie` and `user` are two of the paths. */
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
  /** Of a sign-out: the calls of `set` of its process and user that were under way when it was made. */
  readonly underWay?: readonly number[];
  /** When it was called and answered, in steps of the program. */
  readonly start: number;
  end: number;
  /** What a load found. */
  found?: Flat | null;
  /** How many rows a sign-out says that it destroyed. */
  destroyed?: number;
}

/**
 * What a call does at one moment. A sign-out does several things, each at a moment of its own: it destroys the session
 * that it finds, and what each `set` wrote that was under way when it was called.
 */
interface Effect {
  readonly operation: number;
  /** The `set` whose row it destroys. */
  readonly written?: number;
}

/** What a session object knows of its row. */
interface Known {
  /** What it holds if the app changed nothing. */
  readonly seen: Flat;
  /** What the row held when the object last learned of it. */
  readonly stored: Flat;
}

interface State {
  readonly row: Flat | null;
  /** What the row has held so far, one of each cookie and user: a save may have looked before the row was destroyed. */
  readonly past: readonly Flat[];
  /** The `set` that wrote the row last, if a sign-out has still to destroy what it wrote. */
  readonly writer: number | undefined;
  /** What each session object knows that is still used; absent for one that the store does not know. */
  readonly known: ReadonlyMap<number, Known>;
  /** How many `dropped` events each process has seen. */
  readonly dropped: readonly number[];
  /** How many rows each sign-out has destroyed. */
  readonly destroyed: ReadonlyMap<number, number>;
}

/**
 * Whether some order of the calls' effects gives each call the answer that it got (linearizability: Herlihy and Wing,
 * 1990; the search is Wing and Gong's). The order keeps what is certain: a call that was answered before another one
 * was made came first, and of two calls from one process that do not both read, the one that was made first. Sign-outs
 * have no place in the order of a process's calls: each of their effects comes at any moment between call and answer.
 */
export function explain(operations: readonly Operation[], dropped: readonly number[]): boolean {
  return new Search(operations, dropped).run();
}

class Search {
  readonly #operations: readonly Operation[];
  readonly #dropped: readonly number[];
  readonly #effects: readonly Effect[];
  /** For each effect, those that surely came before it, as bits. */
  readonly #before: readonly bigint[];
  readonly #all: bigint;
  /** By session object: the effects that concern it, as bits. */
  readonly #ofObject = new Map<number, bigint>();
  /** By `set`: the effects that destroy what it wrote, as bits. */
  readonly #ofWriter = new Map<number, bigint>();
  readonly #failed = new Set<string>();
  readonly #texts = new Texts();

  constructor(operations: readonly Operation[], dropped: readonly number[]) {
    this.#operations = operations;
    this.#dropped = dropped;
    this.#effects = effectsOf(operations);
    this.#all = (1n << BigInt(this.#effects.length)) - 1n;
    this.#before = this.#effects.map((later) =>
      this.#effects.reduce(
        (bits, earlier, n) => (comesFirst(operations, earlier, later) ? bits | (1n << BigInt(n)) : bits),
        0n,
      ),
    );
    for (const [n, { operation, written }] of this.#effects.entries()) {
      const { object } = operations[operation] as Operation;
      this.#ofObject.set(object, (this.#ofObject.get(object) ?? 0n) | (1n << BigInt(n)));
      if (written !== undefined) this.#ofWriter.set(written, (this.#ofWriter.get(written) ?? 0n) | (1n << BigInt(n)));
    }
  }

  run(): boolean {
    const none = this.#dropped.map(() => 0);
    const nothing = { row: null, past: [], writer: undefined, known: new Map() };
    return this.#search(0n, { ...nothing, dropped: none, destroyed: new Map() });
  }

  #search(done: bigint, state: State): boolean {
    if (done === this.#all) return isAsAnswered(state, this.#operations, this.#dropped);
    if (state.dropped.some((count, process) => count > (this.#dropped[process] ?? 0))) return false;
    const ready = [...this.#effects.keys()].filter(
      (n) => !(done & (1n << BigInt(n))) && !((this.#before[n] ?? 0n) & ~done),
    );
    // Where one of these comes at all now, it need not come later: it changes nothing for others, and lets more of them
    // come.
    const harmless = ready.find((n) => this.#isHarmless(state, this.#effects[n] as Effect));
    if (harmless !== undefined) return this.#goOn(done, state, harmless);
    const place = `${done} ${this.#texts.of(state)}`;
    if (this.#failed.has(place)) return false;
    if (ready.some((n) => this.#goOn(done, state, n))) return true;
    this.#failed.add(place);
    return false;
  }

  #isHarmless(state: State, { operation, written }: Effect): boolean {
    const { kind, found, destroyed } = this.#operations[operation] as Operation;
    if (kind === 'load') return isSame(state.row, found ?? null);
    return kind === 'signOut' && destroyed === 0 && !isDestroyedBy(state, this.#operations, operation, written);
  }

  #goOn(done: bigint, state: State, n: number): boolean {
    const after = done | (1n << BigInt(n));
    const states = apply(state, this.#operations, this.#effects[n] as Effect).map(remember);
    return states.some((next) => this.#search(after, this.#relevant(next, after)));
  }

  /** Without what no effect asks for any more: so more states are the same. */
  #relevant(state: State, done: bigint): State {
    const isUsed = (bits: bigint | undefined) => bits !== undefined && (bits & ~done) !== 0n;
    const { writer } = state;
    const known = new Map([...state.known].filter(([object]) => isUsed(this.#ofObject.get(object))));
    return { ...state, known, writer: writer !== undefined && isUsed(this.#ofWriter.get(writer)) ? writer : undefined };
  }
}

/** States as short texts. */
class Texts {
  readonly #numbers = new Map<string, number>();
  /** By identity, so that each content is written out once. */
  readonly #known = new WeakMap<Flat, number>();

  of({ row, past, writer, known, dropped, destroyed }: State): string {
    const objects = [...known].map(
      ([object, { seen, stored }]) => `${object}:${this.#number(seen)}:${this.#number(stored)}`,
    );
    const counts = [...destroyed].map(([operation, count]) => `${operation}:${count}`);
    const looks = past.map((flat) => this.#number(flat)).sort();
    return `${row && this.#number(row)} ${looks} ${writer} ${objects.sort()} ${dropped} ${counts.sort()}`;
  }

  #number(flat: Flat): number {
    const cached = this.#known.get(flat);
    if (cached !== undefined) return cached;
    const text = JSON.stringify([...flat].sort());
    const number = this.#numbers.get(text) ?? this.#numbers.size;
    this.#numbers.set(text, number);
    this.#known.set(flat, number);
    return number;
  }
}

function effectsOf(operations: readonly Operation[]): Effect[] {
  return operations.flatMap(({ underWay = [] }, operation) => [
    { operation },
    ...underWay.map((written) => ({ operation, written })),
  ]);
}

function comesFirst(operations: readonly Operation[], earlier: Effect, later: Effect): boolean {
  const [one, other] = [operations[earlier.operation] as Operation, operations[later.operation] as Operation];
  if (one.end < other.start) return true;
  if (later.written === earlier.operation && earlier.written === undefined) return true;
  if (earlier.operation >= later.operation || one.process !== other.process) return false;
  if (one.kind === 'signOut' || other.kind === 'signOut') return false;
  return one.kind !== 'load' || other.kind !== 'load';
}

function isAsAnswered(state: State, operations: readonly Operation[], dropped: readonly number[]): boolean {
  const isCounted = operations.every(
    ({ destroyed }, n) => destroyed === undefined || destroyed === (state.destroyed.get(n) ?? 0),
  );
  return isCounted && state.dropped.join() === dropped.join();
}

/** The states that there may be after an effect; none where the call would have had another answer. */
function apply(state: State, operations: readonly Operation[], effect: Effect): State[] {
  const { row } = state;
  const n = effect.operation;
  const operation = operations[n] as Operation;
  const { kind, found } = operation;
  switch (kind) {
    case 'load':
      if (!isSame(row, found ?? null)) return [];
      return row ? [know(state, operation, row, row)] : [state];
    case 'destroy':
      return [{ ...state, row: null, writer: undefined }];
    case 'signOut': {
      if (!isDestroyedBy(state, operations, n, effect.written)) return [state];
      const count = (state.destroyed.get(n) ?? 0) + 1;
      if (count > (operation.destroyed ?? 0)) return [];
      const destroyed = new Map(state.destroyed).set(n, count);
      return [{ ...state, row: null, writer: undefined, destroyed }];
    }
    case 'set':
      return applySet(state, operation, n);
    case 'touch':
      return applyTouch(state, operation);
  }
}

/** Whether a sign-out destroys the row: its user's or, of these, the one that a `set` wrote. */
function isDestroyedBy(
  state: State,
  operations: readonly Operation[],
  n: number,
  written: number | undefined,
): boolean {
  const isOfUser = state.row !== null && state.row.get('user') === operations[n]?.user;
  return isOfUser && (written === undefined || written === state.writer);
}

function applySet(state: State, operation: Operation, writer: number): State[] {
  const held = operation.ours as Flat;
  const known = state.known.get(operation.object);
  if (!known) return [know({ ...state, row: held, writer }, operation, held, held)];
  if (!isSame(known.seen, held)) return applyChanges(state, operation, known, writer);
  // A key that was removed and set again comes last in the session's JSON, and so is a change for the store.
  return [putOffExpiry(state, operation, known), ...applyChanges(state, operation, known, writer)];
}

function applyChanges(state: State, operation: Operation, known: Known, writer: number): State[] {
  const held = operation.ours as Flat;
  const { row } = state;
  if (hasChangedHands(known, held)) return [drop(state, operation)];
  if (!row) return dropGone(state, operation, known);
  const merged = mergedWith(known.seen, held, row);
  if (!merged) return [know(drop(state, operation), operation, known.seen, row)];
  const written = know({ ...state, row: merged, writer }, operation, held, merged);
  // Where the row holds all of it already, and the object did not know that, nothing is written.
  return isSame(merged, row) ? [written, { ...written, writer: state.writer }] : [written];
}

/** A touch changes the cookie and nothing else. */
function applyTouch(state: State, operation: Operation): State[] {
  const cookie = operation.ours?.get('cookie');
  const { row } = state;
  const known = state.known.get(operation.object);
  // Whatever cookie the row has, and whatever other request has set it.
  if (!known) return [row ? { ...state, row: new Map(row).set('cookie', cookie), writer: undefined } : state];
  if (cookie === known.seen.get('cookie')) return [putOffExpiry(state, operation, known)];
  const held = new Map(known.seen).set('cookie', cookie);
  if (hasChangedHands(known, held)) return [drop(state, operation)];
  if (!row) return dropGone(state, operation, known);
  const merged = mergedWith(known.seen, held, row);
  if (!merged) return [know(drop(state, operation), operation, known.seen, row)];
  return [know({ ...state, row: merged, writer: undefined }, operation, held, merged)];
}

/** The row is gone. The save may have looked at it before, in which case its object knows what was there then. */
function dropGone(state: State, operation: Operation, { seen, stored }: Known): State[] {
  const dropped = drop(state, operation);
  const others = state.past.filter((flat) => !isAlike(flat, stored));
  return [dropped, ...others.map((flat) => know(dropped, operation, seen, flat))];
}

function isAlike(one: Flat, other: Flat): boolean {
  return one.get('cookie') === other.get('cookie') && one.get('user') === other.get('user');
}

/** Notes what the row holds now. */
function remember(state: State): State {
  const { row, past } = state;
  if (!row || past.some((flat) => isAlike(flat, row))) return state;
  return { ...state, past: [...past, row] };
}

/** Nothing changes but the expiry. It is not written where another request is known to have set another lifetime. */
function putOffExpiry(state: State, operation: Operation, { seen, stored }: Known): State {
  if (stored.get('cookie') !== seen.get('cookie')) return state;
  return state.row ? state : drop(state, operation);
}

function know(state: State, { object }: Operation, seen: Flat, row: Flat): State {
  return { ...state, known: new Map(state.known).set(object, { seen, stored: row }) };
}

function drop(state: State, { process }: Operation): State {
  return { ...state, dropped: state.dropped.map((count, n) => (n === process ? count + 1 : count)) };
}

/**
 * Whether an earlier save of the object found that its session has changed hands: then each later one is dropped, too.
 */
function hasChangedHands({ seen, stored }: Known, ours: Flat): boolean {
  return mergedWith(seen, ours, stored) === undefined;
}

/**
 * What the row holds after a save that meets it; `undefined` where the save is dropped, since the session changed
 * hands.
 */
function mergedWith(seen: Flat, ours: Flat, row: Flat): Flat | undefined {
  if (isSame(seen, row)) return ours;
  // A session has one user in these programs, or nobody.
  const [before, now, there] = [seen, ours, row].map((flat) => flat.has('user'));
  if (before && now && !there) return undefined;
  if (before && !now && there) return ours;
  return new Map(paths(row, ours).flatMap((path) => entry(path, changed(path, seen, ours, row))));
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
  if (a === b) return true;
  if (a.size !== b.size) return false;
  for (const [path, value] of a) if (b.get(path) !== value) return false;
  return true;
}
