/** The SQL for many sessions: those of a prefix, of a user, the expired ones. */

import { backOffFromLockedRow } from '../session/concurrency.js';
import type { ListedRow } from '../session/row.js';
import { nextKey } from '../session/session-id.js';
import { arrayLiteral, onShard, type BoundQuery as Query, qualified, type Row, type TableName } from './query.js';
import { isSession, lifeInterval, milliseconds, storedColumn, storedRow } from './sessions-table.js';

/**
 * Rows in one page of a listing or one deletion: some milliseconds of work, whatever the table's
 * size.
 */
const PAGE = 500;

/** Row keys: from the first, to before the second. */
export type Range = [string, string];

/** Which rows a deletion is for. */
export interface Selection {
  readonly range: Range;
  readonly user: string | undefined;
  /** Row keys that are left alone. */
  readonly except: readonly string[];
  /** Only rows that were created by this time, as `now` gives it; `Infinity`: all. */
  readonly until: string;
  /** Of a table with shards: only rows of this one. */
  readonly shard?: number | undefined;
}

/** Statements on sets of rows, each with the store's retries and time limit. */
export class BulkStatements {
  readonly #texts;
  /** `undefined`: the table has none. */
  readonly #shards: readonly (number | undefined)[];
  readonly #timeout: number;

  /**
   * @param timeout milliseconds after which a deletion fails on locked rows
   * @param maxLifetime seconds
   */
  constructor(name: TableName, timeout: number, maxLifetime?: number) {
    this.#timeout = timeout;
    const { shards } = name;
    this.#shards = shards === undefined ? [undefined] : [...Array(shards).keys()];
    const table = qualified(name);
    const life = lifeInterval(maxLifetime);
    const isLive = `${isSession()} and ${life ? `least(expires_at, created_at + ${life})` : 'expires_at'} > now()`;
    // The first parameter of a statement on one shard.
    const [at, first] = shards === undefined ? ['', 1] : ['shard = $1::smallint and ', 2];
    const range = (first: number) => `sid >= $${first}::text and sid < $${first + 1}::text`;
    const times = [milliseconds('created_at'), milliseconds('updated_at')].map((time) => `${time}::text`);
    const columns = [storedColumn(life), ...times, shards === undefined ? 'null' : 'shard::text'].join(', ');
    // Locked rows are left for the next round: no deletion waits, and none can be part of a
    // deadlock.
    const deletion = (which: string, last: string) => `with locked as (
    select sid, expires_by from ${table} where ${at}${which} for update skip locked
  ), deleted as (
    delete from ${table} s using locked l where ${at && `s.${at}`}s.sid = l.sid returning s.sid
  )
  select (select count(*)::text from deleted), (select ${last} from locked)`;
    // Times are sent as numbers: PostgreSQL does not read every time zone's name that it writes
    // (`DateStyle`) as the same zone.
    const time = (value: string) => `to_timestamp(${value}::text::float8)`;
    // One that is still to come was created before the server's clock was set back. Not `now()`:
    // that is the statement's start, and it sees what others committed since.
    const wasThere = (until: string) => `(created_at <= ${time(until)} or created_at > clock_timestamp())`;
    const chosen = (first: number) =>
      `${range(first)} and ${wasThere(`$${first + 2}`)} and not sid = any($${first + 3}::text::text[])`;
    const chosenOfUser = (first: number) => `user_id = $${first + 4}::text and ${chosen(first)}`;
    const ofUserInRange = `user_id = $3::text and ${range(1)}`;
    // Each statement goes on where the last one ended, not over index entries that it left dead.
    const whole = (which: string, page = '') => ({
      deletion: deletion(which + page, 'max(sid)'),
      anyLeft: `select (exists (select from ${table} where ${at}${which}))::text`,
    });
    this.#texts = {
      page: `select ${columns} from ${table} where ${at}${range(first)} and ${isLive} order by sid limit ${PAGE}`,
      count: `select count(*)::text from ${table} where ${range(1)} and ${isLive}`,
      ofUser: `select ${columns} from ${table} where ${ofUserInRange} and ${isLive} order by updated_at desc, sid`,
      selected: `select ${columns} from ${table} where ${chosenOfUser(1)} and ${isLive}`,
      shardsOfUser: `select distinct shard::text from ${table} where ${ofUserInRange}`,
      now: 'select extract(epoch from now())::text',
      deleteRange: whole(chosen(first), ` order by sid limit ${PAGE}`),
      deleteOfUser: whole(chosenOfUser(first)),
      deleteExpired: deletion(
        `expires_by >= ${time(`$${first}`)} and expires_by <= now() order by expires_by limit ${PAGE}`,
        'extract(epoch from max(expires_by))::text',
      ),
    };
  }

  /**
   * The live rows of a range, page after page, shard after shard, by key: memory stays flat, and no
   * transaction stays open meanwhile.
   */
  async *pages(query: Query, [from, to]: Range): AsyncGenerator<ListedRow[]> {
    for (const shard of this.#shards) {
      for (let first = from, rows = PAGE; rows === PAGE; ) {
        const page = (await onShard(query, shard)(this.#texts.page, [first, to])).map(listedRow);
        yield page;
        rows = page.length;
        first = nextKey(page.at(-1)?.key ?? first);
      }
    }
  }

  async count(query: Query, range: Range): Promise<number> {
    return Number(single(await query(this.#texts.count, range)));
  }

  /** The user's unexpired rows, latest activity first. */
  async ofUser(query: Query, user: string, range: Range): Promise<ListedRow[]> {
    return (await query(this.#texts.ofUser, [...range, user])).map(listedRow);
  }

  /** The unexpired rows that `delete` would delete, of a user. */
  async selected(query: Query, selection: Selection & { user: string }): Promise<ListedRow[]> {
    const { range, until, except, user } = selection;
    return (await query(this.#texts.selected, [...range, until, arrayLiteral(except), user])).map(listedRow);
  }

  /** The database's time, for `Selection.until`. */
  async now(query: Query): Promise<string> {
    return single(await query(this.#texts.now, [])) as string;
  }

  /**
   * Deletes until none is left: those of a range in short statements, those of a user in one.
   *
   * @throws PgStoreError `TIMEOUT` where a row is locked for so long
   */
  async delete(query: Query, selection: Selection): Promise<number> {
    const { shard, user, range } = selection;
    let shards = shard === undefined ? this.#shards : [shard];
    if (user !== undefined && shards.length > 1) {
      const found = await query(this.#texts.shardsOfUser, [...range, user]);
      shards = found.map(([one]) => Number(one));
    }
    let total = 0;
    for (const one of shards) total += await this.#delete(onShard(query, one), selection);
    return total;
  }

  async #delete(query: Query, { range: [from, to], until, except, user }: Selection): Promise<number> {
    const { deletion, anyLeft } = user === undefined ? this.#texts.deleteRange : this.#texts.deleteOfUser;
    const more = [to, until, arrayLiteral(except), ...(user === undefined ? [] : [user])];
    let total = 0;
    let deadline = performance.now() + this.#timeout;
    for (let first = from, tries = 0; ; ) {
      const [[count, last] = []] = await query(deletion, [first, ...more]);
      const rows = Number(count);
      total += rows;
      if (rows > 0) [deadline, tries] = [performance.now() + this.#timeout, 0];
      if (rows >= PAGE) {
        first = nextKey(last as string);
        continue;
      }
      first = from;
      if (single(await query(anyLeft, [from, ...more])) !== 'true') return total;
      await backOffFromLockedRow(++tries, deadline);
    }
  }

  /** Deletes expired rows in short statements; locked rows are left to the next run. */
  async deleteExpired(query: Query, isCancelled: () => boolean): Promise<number> {
    let total = 0;
    for (const shard of this.#shards) {
      for (let from = '-Infinity', deleted = PAGE; deleted === PAGE; ) {
        const [[rows, last] = []] = await onShard(query, shard)(this.#texts.deleteExpired, [from]);
        deleted = Number(rows);
        total += deleted;
        if (isCancelled()) return total;
        from = String(last);
      }
    }
    return total;
  }
}

function single(rows: Row[]): unknown {
  return rows[0]?.[0];
}

function listedRow(row: Row): ListedRow {
  return {
    ...storedRow(row),
    createdAt: Number(row[1]),
    updatedAt: Number(row[2]),
    shard: row[3] ? Number(row[3]) : undefined,
  };
}
