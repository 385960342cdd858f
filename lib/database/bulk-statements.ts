/** The SQL for many sessions: those of a prefix, of a user, the expired ones. */

import { setTimeout as sleep } from 'node:timers/promises';
import { timeoutError } from '../errors.js';
import type { ListedRow } from '../session/row.js';
import { nextKey } from '../session/session-id.js';
import { arrayLiteral, type Query, qualified, type Row, type TableName } from './query.js';
import { isSession, lifeInterval, milliseconds, storedColumns, storedRow } from './sessions-table.js';

/** Runs a statement of its own, with the store's retries and time limit. */
export type RunQuery = <T>(work: (query: Query) => Promise<T>) => Promise<T>;

/** Rows in one page of a listing or one deletion: some milliseconds of work, whatever the table's size. */
const PAGE = 500;

/** Which rows a deletion is for. */
export interface Selection {
  readonly range: [string, string];
  readonly user: string | undefined;
  /** Row keys that are left alone. */
  readonly except: readonly string[];
  /** Only rows that were created by this time, as `now` gives it; `Infinity`: all. */
  readonly until: string;
}

/** Statements on sets of rows. Ranges are of row keys: from the first, to before the second. */
export class BulkStatements {
  readonly #texts;
  readonly #timeout: number;

  /**
   * @param timeout milliseconds after which a deletion gives up on locked rows
   * @param maxLifetime seconds
   */
  constructor(name: TableName, timeout: number, maxLifetime?: number) {
    this.#timeout = timeout;
    const table = qualified(name);
    const life = lifeInterval(maxLifetime);
    const isLive = `${isSession()} and ${life ? `least(expires_at, created_at + ${life})` : 'expires_at'} > now()`;
    const inRange = 'sid >= $1::text and sid < $2::text';
    const columns = `${storedColumns(life)}, ${milliseconds('created_at')}::text, ${milliseconds('updated_at')}::text`;
    // Locked rows are left for the next round: no deletion waits, and none can be part of a deadlock.
    const deletion = (which: string, last: string) => `with locked as (
    select sid, expires_by from ${table} where ${which} for update skip locked
  ), deleted as (
    delete from ${table} s using locked h where s.sid = h.sid returning s.sid
  )
  select (select count(*)::text from deleted), (select ${last} from locked)`;
    // Times travel as numbers: PostgreSQL does not read every time zone's name that it writes (`DateStyle`) as the same zone.
    const time = (value: string) => `to_timestamp(${value}::text::float8)`;
    // One that is still to come was created before somebody set the server's clock back. Not `now()`: that is the statement's
    // start, and it sees what others committed since.
    const wasThere = `(created_at <= ${time('$3')} or created_at > clock_timestamp())`;
    const chosen = `${inRange} and ${wasThere} and not sid = any($4::text::text[])`;
    const ofUser = 'user_id = $5::text';
    this.#texts = {
      page: `select ${columns} from ${table} where ${inRange} and ${isLive} order by sid limit ${PAGE}`,
      count: `select count(*)::text from ${table} where ${inRange} and ${isLive}`,
      ofUser: `select ${columns} from ${table} where user_id = $3::text and ${inRange} and ${isLive} order by updated_at desc, sid`,
      now: 'select extract(epoch from now())::text',
      anyInRange: `select (exists (select from ${table} where ${chosen}))::text`,
      anyOfUser: `select (exists (select from ${table} where ${ofUser} and ${chosen}))::text`,
      // Each statement goes on where the last one ended, not over index entries that it left dead.
      deleteRange: deletion(`${chosen} order by sid limit ${PAGE}`, 'max(sid)'),
      deleteOfUser: deletion(`${ofUser} and ${chosen}`, 'max(sid)'),
      deleteExpired: deletion(
        `expires_by >= ${time('$1')} and expires_by <= now() order by expires_by limit ${PAGE}`,
        'extract(epoch from max(expires_by))::text',
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
    return run(async (query) => Number(single(await query(this.#texts.count, range))));
  }

  /** The user's live rows, newest activity first. */
  ofUser(run: RunQuery, user: string, range: [string, string]): Promise<ListedRow[]> {
    return run(async (query) => (await query(this.#texts.ofUser, [...range, user])).map(listedRow));
  }

  /** The database's time, for `Selection.until`. */
  now(run: RunQuery): Promise<string> {
    return run(async (query) => single(await query(this.#texts.now, [])) as string);
  }

  /**
   * Deletes until none is left: those of a range in short statements, those of a user in one.
   *
   * @throws PgStoreError `TIMEOUT` where a row is locked for so long
   */
  async delete(run: RunQuery, { range: [from, to], until, except, user }: Selection): Promise<number> {
    const { deleteRange, deleteOfUser, anyInRange, anyOfUser } = this.#texts;
    const [deletion, anyLeft] = user === undefined ? [deleteRange, anyInRange] : [deleteOfUser, anyOfUser];
    const more = [to, until, arrayLiteral(except), ...(user === undefined ? [] : [user])];
    let total = 0;
    let progress = performance.now();
    for (let first = from, idle = 0; ; ) {
      const [[count, last] = []] = await run((query) => query(deletion, [first, ...more]));
      const rows = Number(count);
      total += rows;
      if (rows > 0) [progress, idle] = [performance.now(), 0];
      if (rows >= PAGE) {
        first = nextKey(last as string);
        continue;
      }
      first = from;
      const left = await run(async (query) => single(await query(anyLeft, [from, ...more])));
      if (left !== 'true') return total;
      if (performance.now() - progress >= this.#timeout) throw timeoutError();
      if (rows === 0) await sleep(Math.min(2 ** ++idle, 100));
    }
  }

  /** Deletes expired rows in short statements; locked rows are left to the next run. */
  async deleteExpired(run: RunQuery, isCancelled: () => boolean): Promise<number> {
    let total = 0;
    for (let from = '-Infinity'; ; ) {
      const [[rows, last] = []] = await run((query) => query(this.#texts.deleteExpired, [from]));
      total += Number(rows);
      if (Number(rows) < PAGE || isCancelled()) return total;
      from = String(last);
    }
  }
}

function single(rows: Row[]): unknown {
  return rows[0]?.[0];
}

function listedRow(row: Row): ListedRow {
  return { ...storedRow(row), createdAt: Number(row[7]), updatedAt: Number(row[8]) };
}
