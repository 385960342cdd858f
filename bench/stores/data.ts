/** The benchmark's sessions: about 600 bytes of JSON each, the same for every store. */

import session, { type SessionData } from 'express-session';

export const SESSIONS = 2_000;

export function sessionIdFrom(n: number): string {
  return `bench-session-${String(n).padStart(8, '0')}`;
}

/** The data of a session as a shop might keep it: a login, a cart and a CSRF token. */
export function dataOf(n: number): Record<string, unknown> {
  return {
    user: { id: n, name: `Visitor Number ${n}`, email: `visitor${n}@example.com`, roles: ['reader', 'editor'] },
    csrf: 'f3Jx0Zk2mQvU7bYtPzWcN4rLh8aDgEsK1oVi',
    cart: Array.from({ length: 5 }, (_, line) => ({ sku: `article-${line}`, quantity: line, note: 'a "quoted" note' })),
    views: 0,
  };
}

/** A new session with a cookie that lasts a day. */
export function sessionOf(n: number): SessionData {
  return withCookie(dataOf(n));
}

/**
 * The IDs of sessions that contain one long string. Its JSON is cheap to parse and to serialize. In each request that
 * only reads, MemoryStore does both once more than other stores, so these sessions show it at its best.
 */
export function textSessionIdFrom(n: number): string {
  return `bench-text-${String(n).padStart(8, '0')}`;
}

export function textSessionOf(): SessionData {
  return withCookie({ text: 'a long text '.repeat(50) });
}

function withCookie(data: Record<string, unknown>): SessionData {
  const cookie = new session.Cookie();
  cookie.maxAge = 86_400_000;
  return { ...data, cookie } as unknown as SessionData;
}

/** Signs the session cookies of the app under load. */
export const SECRET = 'benchmark';
