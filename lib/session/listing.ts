/** Lists sessions: those of the prefix, and those of a user. */

import type { SessionData } from 'express-session';
import { PgStoreError } from '../errors.js';
import type { Emit } from '../events.js';
import { type Codec, type OpenedRow, readRow } from './codec.js';
import type { ListedRow, Statements } from './row.js';
import { handleOf, type SessionIds } from './session-id.js';

/** A session of `all()` or `sessions()`. `id` is its session ID; it is absent with `hashIds`, where nobody knows it. */
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

/** PostgreSQL's `integer` ends there. */
const MOST_ROWS = 2 ** 31 - 1;

export class SessionListing {
  readonly #statements: Statements;
  readonly #ids: SessionIds;
  readonly #codec: Codec;
  readonly #emit: Emit;

  constructor(statements: Statements, ids: SessionIds, codec: Codec, emit: Emit) {
    this.#statements = statements;
    this.#ids = ids;
    this.#codec = codec;
    this.#emit = emit;
  }

  /** The sessions of the prefix, page after page. */
  async *pages(kind: string): AsyncGenerator<ListedSession[]> {
    for await (const rows of this.#statements.pages(kind)) {
      yield rows.flatMap((row) => {
        const found = this.#open(row);
        if (!found) return [];
        return [found.sid === undefined ? found.session : Object.assign(found.session, { id: found.sid })];
      });
    }
  }

  /** @throws PgStoreError `INVALID_SID` with option `hashIds` */
  async ids(): Promise<string[]> {
    if (!this.#ids.isReversible) {
      throw new PgStoreError('with option `hashIds` the table holds no session IDs', 'INVALID_SID');
    }
    const found: string[] = [];
    for await (const rows of this.#statements.pages('ids')) {
      found.push(...rows.flatMap(({ key }) => this.#ids.sessionIdFrom(key) ?? []));
    }
    return found;
  }

  /**
   * A user's sessions, newest activity first: those whose own data belong to that user. Whoever may write the table
   * could put any name into column `user_id`, but cannot change encrypted data.
   */
  async ofUser(user: string, limit: number): Promise<UserSession[]> {
    const rows = await this.#statements.listOfUser(user, Math.min(limit, MOST_ROWS));
    return rows.flatMap((row) => {
      const found = this.#open(row);
      if (!found || this.#codec.userOf(found.content, row.expiresAt) !== user) return [];
      return [
        {
          handle: handleOf(row.key),
          createdAt: new Date(row.createdAt),
          lastSeenAt: new Date(row.updatedAt),
          expiresAt: new Date(row.expiresAt),
          session: found.session,
        },
      ];
    });
  }

  /** The session of a row; `undefined` where the row is not signed with the secret, or cannot be read. */
  #open(row: ListedRow): (OpenedRow & { readonly sid: string | undefined }) | undefined {
    const sid = this.#ids.sessionIdFrom(row.key);
    if (this.#ids.isReversible && sid === undefined) return undefined;
    const opened = readRow(this.#codec, row, this.#emit);
    return opened && { sid, ...opened };
  }
}
