/**
 * A model of a session without a database, and a search for an order of calls that explains their answers.
 */

/** A session as a map from paths to values. `cookie` and `user` are two of the paths. */
export type Flat = ReadonlyMap<string, unknown>;

/** One call to a store and its answer. */
export interface Operation {
  readonly kind: 'load' | 'set' | 'touch' | 'destroy' | 'signOut';
  /** The number of the process that made the call. */
  readonly process: number;
  /** The number of the session object. Each load creates a new one. */
  readonly object: number;
  /** The content of the session object at the call. */
  readonly ours?: Flat;
  /** The user whose sessions a sign-out destroys. */
  readonly user?: string;
  /** For a sign-out, the calls of `set` of its process and user that were under way when it was made. */
  readonly underWay?: readonly number[];
  /** When the call was made and answered, in steps of the program. */
  readonly start: number;
  end: number;
  /** The session that a load found. */
  found?: Flat | null;
  /** The number of rows that a sign-out reports as destroyed. */
  destroyed?: number;
}

/**
 * Something that a call does at one moment. A sign-out has several effects at different moments: it destroys the
 * session that it finds, and the row that each `set` wrote which was under way when it was made.
 */
interface Effect {
  /** The index of the call. */
  readonly operation: number;
  /** The index of the `set` whose row is destroyed. */
  readonly written?: number;
}

/** The content of a session's row as far as a session object knows it: its snapshot. */
interface Known {
  /** The object's content if the app has changed nothing. */
  readonly seen: Flat;
  /** The row's content when the object last read or wrote it. */
  readonly stored: Flat;
}

interface State {
  readonly row: Flat | null;
  /**
   * The row's contents so far, one for each pair of cookie and user. A save may have read one of them before the row
   * was destroyed.
   */
  readonly past: readonly Flat[];
  /** The `set` that wrote the row last, if a sign-out has still to destroy that row. */
  readonly writer: number | undefined;
  /** The snapshot of each session object that is still used; an object without a snapshot is missing. */
  readonly known: ReadonlyMap<number, Known>;
  /** How many `dropped` events each process has seen. */
  readonly dropped: readonly number[];
  /** How many rows each sign-out has destroyed. */
  readonly destroyed: ReadonlyMap<number, number>;
}

/**
 * Whether some order of the calls' effects gives each call the answer that it got (linearizability: Herlihy and Wing,
 * 1990; the search is that of Wing and Gong, 1993). A call that was answered before another one was made comes first.
 * Of two calls of one process that do not both read, the one that was made first comes first. Sign-outs are not a part
 * of a process's order of calls: each of their effects comes at any moment between call and answer.
 *
 * @param dropped how many `dropped` events each process has emitted
 */
export function explain(operations: readonly Operation[], dropped: readonly number[]): boolean {
  return new Search(operations, dropped).run();
}

class Search {
  readonly #operations: readonly Operation[];
  readonly #dropped: readonly number[];
  readonly #effects: readonly Effect[];
  /** For each effect, the set of effects that must come before it. Sets of effects are bits of a bigint. */
  readonly #before: readonly bigint[];
  readonly #all: bigint;
  /** By session object, the effects that concern it. */
  readonly #ofObject = new Map<number, bigint>();
  /** By `set`, the effects that destroy the row which it wrote. */
  readonly #ofWriter = new Map<number, bigint>();
  /**
   * Places of the search, each a set of effects that are done and the state after them, from which it found no order.
   */
  readonly #failed = new Set<string>();
  readonly #texts = new StateTexts();

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
    // An effect that changes nothing can come now: that excludes no order of the others, and lets more of them follow.
    const harmless = ready.find((n) => this.#isHarmless(state, this.#effects[n] as Effect));
    if (harmless !== undefined) return this.#goOn(done, state, harmless);
    const place = `${done} ${this.#texts.of(state)}`;
    if (this.#failed.has(place)) return false;
    if (ready.some((n) => this.#goOn(done, state, n))) return true;
    this.#failed.add(place);
    return false;
  }

  /** Whether an effect gives its call the right answer and changes nothing for others. */
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

  /** A state without the parts that no later effect needs, so that more states are equal. */
  #relevant(state: State, done: bigint): State {
    const isUsed = (bits: bigint | undefined) => bits !== undefined && (bits & ~done) !== 0n;
    const { writer } = state;
    const known = new Map([...state.known].filter(([object]) => isUsed(this.#ofObject.get(object))));
    return { ...state, known, writer: writer !== undefined && isUsed(this.#ofWriter.get(writer)) ? writer : undefined };
  }
}

/** Turns states to short texts, in which each content is replaced by a number. */
class StateTexts {
  readonly #numbers = new Map<string, number>();
  /** The numbers of contents by identity, so that each one is serialized once. */
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
  const one = operations[earlier.operation] as Operation;
  const other = operations[later.operation] as Operation;
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

/** The states that are possible after an effect; none if the call would have got another answer. */
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

/**
 * Whether an effect of a sign-out destroys the row: a row of its user that, if `written` is given, that `set` wrote.
 */
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
  // A key that was removed and set again has moved to the end of the session's JSON, which is a change for the store.
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
  // If the row has this content already, and the object did not know that, nothing is written.
  return isSame(merged, row) ? [written, { ...written, writer: state.writer }] : [written];
}

/** A touch changes the cookie and nothing else. */
function applyTouch(state: State, operation: Operation): State[] {
  const cookie = operation.ours?.get('cookie');
  const { row } = state;
  const known = state.known.get(operation.object);
  // A touch with an object that was not loaded overwrites the row's cookie.
  if (!known) return [row ? { ...state, row: new Map(row).set('cookie', cookie), writer: undefined } : state];
  if (cookie === known.seen.get('cookie')) return [putOffExpiry(state, operation, known)];
  const held = new Map(known.seen).set('cookie', cookie);
  if (hasChangedHands(known, held)) return [drop(state, operation)];
  if (!row) return dropGone(state, operation, known);
  const merged = mergedWith(known.seen, held, row);
  if (!merged) return [know(drop(state, operation), operation, known.seen, row)];
  return [know({ ...state, row: merged, writer: undefined }, operation, held, merged)];
}

/** A save finds no row and is dropped. It may have read the row before, and then its object knows that content. */
function dropGone(state: State, operation: Operation, { seen, stored }: Known): State[] {
  const dropped = drop(state, operation);
  const others = state.past.filter((flat) => !isAlike(flat, stored));
  return [dropped, ...others.map((flat) => know(dropped, operation, seen, flat))];
}

function isAlike(one: Flat, other: Flat): boolean {
  return one.get('cookie') === other.get('cookie') && one.get('user') === other.get('user');
}

/** Adds the row's content to its past. */
function remember(state: State): State {
  const { row, past } = state;
  if (!row || past.some((flat) => isAlike(flat, row))) return state;
  return { ...state, past: [...past, row] };
}

/** Only the expiry may change. It is not written if the object knows that another request has set another lifetime. */
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

/** Whether an earlier save of the object was dropped because its session changed hands. Then later ones are dropped. */
function hasChangedHands({ seen, stored }: Known, ours: Flat): boolean {
  return mergedWith(seen, ours, stored) === undefined;
}

/**
 * The row's content after a save that meets it; `undefined` if the save is dropped because the session changed hands.
 */
function mergedWith(seen: Flat, ours: Flat, row: Flat): Flat | undefined {
  if (isSame(seen, row)) return ours;
  // In these programs a session belongs to one user or to nobody, so it is enough to know whether it has a user.
  const hadUser = seen.has('user');
  const hasUser = ours.has('user');
  const rowHasUser = row.has('user');
  if (hadUser && hasUser && !rowHasUser) return undefined;
  if (hadUser && !hasUser && rowHasUser) return ours;
  return new Map(paths(row, ours).flatMap((path) => entry(path, changed(path, seen, ours, row))));
}

/** The value of a path after a save: ours if we have changed it, except that a removal yields to another's change. */
function changed(path: string, seen: Flat, ours: Flat, row: Flat): unknown {
  const before = seen.get(path);
  const after = ours.get(path);
  const stored = row.get(path);
  if (after === before) return stored;
  return after === undefined && stored !== before ? stored : after;
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
