/** What a listing shows of a session. */

import type { SessionData } from 'express-session';
import type { ListedRow } from './row.js';
import { handleOf } from './session-id.js';

/**
 * A session of `all()` or `sessions()`. `id` is its session ID; absent with `hashIds`, where nobody
 * knows it.
 */
export type ListedSession = SessionData & { id?: string };

/** One of a user's sessions, fit to be shown to that user. */
export interface UserSession {
  /** Opaque name of the session, for `destroyByHandle`; of no use as a session ID. */
  handle: string;
  createdAt: Date;
  /** Its last save or touch; touches within `touchAfter` are not written. */
  lastSeenAt: Date;
  expiresAt: Date;
  /** The session's data and cookie, without its ID. */
  session: SessionData;
}

export function userSession(row: ListedRow, { id: _, ...session }: ListedSession): UserSession {
  return {
    handle: handleOf(row.key),
    createdAt: new Date(row.createdAt),
    lastSeenAt: new Date(row.updatedAt),
    expiresAt: new Date(row.expiresAt),
    session: session as SessionData,
  };
}
