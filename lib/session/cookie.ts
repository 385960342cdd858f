/** Compares, merges and checks the cookies of sessions. Has no side effects. */

import { isObject, merge } from './merge.js';
import { property } from './property.js';

type Cookie = Record<string, unknown>;

/**
 * express-session sets `maxAge` anew in each request, which sometimes makes `originalMaxAge` a millisecond shorter. So
 * a difference of so many milliseconds does not count as a change.
 */
const DRIFT_MS = 10;

/** The latest time of JavaScript's dates, in milliseconds since 1970. */
const LATEST_MS = 8.64e15;

/** The domains that the package `cookie` accepts, which express-session uses. */
const DOMAIN = /^\.?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;

/**
 * For each attribute, whether express-session can write the value into a `Set-Cookie` header. Falsy values are not
 * checked, because it leaves them out.
 */
const FIT: ReadonlyMap<string, (value: unknown) => boolean> = new Map([
  ['path', (value) => typeof value === 'string' && /^[\x20-\x3a\x3d-\x7e]*$/.test(value)],
  ['domain', (value) => typeof value === 'string' && DOMAIN.test(value)],
  ['sameSite', (value) => value === true || (typeof value === 'string' && /^(lax|strict|none)$/i.test(value))],
  ['priority', (value) => typeof value === 'string' && /^(low|medium|high)$/i.test(value)],
  ['originalMaxAge', (value) => typeof value !== 'number' || isDate(Date.now() + value)],
  ['maxAge', (value) => typeof value === 'number' && isDate(Date.now() + value)],
  ['expires', (value) => value === true || (typeof value === 'string' && isDate(Date.parse(value)))],
]);

/** Attributes with names that express-session's class `Cookie` uses itself. */
const RESERVED = new Set(['__proto__', '_expires', 'data', 'serialize', 'toJSON']);

/**
 * Says why express-session would fail each request of a session with this cookie; `undefined` if it would not.
 * express-session never stores such a cookie, so somebody has written it into the row by hand.
 *
 * @param cookie as it stands in the row, its `expires` replaced by `true`
 */
export function cookieFlaw(cookie: Cookie): string | undefined {
  for (const name of Object.keys(cookie)) {
    const value = cookie[name];
    const isFit = FIT.get(name);
    if (RESERVED.has(name) || (isFit && value && !isFit(value))) return `the cookie's \`${name}\` cannot be sent`;
  }
  return undefined;
}

function isDate(time: number): boolean {
  return Math.abs(time) <= LATEST_MS;
}

/** Whether two cookies are the same, apart from the drift of `originalMaxAge`. */
export function isSameCookie(before: string | null, after: string | null): boolean {
  if (before === after) return true;
  if (before === null || after === null) return false;
  return JSON.stringify(withoutDrift(JSON.parse(before), JSON.parse(after))) === before;
}

/** Merges cookies attribute by attribute, as a session's keys are merged. */
export function mergeCookies(base: string | null, ours: string | null, theirs: string | null): string | null {
  if (isSameCookie(base, ours)) return theirs;
  if (isSameCookie(base, theirs)) return ours;
  const before = parse(base);
  const merged = merge(before, withoutDrift(before, parse(ours)), withoutDrift(before, parse(theirs)));
  return isObject(merged) ? JSON.stringify(merged) : null;
}

/** Whether two cookies give their session the same lifetime, so that the expiry of one is right for the other. */
export function hasSameLifetime(one: string | null, other: string | null): boolean {
  if (one === other) return true;
  const a = parse(one) ?? {};
  const b = parse(other) ?? {};
  return property(a, 'expires') === property(b, 'expires') && hasNearMaxAge(a, b);
}

/**
 * Completes a plain cookie that the app has changed, as express-session's class `Cookie` does after the same
 * assignments: `maxAge` or `expires` says how long the session lives from now on, and again after each later request.
 */
export function settledCookie(cookie: unknown, before: unknown): unknown {
  if (!isObject(cookie)) return cookie;
  const { maxAge, ...others } = cookie;
  if (maxAge === null) return { ...others, originalMaxAge: null, expires: null };
  if (typeof maxAge === 'number') {
    const time = Math.min(Math.max(0, Date.now() + maxAge), LATEST_MS);
    return { ...others, originalMaxAge: maxAge, expires: new Date(time).toISOString() };
  }
  const { originalMaxAge, expires } = isObject(before) ? before : {};
  if (cookie.expires === expires || cookie.originalMaxAge !== originalMaxAge) return cookie;
  const time = cookie.expires ? new Date(cookie.expires as string | number).getTime() : Number.NaN;
  return { ...cookie, originalMaxAge: Number.isNaN(time) ? null : time - Date.now() };
}

/**
 * The cookie `after`, with the `originalMaxAge` of `before` if the two differ only by drift. It also gets its
 * `originalExpires`: @fastify/session notes there the `expires` that it has loaded, which changes with each request.
 */
function withoutDrift(before: Cookie | null, after: Cookie): Cookie;
function withoutDrift(before: Cookie | null, after: Cookie | null): Cookie | null;
function withoutDrift(before: Cookie | null, after: Cookie | null): Cookie | null {
  if (!before || !after) return after;
  const hasDrift = Object.hasOwn(after, 'originalMaxAge') && hasNearMaxAge(before, after);
  const settled = hasDrift ? { ...after, originalMaxAge: before.originalMaxAge } : after;
  if (!Object.hasOwn(after, 'originalExpires')) return settled;
  return { ...settled, originalExpires: property(before, 'originalExpires') };
}

function hasNearMaxAge(one: Cookie, other: Cookie): boolean {
  const a = property(one, 'originalMaxAge');
  const b = property(other, 'originalMaxAge');
  return a === b || (typeof a === 'number' && typeof b === 'number' && Math.abs(a - b) <= DRIFT_MS);
}

function parse(cookie: string | null): Cookie | null {
  const parsed: unknown = cookie === null ? null : JSON.parse(cookie);
  return isObject(parsed) ? parsed : null;
}
