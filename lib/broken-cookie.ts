/** Which cookies in a row would be an error in express-session, at each request of that visitor? */

import session, { type SessionData } from 'express-session';

/** Puts right what only somebody who writes rows by hand can make. Without any cookie express-session says what is wrong. */
export function mendCookie(data: SessionData): void {
  if (data.cookie === undefined) return;
  if (typeof data.cookie !== 'object' || data.cookie === null) data.cookie = new session.Cookie();
  if (typeof data.cookie.originalMaxAge !== 'number') data.cookie.originalMaxAge = null;
}
