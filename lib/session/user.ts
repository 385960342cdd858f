/** Users: option `user` says to which one a session belongs. */

import type { SessionData } from 'express-session';
import { callApp, PgStoreError } from '../errors.js';
import type { Options } from '../options.js';
import { property } from './property.js';
import { textFlaw } from './session-id.js';

/**
 * The user to whom a session belongs, as the table stores it; `null`: nobody.
 *
 * @throws PgStoreError `INVALID_USER`, and whatever option `user` throws
 */
export function userOf(session: SessionData, option: Options['user'] = passportUser): string | null {
  const user: unknown = callApp(() => option(session));
  return user === undefined || user === null ? null : checkUser(user, 'option `user`: ');
}

/**
 * Checks a user, and returns it as the table stores it.
 *
 * @param where goes before the error's message
 * @throws PgStoreError `INVALID_USER`
 */
export function checkUser(user: unknown, where = ''): string {
  const isText = typeof user === 'string' || typeof user === 'number';
  const flaw = isText ? textFlaw(String(user)) : typeof user;
  if (flaw) throw new PgStoreError(`${where}expected a string or a number as user, got ${flaw}`, 'INVALID_USER');
  return String(user);
}

/**
 * The default of option `user`. Passport keeps the result of `serializeUser` in `session.passport.user`. If that is an
 * object, it does not identify the user.
 */
function passportUser(session: SessionData): string | number | undefined {
  const passport = property(session, 'passport');
  const user = typeof passport === 'object' && passport !== null ? property(passport, 'user') : undefined;
  return typeof user === 'string' || typeof user === 'number' ? user : undefined;
}
