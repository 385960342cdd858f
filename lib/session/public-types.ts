/** Types of the package's interface that are about sessions. Their declarations bring no others into the package. */

import type { SessionData } from 'express-session';

/** A session of `all()` or `sessions()`. `id` is its session ID, which is missing with option `hashIds`. */
export type ListedSession = SessionData & { id?: string };

/** One of a user's sessions, with nothing in it that must not be shown to that user. */
export interface UserSession {
  /** An opaque name of the session, for `destroyByHandle`. It cannot be used as a session ID. */
  handle: string;
  createdAt: Date;
  /** When the session was last written. A touch within `touchAfter` is not written. */
  lastSeenAt: Date;
  expiresAt: Date;
  /** The session's data and cookie, without its ID. */
  session: SessionData;
}

/**
 * Changes a session in place, or returns another one to be stored instead. It is synchronous. It may be called several
 * times, each time with the session as it is stored then.
 */
// biome-ignore lint/suspicious/noConfusingVoidType: a function without a return statement is the usual one
export type Change = (session: SessionData) => SessionData | void;

/** Why a watched session has ended. */
export type SessionEnd = 'destroyed' | 'expired';
