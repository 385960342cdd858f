/** Cookies as texts: whether two are the same, and how they are merged. Pure. */

import { isObject, merge } from './merge.js';
import { property } from './property.js';

type Cookie = Record<string, unknown>;

/**
 * express-session resets `maxAge` with each request, and its Cookie's `expires` setter thereby sometimes takes a
 * millisecond off `originalMaxAge`. A difference of so many milliseconds is not a change.
 */
const DRIFT_MS = 10;

/** JavaScript's dates end there. */
const LATEST_MS = 8.64e15;

/** The latest time of JavaScript's dates, in milliseconds since 1970. */
const LAST_DATE = 8.64e15;

/** As in the package `cookie`, which express-session uses. */
const DOMAIN = /^\.?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;

/** What express-session can make a `Set-Cookie` header of, by attribute; it leaves out what is falsy. */
const FIT: ReadonlyMap<string, (value: unknown) => boolean> = new Map([
  ['path', (value) => typeof value === 'string' && /^[\x20-\x3a\x3d-\x7e]*$/.test(value)],
  ['domain', (value) => typeof value === 'string' && DOMAIN.test(value)],
  ['sameSite', (value) => value === true || (typeof value === 'string' && /^(lax|strict|none)$/i.test(value))],
  ['priority', (value) => typeof value === 'string' && /^(low|medium|high)$/i.test(value)],
  ['originalMaxAge', (value) => typeof value !== 'number' || isDate(Date.now() + value)],
  ['maxAge', (value) => typeof value === 'number' && isDate(Date.now() + value)],
  ['expires', (value) => value === true || (typeof value === 'string' && isDate(Date.parse(value)))],
]);

/** Names that express-session's `Cookie` keeps for itself, or that every object has. */
const RESERVED = new Set(['__proto__', '_expires', 'data', 'serialize', 'toJSON']);

/**
 * Why express-session would fail each request that comes with this cookie, if it would. No app of express-session's
 * stores such a cookie: somebody has written it into the row.
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
  return Math.abs(time) <= LAST_DATE;
}

/** Whether two cookies' JSON say the same. */
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

/** Whether two cookies give their session the same lifetime: then the expiry of one is right for the other. */
export function hasSameLifetime(one: string | null, other: string | null): boolean {
  if (one === other) return true;
  const a = parse(one) ?? {};
  const b = parse(other) ?? {};
  return property(a, 'expires') === property(b, 'expires') && hasNearMaxAge(a, b);
}

/**
 * A plain cookie that the app has changed, as express-session's Cookie is after the same assignments: `maxAge`, and
 * also `expires`, says how long the session lives from now on, and with each later request again.
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

function withoutDrift(before: Cookie | null, after: Cookie): Cookie;
function withoutDrift(before: Cookie | null, after: Cookie | null): Cookie | null;
function withoutDrift(before: Cookie | null, after: Cookie | null): Cookie | null {
  if (!before || !after || !Object.hasOwn(after, 'originalMaxAge') || !hasNearMaxAge(before, after)) return after;
  return { ...after, originalMaxAge: before.originalMaxAge };
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
