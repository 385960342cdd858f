/** What is stored where two requests have changed the same session: both changes, or one side's alone. */

import { PgStoreError } from '../errors.js';
import type { Options } from '../options.js';
import type { Codec, Content } from './codec.js';
import { mergeCookies } from './cookie.js';
import { type Merge, merge } from './merge.js';
import { type MergeRules, parseRules } from './merge-rules.js';

/** A user as the table stores it; `null`: nobody. */
type User = string | null;

/** Whose content the row gets: both sides' changes, ours alone, or theirs alone, so that our save is dropped. */
export type Side = 'both' | 'ours' | 'theirs';

/**
 * Keeps the sessions of two users apart. The first line that matches decides.
 *
 * @param base   the user of the session as the request loaded it
 * @param ours   its user as the request saves it
 * @param theirs its user as other requests have saved it meanwhile
 */
export function sideThatCounts(base: User, ours: User, theirs: User): Side {
  if (ours === theirs) return 'both';
  // A visitor's cart comes along when another request signs the visitor in.
  if (base === null && (ours === null || theirs === null)) return 'both';
  // The request ran for a user who has signed out, or in as somebody else, meanwhile.
  if (ours === base) return 'theirs';
  // This request itself signs somebody in or out.
  return 'ours';
}

/** Merges the contents of a session that several requests have changed. */
export class Reconciler {
  readonly #merge: Merge;
  readonly #codec: Codec;

  constructor({ merge: option }: Options, codec: Codec) {
    this.#merge = typeof option === 'function' ? option : mergeBy(option);
    this.#codec = codec;
  }

  /**
   * @returns what the row is to hold; `undefined` where it stays as it is, since the session changed hands
   * @throws whatever options `user` and `merge` throw
   */
  reconcile(base: Content, ours: Content, theirs: Content): Content | undefined {
    const userOf = (content: Content) => this.#codec.userOf(content);
    switch (sideThatCounts(userOf(base), userOf(ours), userOf(theirs))) {
      case 'both':
        return {
          data: this.#mergeData(base.data, ours.data, theirs.data),
          cookie: mergeCookies(base.cookie, ours.cookie, theirs.cookie),
        };
      case 'ours':
        return ours;
      case 'theirs':
        return undefined;
    }
  }

  #mergeData(base: string, ours: string, theirs: string): string {
    if (ours === base) return theirs;
    if (theirs === base) return ours;
    const result: unknown = this.#merge(JSON.parse(base), JSON.parse(ours), JSON.parse(theirs));
    const text = JSON.stringify(result);
    // Anything else, a promise for one, would be stored as an empty session.
    if (!text?.startsWith('{') || typeof (result as { then?: unknown }).then === 'function') {
      throw new PgStoreError('option `merge` returned no object', 'INVALID_SESSION');
    }
    return text;
  }
}

/** The default merge, with the rules of option `merge`. */
function mergeBy(option: MergeRules | undefined): Merge {
  const rules = option && parseRules(option);
  return (base, ours, theirs) => merge(base, ours, theirs, rules);
}
