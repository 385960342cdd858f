/** The rules by path of option `merge`, for values that two requests have both changed. Has no side effects. */

import { isDeepStrictEqual } from 'node:util';

/**
 * How a value is merged that two requests have both changed. A value that only one of them has changed gets that
 * request's value.
 *
 * - `sum`: the changes of both sides are added to the number. A missing number counts as 0.
 * - `max`, `min`: the larger or the smaller number.
 * - `append`: the array with the elements that each side has added at its end, in the order of the saves, and without
 *   those that either side has removed from its start. A missing array counts as empty.
 * - `ours`: the value of the later save.
 * - `theirs`: the value of the earlier save.
 */
export type MergeRule = 'sum' | 'max' | 'min' | 'append' | 'ours' | 'theirs';

/**
 * Rules by path. The keys of a path are joined by dots, as in `'stats.seen'`. If a key contains a dot or is empty, the
 * path is written as a JSON array of its keys, as in `'["a.b","c"]'`.
 */
export type MergeRules = Readonly<Record<string, MergeRule>>;

/** A value of a session's JSON; `undefined` if it is missing. */
type Value = unknown;

/** Merges a value by a rule. @returns the value to store, or `DEFAULT` if the values do not have the rule's type */
type Resolve = (base: Value, ours: Value, theirs: Value) => Value;

/** Returned by a rule that does not fit the values, which are then merged as values without a rule are. */
export const DEFAULT = Symbol('default');

const RULES: Record<MergeRule, Resolve> = {
  sum: onNumbers((base, ours, theirs) => theirs + (ours - base)),
  max: onNumbers((_, ours, theirs) => Math.max(ours, theirs)),
  min: onNumbers((_, ours, theirs) => Math.min(ours, theirs)),
  append,
  ours: (_, ours) => ours,
  theirs: (_base, _ours, theirs) => theirs,
};

/** The rule of a value, and the rules of the values inside it. */
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

  /** Applies the value's rule; `DEFAULT` if there is no rule, or only one side has changed the value. */
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
    if (typeof rule !== 'string' || !Object.hasOwn(RULES, rule)) {
      throw new TypeError(`\`${path}\`: expected one of ${Object.keys(RULES).join(', ')}, got ${show(rule)}`);
    }
    if (node.rule) throw new TypeError(`\`${path}\` has two rules`);
    node.rule = rule as MergeRule;
  }
  return root;
}

/** The keys of a path. @throws TypeError for a malformed path, and for one in the cookie */
function keysOf(path: string): readonly string[] {
  const isPlain = !path.startsWith('[');
  const keys = isPlain ? path.split('.') : parseKeys(path);
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

/** Describes a wrong rule without quoting it, since an error about an option must not show what may be a secret. */
function show(rule: unknown): string {
  return typeof rule === 'string' ? `a string of ${rule.length} characters` : typeof rule;
}

/**
 * A rule for numbers. A number that was missing before counts as 0; if a side has removed it, the rule does not fit.
 */
function onNumbers(compute: (base: number, ours: number, theirs: number) => number): Resolve {
  return (base = 0, ours, theirs) => {
    if (typeof base !== 'number' || typeof ours !== 'number' || typeof theirs !== 'number') return DEFAULT;
    const result = compute(base, ours, theirs);
    // Infinity would become null in JSON.
    return Number.isFinite(result) ? result : DEFAULT;
  };
}

/** The rule `append`. It does not fit if a side has removed elements from elsewhere than the start, or moved some. */
function append(base: Value = [], ours: Value = [], theirs: Value = []): Value {
  if (!Array.isArray(base) || !Array.isArray(ours) || !Array.isArray(theirs)) return DEFAULT;
  const before = textsOf(base);
  const keptByUs = keptFrom(before, textsOf(ours));
  const keptByThem = keptFrom(before, textsOf(theirs));
  if (keptByUs === undefined || keptByThem === undefined) return DEFAULT;
  const keptByBoth = Math.min(keptByUs, keptByThem);
  return [...base.slice(base.length - keptByBoth), ...theirs.slice(keptByThem), ...ours.slice(keptByUs)];
}

/** The elements as JSON texts, which can be compared. */
function textsOf(elements: readonly unknown[]): readonly string[] {
  return elements.map((element) => JSON.stringify(element));
}

/**
 * How many of the last elements of `before` are the first elements of `after`, so that only elements at the start were
 * removed; `undefined` if elements were removed elsewhere, or moved.
 */
function keptFrom(before: readonly string[], after: readonly string[]): number | undefined {
  const kept = longestOverlap(before, after);
  const elementsTaken = new Set(before.slice(0, before.length - kept));
  return after.some((element, n) => n >= kept && elementsTaken.has(element)) ? undefined : kept;
}

/**
 * The length of the longest list of elements that ends one array and begins the other one. It compares each element
 * about twice, however often elements repeat (the algorithm of Knuth, Morris and Pratt).
 */
function longestOverlap(before: readonly string[], after: readonly string[]): number {
  const fallbacks = [0];
  // The length of the overlap after one more element, if it was `length` before.
  const next = (length: number, element: string | undefined): number => {
    let overlap = length;
    while (overlap > 0 && (overlap === after.length || after[overlap] !== element))
      overlap = fallbacks[overlap - 1] ?? 0;
    return after[overlap] === element ? overlap + 1 : 0;
  };
  for (let n = 1; n < after.length; n++) fallbacks.push(next(fallbacks[n - 1] ?? 0, after[n]));
  return after.length === 0 ? 0 : before.reduce(next, 0);
}
