/** Decides what is stored if two requests have changed the same session: the changes of both, or of one side alone. */

import { callApp, PgStoreError } from '../errors.js';
import type { Options } from '../options.js';
import type { Codec, Content } from './codec.js';
import { mergeCookies } from './cookie.js';
import { type Merge, merge } from './merge.js';
import { type MergeRules, parseRules } from './merge-rules.js';

/** A user as the table stores it; `null`: nobody. */
type User = string | null;

/**
 * The side whose changes the row gets: both sides, ours alone, or theirs alone, in which case our save is dropped.
 */
export type Side = 'both' | 'ours' | 'theirs';

/**
 * Makes sure that a merge never mixes the data of two users. The first condition that is true decides.
 *
 * @param base   the user of the session as the request loaded it
 * @param ours   its user as the request saves it
 * @param theirs its user as other requests have saved it meanwhile
 */
export function sideThatCounts(base: User, ours: User, theirs: User): Side {
  if (ours === theirs) return 'both';
  // A visitor without a user is signed in by one of the requests: the visitor's data, such as a cart, are kept.
  if (base === null && (ours === null || theirs === null)) return 'both';
  // This request ran for a user who has signed out meanwhile, or for whom somebody else has signed in.
  if (ours === base) return 'theirs';
  // This request itself signs a user in or out.
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
   * @returns the content for the row; `undefined` if the row stays as it is, because the session has changed hands
   * @throws whatever options `user` and `merge` throw
   */
  reconcile(base: Content, ours: Content, theirs: Content): Content | undefined {
    const ourUser = this.#codec.userOf(ours);
    const theirUser = this.#codec.userOf(theirs);
    switch (sideThatCounts(this.#codec.userOf(base), ourUser, theirUser)) {
      case 'both': {
        const merged = {
          data: this.#mergeData(base.data, ours.data, theirs.data),
          cookie: mergeCookies(base.cookie, ours.cookie, theirs.cookie),
        };
        const user = this.#codec.userOf(merged);
        if (user === null || user === ourUser || user === theirUser) return merged;
        // Option `user` goes by several keys, and those of both sides together name somebody who has not signed in. So
        // the row gets the side that has a user.
        return ourUser === null ? undefined : ours;
      }
      case 'ours':
        return ours;
      case 'theirs':
        return undefined;
    }
  }

  #mergeData(base: string, ours: string, theirs: string): string {
    if (ours === base) return theirs;
    if (theirs === base) return ours;
    const result: unknown = callApp(() => this.#merge(JSON.parse(base), JSON.parse(ours), JSON.parse(theirs)));
    const text = JSON.stringify(result);
    // A result that is not an object, or a promise, would be stored as an empty session.
    if (!text?.startsWith('{') || typeof (result as { then?: unknown }).then === 'function') {
      throw new PgStoreError('option `merge` did not return an object', 'INVALID_SESSION');
    }
    return text;
  }
}

/** The default merge, with the rules of option `merge`. */
function mergeBy(option: MergeRules | undefined): Merge {
  const rules = option && parseRules(option);
  return (base, ours, theirs) => merge(base, ours, theirs, rules);
}
