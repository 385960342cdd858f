/** Creates and loads sessions as express-session does, without HTTP. */

import assert from 'node:assert/strict';
import session, { type SessionData } from 'express-session';
import type { PgStore } from '../../lib/index.js';

/** A session that was created or loaded, with any keys. */
export type AnySession = session.Session & SessionData & Record<string, any>;

/** A session as a plain object, as other frameworks store it. @param maxAge milliseconds until its cookie expires */
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

/** Loads a session as express-session does for a request; `undefined` if there is none. */
export async function load(store: PgStore, sid: string): Promise<AnySession | undefined> {
  const data = await store.get(sid);
  return data ? (store.createSession({ sessionID: sid, sessionStore: store } as any, data) as AnySession) : undefined;
}

/** Loads a session that must exist. */
export async function loaded(store: PgStore, sid: string): Promise<AnySession> {
  const found = await load(store, sid);
  assert(found, `no session ${sid}`);
  return found;
}

/** The session's data without the cookie; `null` if there is no session. */
export async function data(store: PgStore, sid: string): Promise<Record<string, unknown> | null> {
  const found = await store.get(sid);
  if (!found) return null;
  const { cookie: _, ...rest } = found;
  return rest;
}

/**
 * A cookie's `originalMaxAge`, rounded to a tenth of a second, because the setter of `maxAge` sometimes makes it a
 * millisecond shorter.
 */
export function maxAgeOf({ originalMaxAge }: session.Cookie | SessionData['cookie']): number | null {
  return originalMaxAge && Math.round(originalMaxAge / 100) * 100;
}

const odd = { text: 'ä\0', snake_case: { inner_key: 1 }, list: [1, null], undefinedLike: null };

/** Makes each kind of call once, and asserts that values come back unchanged, whatever the client's settings. */
export async function exercise(store: PgStore): Promise<void> {
  await Promise.all(['a', 'b', 'c'].map((sid) => store.set(sid, generated(store, sid, odd))));
  const [loaded, other] = [await load(store, 'a'), await load(store, 'a')];
  assert(loaded && other);
  loaded.mine = 1;
  other.theirs = 2;
  await Promise.all([store.set('a', loaded), store.set('a', other), store.touch('b', plain()), store.destroy('c')]);
  const { cookie, ...data } = (await store.get('a')) as any;
  assert.deepEqual(data, { ...odd, mine: 1, theirs: 2 });
  assert(Date.parse(cookie.expires) > Date.now());
  assert.deepEqual(await store.ids(), ['a', 'b']);
  assert.equal(await store.length(), 2);
  assert.equal((await store.all()).length, 2);
  assert.equal(await store.autodelete(), 0);
  assert.deepEqual(await store.sessionsOf('nobody'), []);
  await store.clear();
  assert.equal(await store.length(), 0);
}
