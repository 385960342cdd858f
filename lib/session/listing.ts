/** Lists sessions: those of the prefix, and those of a user. */

import { PgStoreError } from '../errors.js';
import type { Emit } from '../events.js';
import { type Codec, type OpenedRow, readRow } from './codec.js';
import type { ListedSession, UserSession } from './public-types.js';
import type { ListedRow, Statements } from './row.js';
import { handleOf, type SessionIds } from './session-id.js';

/** The largest `integer` of PostgreSQL. */
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

  /** The sessions of the prefix, page after page. @param kind the call, as diagnostics name it */
  async *pages(kind: string): AsyncGenerator<ListedSession[]> {
    for await (const rows of this.#statements.pages(kind)) {
      yield rows.flatMap((row) => {
        const found = this.#open(row);
        if (!found) return [];
        return [found.sid === undefined ? found.session : Object.assign(found.session, { id: found.sid })];
      });
    }
  }

  /** The IDs of all sessions of the prefix. @throws PgStoreError `INVALID_SID` with option `hashIds` */
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
   * A user's sessions, the most recently active first. Option `user` is applied to the data of each row. The column
   * `user_id` alone is not trusted: somebody who can write to the table could set it, but cannot change encrypted data.
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

  /** The session of a row; `undefined` if the row is not signed with a secret, or cannot be read. */
  #open(row: ListedRow): (OpenedRow & { readonly sid: string | undefined }) | undefined {
    const sid = this.#ids.sessionIdFrom(row.key);
    if (this.#ids.isReversible && sid === undefined) return undefined;
    const opened = readRow(this.#codec, row, this.#emit);
    return opened && { sid, ...opened };
  }
}
