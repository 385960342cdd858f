/** From a session to the columns of its row and back. Pure. */

import { PgStoreError, UnreadableRowError } from '../errors.js';
import type { Encryption } from './encryption.js';

/** A session as express-session hands it over: any object. */
export type Session = Record<string, unknown>;

/** A session in the form in which it is compared and stored. */
export interface EncodedSession {
  /** JSON of the session without its cookie. */
  readonly data: string;
  /** JSON of the cookie, its `expires` replaced by `true`; `null` where the session has none. */
  readonly cookie: string | null;
  /** Milliseconds until the cookie expires; `undefined` where it does not. */
  readonly expiresIn: number | undefined;
}

/** PostgreSQL's timestamps end in the year 294276, JavaScript's dates in 275760. */
export const LONGEST_MS = 8e15;

/**
 * The cookie's `expires` changes with each request, and only the database's clock counts: the row keeps it in `expires_at`,
 * the cookie's JSON only that there is one.
 *
 * @throws what JSON.stringify throws: TypeError for cycles and BigInt, RangeError for too deep nesting
 */
export function encode(session: unknown): EncodedSession {
  const value = toPlain(session);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return { data: stringify(value), cookie: null, expiresIn: undefined };
  }
  const { cookie, ...data } = value as Session;
  const plainCookie = toPlain(cookie);
  if (typeof plainCookie !== 'object' || plainCookie === null) {
    return { data: stringify(data), cookie: cookieText(plainCookie), expiresIn: undefined };
  }
  const { expires, maxAge } = plainCookie as Session;
  const due = expires instanceof Date || typeof expires === 'string' ? new Date(expires).getTime() : Number.NaN;
  if (!Number.isNaN(due)) {
    const marked = { ...plainCookie, expires: true };
    return { data: stringify(data), cookie: cookieText(marked), expiresIn: limit(due - Date.now()) };
  }
  const expiresIn = typeof maxAge === 'number' && !Number.isNaN(maxAge) ? limit(maxAge) : undefined;
  return { data: stringify(data), cookie: cookieText(plainCookie), expiresIn };
}

/**
 * @param millisecondsLeft until the row expires, by the database's clock
 * @throws UnreadableRowError
 */
export function decode(data: string, cookie: string | null, millisecondsLeft: number): unknown {
  const session = parse(data, 'data');
  if (cookie === null) return session;
  if (typeof session !== 'object' || session === null || Array.isArray(session)) {
    throw new UnreadableRowError('the data is not an object');
  }
  const parsed = parse(cookie, 'cookie');
  if (typeof parsed === 'object' && parsed !== null && (parsed as Session).expires === true) {
    (parsed as Session).expires = new Date(Math.min(Date.now() + millisecondsLeft, 8.64e15)).toISOString();
  }
  (session as Session).cookie = parsed;
  return session;
}

/** The `data` column's text for a session's JSON: the JSON, or its ciphertext as a JSON string. */
export function seal(encryption: Encryption | undefined, rowKey: string, data: string): string {
  return encryption ? `"${encryption.seal(rowKey, data)}"` : data;
}

/** Whether a `data` column is as `seal` would make it now: encrypted with the newest key, or not encrypted. */
export function isSealedNewest(encryption: Encryption | undefined, column: string): boolean {
  return encryption ? column.startsWith(encryption.newestHead, 1) : !column.startsWith('"');
}

/** @throws UnreadableRowError */
export function open(
  encryption: Encryption | undefined,
  allowPlaintext: boolean,
  rowKey: string,
  column: string,
): string {
  // Somebody dropped the column's `not null`.
  if (typeof column !== 'string') throw new UnreadableRowError('the row has no data');
  if (encryption && column.startsWith('"')) return encryption.open(rowKey, column.slice(1, -1));
  if (encryption && !allowPlaintext) throw new UnreadableRowError('the data is not encrypted');
  return column;
}

/**
 * Whether two cookies' JSON say the same. express-session resets `maxAge` with each request and thereby sometimes takes a
 * millisecond off `originalMaxAge` (its Cookie's `expires` setter): that is no change.
 */
export function sameCookie(a: string | null, b: string | null): boolean {
  if (a === b || a === null || b === null) return a === b;
  const [before, after] = [JSON.parse(a), JSON.parse(b)];
  const drift = Math.abs(before?.originalMaxAge - after?.originalMaxAge);
  return drift <= 10 && a === JSON.stringify({ ...after, originalMaxAge: before.originalMaxAge });
}

/** What JSON.stringify would see: the app may have given the session or its cookie a `toJSON`. */
function toPlain(value: unknown): unknown {
  const object = value as { toJSON?: () => unknown } | null | undefined;
  return typeof object?.toJSON === 'function' ? object.toJSON() : value;
}

function stringify(value: unknown): string {
  const text = JSON.stringify(value);
  if (text === undefined) throw new PgStoreError('the session has no JSON form', 'INVALID_SESSION');
  return text;
}

function cookieText(cookie: unknown): string | null {
  return JSON.stringify(cookie) ?? null;
}

function parse(text: string, column: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's message quotes the text.
    throw new UnreadableRowError(`the ${column} is not JSON`);
  }
}

function limit(milliseconds: number): number {
  return Math.min(Math.max(milliseconds, 0), LONGEST_MS);
}
