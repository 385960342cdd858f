/** Lists sessions: of a prefix, of a user. */

import { PgStoreError } from '../errors.js';
import { type ListedSession, type UserSession, userSession } from '../session/listing.js';
import type { ListedRow } from '../session/row.js';
import type { RowCodec } from '../session/row-codec.js';
import type { SessionIds } from '../session/session-id.js';
import type { BulkStatements } from './bulk-statements.js';
import type { Query } from './query.js';

/** Rows that are not signed with the secret, or cannot be read, are left out. */
export function sessionListing(statements: BulkStatements, ids: SessionIds, codec: RowCodec) {
  function sessionOf(row: ListedRow): ListedSession | undefined {
    const sid = ids.sessionIdFrom(row.key);
    if (ids.reversible && sid === undefined) return undefined;
    const session = codec.read(row)?.session;
    return session && sid !== undefined ? Object.assign(session, { id: sid }) : session;
  }

  return {
    async *all(query: Query): AsyncGenerator<ListedSession> {
      for await (const page of statements.pages(query, ids.range)) {
        for (const row of page) {
          const session = sessionOf(row);
          if (session) yield session;
        }
      }
    },

    async ids(query: Query): Promise<string[]> {
      if (!ids.reversible)
        throw new PgStoreError('with option `hashIds` the table holds no session IDs', 'INVALID_SID');
      const found: string[] = [];
      for await (const page of statements.pages(query, ids.range)) {
        found.push(...page.flatMap(({ key }) => ids.sessionIdFrom(key) ?? []));
      }
      return found;
    },

    async ofUser(query: Query, user: string): Promise<UserSession[]> {
      const rows = await statements.ofUser(query, user, ids.range);
      return rows.flatMap((row) => {
        const session = sessionOf(row);
        return session ? [userSession(row, session)] : [];
      });
    },
  };
}
