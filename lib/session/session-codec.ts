/** From a session to the columns of its row and back. Pure. */

import type { SessionData } from 'express-session';
import { PgStoreError, UnreadableRowError } from '../errors.js';
import { isObject } from './merge.js';

/** A session in the form in which it is compared and stored. */
export interface EncodedSession {
  /** JSON of the session without its cookie. */
  readonly data: string;
  /** JSON of the cookie, its `expires` replaced by `true`. */
  readonly cookie: string;
  /**
   * When the cookie expires: milliseconds since 1970 by the app's clock; `undefined` where it does
   * not.
   */
  readonly expires: number | undefined;
}

/** PostgreSQL's timestamps end in the year 294276, JavaScript's dates in 275760. */
export const LATEST_MS = 8e15;

/**
 * The cookie's `expires` changes with each request: the row keeps it in `expires_at`, the cookie's
 * JSON only that there is one.
 *
 * @throws PgStoreError `INVALID_SESSION` for what is no session, and what JSON.stringify throws:
 * TypeError for cycles and BigInt, RangeError for too deep nesting
 */
export function encode(session: unknown): EncodedSession {
  const value = toPlain(session);
  if (!isObject(value)) throw new PgStoreError('the session is not an object', 'INVALID_SESSION');
  const { cookie: given, ...data } = value;
  const cookie = toPlain(given);
  if (!isObject(cookie)) throw new PgStoreError('the session has no cookie', 'INVALID_SESSION');
  const { expires, maxAge } = cookie;
  const text = JSON.stringify(data);
  const due = expires instanceof Date || typeof expires === 'string' ? new Date(expires).getTime() : Number.NaN;
  if (!Number.isNaN(due)) {
    return { data: text, cookie: JSON.stringify({ ...cookie, expires: true }), expires: limit(due) };
  }
  const hasMaxAge = typeof maxAge === 'number' && !Number.isNaN(maxAge);
  return { data: text, cookie: JSON.stringify(cookie), expires: hasMaxAge ? limit(Date.now() + maxAge) : undefined };
}

/**
 * @param expires when the row expires: milliseconds since 1970 by the app's clock
 * @throws UnreadableRowError
 */
export function decode(data: string, cookie: string | null, expires: number): SessionData {
  const session = parse(data, 'data');
  if (!isObject(session)) throw new UnreadableRowError('the data is not an object');
  const parsed = cookie === null ? null : parse(cookie, 'cookie');
  if (!isObject(parsed)) throw new UnreadableRowError('the row has no cookie');
  if (parsed.expires === true) parsed.expires = new Date(limit(expires)).toISOString();
  return Object.assign(session, { cookie: parsed }) as unknown as SessionData;
}

/**
 * Whether two cookies' JSON say the same. express-session resets `maxAge` with each request and
 * thereby sometimes takes a millisecond off `originalMaxAge` (its Cookie's `expires` setter): that
 * is no change.
 */
export function sameCookie(a: string, b: string): boolean {
  if (a === b) return true;
  const [before, after] = [JSON.parse(a), JSON.parse(b)];
  const drift = Math.abs(before.originalMaxAge - after.originalMaxAge);
  return drift <= 10 && a === JSON.stringify({ ...after, originalMaxAge: before.originalMaxAge });
}

/** What JSON.stringify would see: the app may have given the session or its cookie a `toJSON`. */
function toPlain(value: unknown): unknown {
  const object = value as { toJSON?: () => unknown } | null | undefined;
  return typeof object?.toJSON === 'function' ? object.toJSON() : value;
}

function parse(text: string, column: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's message quotes the text.
    throw new UnreadableRowError(`the ${column} is not JSON`);
  }
}

function limit(time: number): number {
  return Math.min(Math.max(time, 0), LATEST_MS);
}
