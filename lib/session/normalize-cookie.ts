/** Cookies in a row that would be an error in express-session at every request of that visitor. */

import type { Cookie, SessionData } from 'express-session';

/** Repairs what only a row written by hand can hold. Without any cookie, express-session reports the error. */
export function normalizeCookie(data: SessionData, newCookie: () => Cookie): void {
  if (data.cookie === undefined) return;
  if (typeof data.cookie !== 'object' || data.cookie === null) data.cookie = newCookie();
  if (typeof data.cookie.originalMaxAge !== 'number') data.cookie.originalMaxAge = null;
}
