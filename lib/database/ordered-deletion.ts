/** Deletes the sessions of a prefix or a user in the order of the calls on each of them. */

import type { KeyedReadWriteLock } from '../calls/keyed-read-write-lock.js';
import { PgStoreError } from '../errors.js';
import type { ListedRow } from '../session/row.js';
import { handleOf, nextKey, SessionIds } from '../session/session-id.js';
import type { BulkStatements, RunQuery, Selection } from './bulk-statements.js';

type Range = [string, string];

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
export class OrderedDeletion {
  readonly #statements: BulkStatements;
  readonly #order: KeyedReadWriteLock;
  readonly #ids: SessionIds;
  readonly #previous: Previous | undefined;

  constructor(statements: BulkStatements, order: KeyedReadWriteLock, ids: SessionIds, previous: Previous | undefined) {
    this.#statements = statements;
    this.#order = order;
    this.#ids = ids;
    this.#previous = previous;
  }

  async all(run: RunQuery): Promise<void> {
    await this.#inOrder(run, undefined, () => true, this.#ids.range);
  }

  /**
   * @param except a session ID
   * @returns how many rows were deleted
   */
  async ofUser(run: RunQuery, user: string, except: string | undefined): Promise<number> {
    const flaw = except === undefined ? undefined : SessionIds.validateSessionId(except);
    if (flaw) throw new PgStoreError(`\`except\`: ${flaw}`, 'INVALID_SID');
    const kept: string[] = except === undefined ? [] : this.#ids.rowKeysFor(except);
    return this.#inOrder(run, user, (key) => !kept.includes(key), this.#ids.range, kept);
  }

  /** @returns whether there was a row */
  async byHandle(run: RunQuery, user: string, handle: string): Promise<boolean> {
    const isMeant = (key: string) => handleOf(key) === handle;
    const find = async (): Promise<Range | undefined> => {
      const row = (await this.#statements.ofUser(run, user, this.#ids.range)).find(({ key }) => isMeant(key));
      return row && [row.key, nextKey(row.key)];
    };
    return (await this.#inOrder(run, user, isMeant, find())) > 0;
  }

  /** @param concerns whether it is for a row with this key, too */
  async #inOrder(
    run: RunQuery,
    user: string | undefined,
    concerns: (key: string) => boolean,
    range: Range | Promise<Range | undefined>,
    except: string[] = [],
  ): Promise<number> {
    const start = this.#start(run, user);
    const counts = await this.#order.bulk(
      async (sids) => {
        const [until, found] = await Promise.all([start, range]);
        const inUse = sids.flatMap((sid) => this.#ids.rowKeysFor(sid));
        return found ? this.#delete(run, { range: found, until, except: [...except, ...inUse], user }) : 0;
      },
      async (sid, isLater) => {
        // What calls before this one wrote counts as there, whenever it arrived. What those after
        // it create is later than this time, since they wait for it.
        const now = await start;
        let deleted = 0;
        for (const key of this.#ids.rowKeysFor(sid).filter(concerns)) {
          const until = isLater ? now : 'Infinity';
          const one = { range: [key, nextKey(key)] as Range, until, except: [], user, shard: this.#ids.shardOf(sid) };
          deleted += await this.#delete(run, one);
        }
        return deleted;
      },
    );
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async #start(run: RunQuery, user: string | undefined): Promise<string> {
    if (user === undefined) await this.#previous?.clear();
    return this.#statements.now(run);
  }

  async #delete(run: RunQuery, selection: Selection): Promise<number> {
    const { range, user, except, until } = selection;
    if (!this.#previous || user === undefined) return this.#statements.delete(run, selection);
    const rows = (await this.#statements.ofUser(run, user, range)).filter(
      ({ key, createdAt }) => createdAt <= Number(until) * 1000 && !except.includes(key),
    );
    await Promise.all(rows.map((row) => this.#previous?.destroyRow(row)));
    return rows.length + (await this.#statements.delete(run, selection));
  }
}
