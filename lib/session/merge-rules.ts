/** Option `merge` as rules by path: what becomes of a value that two requests have both changed. Pure. */

import { isDeepStrictEqual } from 'node:util';

/**
 * What becomes of a value that two requests have both changed. A value that only one of them changed takes that side.
 *
 * - `sum`: both differences are added to the number. A number that was not there counts as 0.
 * - `max`, `min`: the larger or smaller number.
 * - `append`: what each side added at the end of the array, in order of saving, without what either took from its
 *   start. An array that is not there counts as empty.
 * - `ours`: the later save, as a whole.
 * - `theirs`: the earlier save, as a whole.
 */
export type MergeRule = 'sum' | 'max' | 'min' | 'append' | 'ours' | 'theirs';

/**
 * Rules by path. The keys of a path are joined by dots: `'stats.seen'`. A path with a key that contains a dot or is
 * empty is a JSON array of its keys: `'["a.b","c"]'`.
 */
export type MergeRules = Readonly<Record<string, MergeRule>>;

/** A value of a session's JSON; `undefined` where there is none. */
type Value = unknown;

/** @returns the value to store, or `DEFAULT` where the values are not of the rule's type */
type Resolve = (base: Value, ours: Value, theirs: Value) => Value;

/** The rule does not fit the values: they are merged as values without a rule are. */
export const DEFAULT = Symbol('default');

const RULES: Record<MergeRule, Resolve> = {
  sum: onNumbers((base, ours, theirs) => theirs + (ours - base)),
  max: onNumbers((_, ours, theirs) => Math.max(ours, theirs)),
  min: onNumbers((_, ours, theirs) => Math.min(ours, theirs)),
  append,
  ours: (_, ours) => ours,
  theirs: (_base, _ours, theirs) => theirs,
};

/** The rules of a value and of the values in it. */
export class RuleNode {
  readonly #inner = new Map<string, RuleNode>();
  rule: MergeRule | undefined;

  get(key: string): RuleNode | undefined {
    return this.#inner.get(key);
  }

  add(key: string): RuleNode {
    let node = this.#inner.get(key);
    if (!node) {
      node = new RuleNode();
      this.#inner.set(key, node);
    }
    return node;
  }

  /**
   * What this value's rule makes of three values; `DEFAULT` where there is none, or one side alone has changed the
   * value.
   */
  resolve(base: Value, ours: Value, theirs: Value): Value {
    if (!this.rule || isDeepStrictEqual(base, ours) || isDeepStrictEqual(base, theirs)) return DEFAULT;
    return RULES[this.rule](base, ours, theirs);
  }
}

/** @throws TypeError for a path without keys, or with two rules, and for an unknown rule */
export function parseRules(rules: object): RuleNode {
  const root = new RuleNode();
  for (const [path, rule] of Object.entries(rules)) {
    let node = root;
    for (const key of keysOf(path)) node = node.add(key);
    if (!Object.hasOwn(RULES, rule)) {
      throw new TypeError(`\`${path}\`: expected one of ${Object.keys(RULES).join(', ')}, got ${show(rule)}`);
    }
    if (node.rule) throw new TypeError(`\`${path}\` is there twice`);
    node.rule = rule;
  }
  return root;
}

/** @throws TypeError */
function keysOf(path: string): readonly string[] {
  const keys = path.startsWith('[') ? parseKeys(path) : path.split('.');
  const isPlain = !path.startsWith('[');
  if (!Array.isArray(keys) || keys.length === 0 || keys.some((key) => typeof key !== 'string')) {
    throw new TypeError(`\`${path}\`: expected a JSON array of keys, such as '["a.b","c"]'`);
  }
  if (isPlain && keys.includes('')) {
    throw new TypeError(`\`${path}\`: expected keys joined by dots, none empty (an empty one: '["a",""]')`);
  }
  if (keys[0] === 'cookie')
    throw new TypeError(`\`${path}\`: cookies are merged attribute by attribute, without rules`);
  return keys;
}

function parseKeys(path: string): unknown {
  try {
    return JSON.parse(path);
  } catch {
    return undefined;
  }
}

/** Not the text itself: errors about options show none, as it may be anything. */
function show(rule: unknown): string {
  return typeof rule === 'string' ? `a string of ${rule.length} characters` : typeof rule;
}

/** A number that was not there before counts as 0; one that a side has removed is not a number. */
function onNumbers(compute: (base: number, ours: number, theirs: number) => number): Resolve {
  return (base = 0, ours, theirs) => {
    if (typeof base !== 'number' || typeof ours !== 'number' || typeof theirs !== 'number') return DEFAULT;
    const result = compute(base, ours, theirs);
    // JSON has no infinity: it would become null.
    return Number.isFinite(result) ? result : DEFAULT;
  };
}

function append(base: Value = [], ours: Value = [], theirs: Value = []): Value {
  if (!Array.isArray(base) || !Array.isArray(ours) || !Array.isArray(theirs)) return DEFAULT;
  const before = textsOf(base);
  const keptByUs = keptFrom(before, textsOf(ours));
  const keptByThem = keptFrom(before, textsOf(theirs));
  if (keptByUs === undefined || keptByThem === undefined) return DEFAULT;
  const keptByBoth = Math.min(keptByUs, keptByThem);
  return [...base.slice(base.length - keptByBoth), ...theirs.slice(keptByThem), ...ours.slice(keptByUs)];
}

/** The elements in a form that can be compared. */
function textsOf(elements: readonly unknown[]): readonly string[] {
  return elements.map((element) => JSON.stringify(element));
}

/**
 * How many elements of the array before are still at the start of the array after, so that the others were taken from
 * its start; `undefined` where elements were taken from elsewhere, or moved.
 */
function keptFrom(before: readonly string[], after: readonly string[]): number | undefined {
  const kept = longestOverlap(before, after);
  const elementsTaken = new Set(before.slice(0, before.length - kept));
  return after.some((element, n) => n >= kept && elementsTaken.has(element)) ? undefined : kept;
}

/**
 * How many elements at the end of one array are those at the start of the other one, at most. It compares each element
 * about twice, however often elements repeat (the algorithm of Knuth, Morris and Pratt).
 */
function longestOverlap(before: readonly string[], after: readonly string[]): number {
  const fallbacks = [0];
  // The overlap that goes on with the element, if the one so far has this length.
  const next = (length: number, element: string | undefined): number => {
    let overlap = length;
    while (overlap > 0 && (overlap === after.length || after[overlap] !== element))
      overlap = fallbacks[overlap - 1] ?? 0;
    return after[overlap] === element ? overlap + 1 : 0;
  };
  for (let n = 1; n < after.length; n++) fallbacks.push(next(fallbacks[n - 1] ?? 0, after[n]));
  return after.length === 0 ? 0 : before.reduce(next, 0);
}
