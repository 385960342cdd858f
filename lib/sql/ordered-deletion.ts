/** Deletes the sessions of a prefix or a user in the order of the calls on each of them. */

import type { KeyedReadWriteLock } from '../calls/order.js';
import { PgStoreError } from '../errors.js';
import type { ListedRow } from '../session/row.js';
import { handleOf, nextKey, type SessionIds, validateSessionId } from '../session/session-id.js';
import type { BulkStatements, Range, Selection } from './bulk-statements.js';
import type { BoundQuery as Query } from './query.js';

/** The store in option `previous`, where it takes part. */
interface Previous {
  clear(): Promise<void>;
  /** Destroys the session of a row in both stores. */
  destroyRow(row: ListedRow): Promise<void>;
}

/**
 * Sessions that calls of this process use meanwhile are deleted one by one, each in its turn. All
 * others are deleted in bulk: those that were there at the call, by the database's clock. So the
 * deletion waits for no other call and none for it, a session that is saved after the call stays,
 * and the deletion ends however fast others add sessions.
 */
export function orderedDeletion(
  statements: BulkStatements,
  order: KeyedReadWriteLock,
  ids: SessionIds,
  previous: Previous | undefined,
) {
  /** @param concerns whether it is for a row with this key, too */
  async function inOrder(
    query: Query,
    user: string | undefined,
    concerns: (key: string) => boolean,
    range: Range | Promise<Range | undefined>,
    except: string[] = [],
  ): Promise<number> {
    const start = startOf(query, user);
    const counts = await order.bulk(
      async (sids) => {
        const [until, found] = await Promise.all([start, range]);
        const inUse = sids.flatMap((sid) => ids.rowKeysFor(sid));
        return found ? deleteRows(query, { range: found, until, except: [...except, ...inUse], user }) : 0;
      },
      async (sid, isLater) => {
        // What calls before this one wrote counts as there, whenever it arrived. What those after
        // it create is later than this time, since they wait for it.
        const now = await start;
        let deleted = 0;
        for (const key of ids.rowKeysFor(sid).filter(concerns)) {
          const until = isLater ? now : 'Infinity';
          const one = { range: [key, nextKey(key)] as Range, until, except: [], user, shard: ids.shardOf(sid) };
          deleted += await deleteRows(query, one);
        }
        return deleted;
      },
    );
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async function startOf(query: Query, user: string | undefined): Promise<string> {
    if (user === undefined) await previous?.clear();
    return statements.now(query);
  }

  async function deleteRows(query: Query, selection: Selection): Promise<number> {
    const { user } = selection;
    if (!previous || user === undefined) return statements.delete(query, selection);
    const rows = await statements.selected(query, { ...selection, user });
    await Promise.all(rows.map((row) => previous.destroyRow(row)));
    return rows.length + (await statements.delete(query, selection));
  }

  return {
    async all(query: Query): Promise<void> {
      await inOrder(query, undefined, () => true, ids.range);
    },

    /**
     * @param options `except`: a session ID
     * @returns how many rows were deleted
     */
    async ofUser(query: Query, user: string, options: { except?: string | undefined }): Promise<number> {
      // A misspelt name would destroy the caller's own session.
      const isUnknown = Object.keys(options).some((name) => name !== 'except');
      if (isUnknown) throw new PgStoreError('expected `{ except: session ID }` as options', 'INVALID_SID');
      const { except } = options;
      const flaw = except == null ? undefined : validateSessionId(except);
      if (flaw) throw new PgStoreError(`\`except\`: ${flaw}`, 'INVALID_SID');
      const kept: string[] = except == null ? [] : ids.rowKeysFor(except);
      return inOrder(query, user, (key) => !kept.includes(key), ids.range, kept);
    },

    /** @returns whether there was a row */
    async byHandle(query: Query, user: string, handle: string): Promise<boolean> {
      const isMeant = (key: string) => handleOf(key) === handle;
      const find = async (): Promise<Range | undefined> => {
        const row = (await statements.ofUser(query, user, ids.range)).find(({ key }) => isMeant(key));
        return row && [row.key, nextKey(row.key)];
      };
      return (await inOrder(query, user, isMeant, find())) > 0;
    },
  };
}
