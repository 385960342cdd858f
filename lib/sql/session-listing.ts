/** Lists sessions: of a prefix, of a user. */

import { PgStoreError } from '../errors.js';
import { type ListedSession, type UserSession, userSession } from '../session/listing.js';
import type { ListedRow } from '../session/row.js';
import type { RowCodec } from '../session/row-codec.js';
import type { SessionIds } from '../session/session-id.js';
import type { BulkStatements } from './bulk-statements.js';
import type { BoundQuery as Query } from './query.js';

export function sessionListing(statements: BulkStatements, ids: SessionIds, codec: RowCodec) {
  /** The session of a row; none where that is not signed with the secret, or cannot be read. */
  function listed(row: ListedRow): ListedSession[] {
    const sid = ids.sessionIdFrom(row.key);
    const session = ids.reversible && sid === undefined ? undefined : codec.read(row)?.session;
    if (!session) return [];
    return [sid === undefined ? session : Object.assign(session, { id: sid })];
  }

  return {
    async *all(query: Query): AsyncGenerator<ListedSession> {
      for await (const page of statements.pages(query, ids.range)) {
        for (const row of page) yield* listed(row);
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
      return rows.flatMap((row) => listed(row).map((session) => userSession(row, session)));
    },
  };
}
