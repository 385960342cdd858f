/** Three-way merge of JSON values. Has no side effects. */

import { isDeepStrictEqual } from 'node:util';
import { DEFAULT, type RuleNode } from './merge-rules.js';

type JsonObject = Record<string, unknown>;

/**
 * A function in option `merge`, which replaces the default three-way merge. It must be synchronous.
 *
 * @param base   the session's data as this request loaded it
 * @param ours   the data as this request wants to save it
 * @param theirs the data as other requests have saved it meanwhile
 * @returns the data to store, an object. It may be one of the arguments, which are copies and may be changed.
 */
export type Merge = (base: unknown, ours: unknown, theirs: unknown) => unknown;

/**
 * Three-way merge. Objects are merged key by key at any depth, arrays and scalars as whole values.
 *
 * A key that one side has changed gets that side's value. A key that both have changed gets ours, which is the later
 * save. A key that one side has removed is removed, unless the other side has changed it. The arguments are not
 * changed. Keys such as `__proto__` are data.
 *
 * @param rules of option `merge`, for values that both sides changed
 * @throws RangeError for values nested so deep that the stack ends (some thousands of levels)
 */
export function merge(base: unknown, ours: unknown, theirs: unknown, rules?: RuleNode): unknown {
  if (!isObject(ours) || !isObject(theirs)) return isDeepStrictEqual(base, ours) ? theirs : ours;
  const before = isObject(base) ? base : {};
  const merged: JsonObject = {};
  for (const key of Object.keys({ ...theirs, ...ours })) {
    const value = mergeKey(ownValue(before, key), ownValue(ours, key), ownValue(theirs, key), rules?.get(key));
    if (value !== undefined) put(merged, key, value);
  }
  return merged;
}

/**
 * Merges the values of a key that at least one side has. `undefined` stands for a missing value, since JSON does not
 * contain it.
 */
function mergeKey(base: unknown, ours: unknown, theirs: unknown, rules: RuleNode | undefined): unknown {
  const resolved = rules ? rules.resolve(base, ours, theirs) : DEFAULT;
  if (resolved !== DEFAULT) return resolved;
  if (ours !== undefined && theirs !== undefined) return merge(base, ours, theirs, rules);
  // Only one side has the key: that side has added or changed it, or else the other side has removed it.
  const value = ours === undefined ? theirs : ours;
  return isDeepStrictEqual(base, value) ? undefined : value;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The value of a key of the object itself; `undefined` if it has none. */
export function ownValue(object: JsonObject, key: string): unknown {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/** Sets a key. Assigning to `__proto__` would set the prototype instead. */
function put(object: JsonObject, key: string, value: unknown): void {
  if (key === '__proto__') {
    Object.defineProperty(object, key, { value, configurable: true, enumerable: true, writable: true });
  } else object[key] = value;
}
