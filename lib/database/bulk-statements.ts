/** The SQL for many sessions: those of a prefix, of a user, the expired ones. */

import { setTimeout as sleep } from 'node:timers/promises';
import { timeoutError } from '../errors.js';
import type { ListedRow } from '../session/row.js';
import { nextKey } from '../session/session-id.js';
import { type Query, qualified, type Row, type TableName } from './query.js';
import { isSession, lifeInterval, milliseconds, storedColumns, storedRow } from './sessions-table.js';

/** Runs a statement of its own, with the store's retries and time limit. */
export type RunQuery = <T>(work: (query: Query) => Promise<T>) => Promise<T>;

/** Rows in one page of a listing or one deletion: some milliseconds of work, whatever the table's size. */
const PAGE = 500;

/** Statements on sets of rows. Ranges are of row keys: from the first, to before the second. */
export class BulkStatements {
  readonly #texts;
  readonly #timeout: number;

  /**
   * @param timeout milliseconds after which a deletion gives up on rows that somebody holds
   * @param maxLifetime seconds
   */
  constructor(name: TableName, timeout: number, maxLifetime?: number) {
    this.#timeout = timeout;
    const table = qualified(name);
    const life = lifeInterval(maxLifetime);
    const isLive = `${isSession()} and ${life ? `least(expires_at, created_at + ${life})` : 'expires_at'} > now()`;
    const inRange = 'sid >= $1::text and sid < $2::text';
    const times = ['created_at', 'updated_at', life ? `least(expires_at, created_at + ${life})` : 'expires_at'];
    // Six columns with or without a lifetime, then the times.
    const columns = `${storedColumns(life)}${life ? '' : ', null'}, ${times.map((time) => milliseconds(time)).join(', ')}`;
    // Rows that somebody holds are left for the next round: no deletion waits, and none can be part of a deadlock.
    const deletion = (which: string) => `with locked as (
    select sid, expires_by from ${table} where ${which} for update skip locked
  ), deleted as (
    delete from ${table} s using locked h where s.sid = h.sid returning s.sid
  )
  select (select count(*)::integer from deleted), (select extract(epoch from max(expires_by))::text from locked)`;
    const ofUser = `user_id = $1::text and ${inRange.replace('$2', '$3').replace('$1', '$2')}`;
    const chosen = `${ofUser} and not sid = any($4::text::text[])`;
    this.#texts = {
      page: `select ${columns} from ${table} where ${inRange} and ${isLive} order by sid limit ${PAGE}`,
      count: `select count(*)::integer from ${table} where ${inRange} and ${isLive}`,
      ofUser: `select ${columns} from ${table} where ${ofUser} and ${isLive} order by updated_at desc, sid`,
      anyInRange: `select exists (select from ${table} where ${inRange})`,
      anyOfUser: `select exists (select from ${table} where ${chosen})`,
      deleteRange: deletion(`${inRange} limit ${PAGE}`),
      deleteOfUser: deletion(chosen),
      // Each statement goes on where the last one ended, not over index entries that it left dead. The time travels as a
      // number: PostgreSQL does not read every time zone's name that it writes (`DateStyle`) as the same zone.
      deleteExpired: deletion(
        `expires_by >= to_timestamp($1::text::float8) and expires_by <= now() order by expires_by limit ${PAGE}`,
      ),
    };
  }

  /** The live rows of a range, page after page by key: memory stays flat, and no transaction stays open meanwhile. */
  async *pages(run: RunQuery, [from, to]: [string, string]): AsyncGenerator<ListedRow[]> {
    for (let first = from; ; ) {
      const rows = await run((query) => query(this.#texts.page, [first, to]));
      const page = rows.map(listedRow);
      yield page;
      if (page.length < PAGE) return;
      first = nextKey(page.at(-1)?.key ?? first);
    }
  }

  count(run: RunQuery, range: [string, string]): Promise<number> {
    return run(async (query) => single(await query(this.#texts.count, range)) as number);
  }

  /** The user's live rows, newest activity first. */
  ofUser(run: RunQuery, user: string, range: [string, string]): Promise<ListedRow[]> {
    return run(async (query) => (await query(this.#texts.ofUser, [user, ...range])).map(listedRow));
  }

  /** Deletes until none is left. @throws PgStoreError `TIMEOUT` where somebody holds a row for so long */
  async deleteRange(run: RunQuery, range: [string, string]): Promise<number> {
    return this.#deleteAll(run, this.#texts.deleteRange, this.#texts.anyInRange, range);
  }

  /** Deletes the user's rows but the excepted keys: one statement, and others only where somebody locked a row. */
  deleteOfUser(run: RunQuery, user: string, range: [string, string], except: string): Promise<number> {
    return this.#deleteAll(run, this.#texts.deleteOfUser, this.#texts.anyOfUser, [user, ...range, except]);
  }

  /** Deletes expired rows in short statements; rows that somebody holds are left to the next run. */
  async deleteExpired(run: RunQuery, isCancelled: () => boolean): Promise<number> {
    let total = 0;
    for (let from = '-Infinity'; ; ) {
      const [[rows, last] = []] = await run((query) => query(this.#texts.deleteExpired, [from]));
      total += Number(rows);
      if (Number(rows) < PAGE || isCancelled()) return total;
      from = String(last);
    }
  }

  async #deleteAll(run: RunQuery, deletion: string, anyLeft: string, values: string[]): Promise<number> {
    let total = 0;
    let progress = performance.now();
    for (let idle = 0; ; ) {
      const rows = await run(async (query) => single(await query(deletion, values)) as number);
      total += rows;
      const left = await run(async (query) => single(await query(anyLeft, values)) as boolean);
      if (!left) return total;
      if (rows > 0) progress = performance.now();
      else if (performance.now() - progress >= this.#timeout) throw timeoutError();
      idle = rows > 0 ? 0 : idle + 1;
      if (idle > 0) await sleep(Math.min(2 ** idle, 100));
    }
  }
}

function single(rows: Row[]): unknown {
  return rows[0]?.[0];
}

function listedRow(row: Row): ListedRow {
  const base = storedRow(row[5] === null ? row.slice(0, 5) : row);
  return { ...base, createdAt: Number(row[6]), updatedAt: Number(row[7]), expiresAt: Number(row[8]) };
}
