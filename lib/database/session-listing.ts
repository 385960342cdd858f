/** Lists sessions: of a prefix, of a user. */

import type { ListedSession, UserSession } from '../session/listing.js';
import { userSession } from '../session/listing.js';
import type { ListedRow } from '../session/row.js';
import type { RowCodec } from '../session/row-codec.js';
import type { SessionIds } from '../session/session-id.js';
import type { BulkStatements, RunQuery } from './bulk-statements.js';

/** Rows that are not signed with the secret, or cannot be read, are left out. */
export class SessionListing {
  readonly #statements: BulkStatements;
  readonly #ids: SessionIds;
  readonly #codec: RowCodec;

  constructor(statements: BulkStatements, ids: SessionIds, codec: RowCodec) {
    this.#statements = statements;
    this.#ids = ids;
    this.#codec = codec;
  }

  async *all(run: RunQuery): AsyncGenerator<ListedSession> {
    for await (const page of this.#statements.pages(run, this.#ids.range)) {
      for (const row of page) {
        const session = this.#sessionOf(row);
        if (session) yield session;
      }
    }
  }

  async ids(run: RunQuery): Promise<string[]> {
    const ids: string[] = [];
    for await (const page of this.#statements.pages(run, this.#ids.range)) {
      ids.push(...page.flatMap(({ key }) => this.#ids.sessionIdFrom(key) ?? []));
    }
    return ids;
  }

  async ofUser(run: RunQuery, user: string): Promise<UserSession[]> {
    const rows = await this.#statements.ofUser(run, user, this.#ids.range);
    return rows.flatMap((row) => {
      const session = this.#sessionOf(row);
      return session ? [userSession(row, session)] : [];
    });
  }

  #sessionOf(row: ListedRow): ListedSession | undefined {
    const sid = this.#ids.sessionIdFrom(row.key);
    if (this.#ids.reversible && sid === undefined) return undefined;
    const session = this.#codec.read(row)?.session;
    return session && sid !== undefined ? Object.assign(session, { id: sid }) : session;
  }
}
