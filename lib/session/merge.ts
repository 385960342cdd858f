/** Three-way merge of JSON values. Pure. */

import { isDeepStrictEqual } from 'node:util';
import { DEFAULT, type RuleNode } from './merge-rules.js';

type JsonObject = Record<string, unknown>;

/**
 * Replaces the default three-way merge, for counters, say.
 *
 * @param base   the session's data as this request loaded it
 * @param ours   the data as this request wants to save it
 * @param theirs the data as other requests have saved it meanwhile
 * @returns the data to store. The arguments are copies; changing them does no harm.
 */
export type Merge = (base: unknown, ours: unknown, theirs: unknown) => unknown;

/**
 * Three-way merge: objects key by key at any depth, arrays and scalars as whole values.
 *
 * A key that one side changed takes that side; a key that both changed takes ours, the later save;
 * a key that one side removed goes, unless the other changed it. Never changes its arguments; keys
 * such as `__proto__` are data.
 *
 * @param rules of option `merge`, for values that both sides changed
 * @throws RangeError for values nested so deep that the stack ends (some thousands of levels)
 */
export function merge(base: unknown, ours: unknown, theirs: unknown, rules?: RuleNode): unknown {
  if (!isObject(ours) || !isObject(theirs)) return isDeepStrictEqual(base, ours) ? theirs : ours;
  const before = isObject(base) ? base : {};
  const merged: JsonObject = {};
  for (const key of Object.keys({ ...theirs, ...ours })) {
    const value = mergeKey(own(before, key), own(ours, key), own(theirs, key), rules?.get(key));
    if (value !== undefined) put(merged, key, value);
  }
  return merged;
}

/**
 * Merges the values of a key that is there on one side at least. `undefined`, which JSON does not have, is an absent
 * value.
 */
function mergeKey(base: unknown, ours: unknown, theirs: unknown, rules: RuleNode | undefined): unknown {
  const resolved = rules ? rules.resolve(base, ours, theirs) : DEFAULT;
  if (resolved !== DEFAULT) return resolved;
  if (ours !== undefined && theirs !== undefined) return merge(base, ours, theirs, rules);
  // Of one side alone: added there, or changed there, or else removed by the other.
  const value = ours === undefined ? theirs : ours;
  return isDeepStrictEqual(base, value) ? undefined : value;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function own(object: JsonObject, key: string): unknown {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/** Assigning to `__proto__` would set the prototype instead of a key. */
function put(object: JsonObject, key: string, value: unknown): void {
  if (key === '__proto__') {
    Object.defineProperty(object, key, { value, configurable: true, enumerable: true, writable: true });
  } else object[key] = value;
}
