/** Sessions as express-session creates and loads them, without HTTP. */

import assert from 'node:assert/strict';
import session, { type SessionData } from 'express-session';
import type { PgStore } from '../../lib/index.js';

/** A session in the making or loaded, with whatever keys a spec gives it. */
export type AnySession = session.Session & SessionData & Record<string, any>;

/** Plain data as another framework would store it: its cookie expires in `maxAge` milliseconds. */
export function plain(data: Record<string, unknown> = {}, maxAge = 60_000): SessionData & Record<string, any> {
  const expires = new Date(Date.now() + maxAge).toISOString();
  return { cookie: { originalMaxAge: maxAge, expires, httpOnly: true, path: '/' }, ...data } as any;
}

/** A new session, as express-session generates it for a visitor without one. */
export function generated(
  store: session.Store,
  sid: string,
  data: object = {},
  maxAge: number | null = 60_000,
): AnySession {
  const made: any = new (session as any).Session({ sessionID: sid, sessionStore: store }, data);
  made.cookie = new session.Cookie();
  if (maxAge !== null) made.cookie.maxAge = maxAge;
  return made;
}

/** What a request gets that comes with this session ID; undefined where there is no session. */
export async function load(store: PgStore, sid: string): Promise<AnySession | undefined> {
  const data = await store.get(sid);
  return data ? (store.createSession({ sessionID: sid, sessionStore: store } as any, data) as AnySession) : undefined;
}

/** The same for a session that must be there. */
export async function loaded(store: PgStore, sid: string): Promise<AnySession> {
  const found = await load(store, sid);
  assert(found, `no session ${sid}`);
  return found;
}

/** What the row holds, without the cookie. */
export async function data(store: PgStore, sid: string): Promise<Record<string, unknown> | null> {
  const found = await store.get(sid);
  if (!found) return null;
  const { cookie: _, ...rest } = found;
  return rest;
}

/** A cookie's `originalMaxAge`, to a tenth of a second: its `maxAge` setter sometimes takes a millisecond off. */
export function maxAgeOf({ originalMaxAge }: session.Cookie | SessionData['cookie']): number | null {
  return originalMaxAge && Math.round(originalMaxAge / 100) * 100;
}
