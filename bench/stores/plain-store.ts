/** A plain store on Postgres.js for comparison, which sends one statement for each call. */

import session, { type SessionData } from 'express-session';
import postgres, { type Sql } from 'postgres';

type Callback = (error: unknown, session?: SessionData | null) => void;

/** The benchmark's baseline: a store without batches, versions, merges and skipped touches. */
export class PlainStore extends session.Store {
  readonly #sql: Sql;

  constructor(uri: string) {
    super();
    this.#sql = postgres(uri, { max: 10, onnotice: () => {} });
  }

  async createTable(): Promise<void> {
    await this.#sql`create table if not exists plain_sessions (
      sid text collate "C" primary key, data json not null, expires_at timestamptz not null)`;
    await this.#sql`create index if not exists plain_sessions_expires_at_idx on plain_sessions (expires_at)`;
  }

  override get(sid: string, callback: Callback): void {
    this.#sql`select data from plain_sessions where sid = ${sid} and expires_at > now()`.then(
      ([row]) => callback(null, row ? (row.data as SessionData) : null),
      callback,
    );
  }

  override set(sid: string, data: SessionData, callback: Callback = () => {}): void {
    const json = this.#sql.json(data as never);
    this.#sql`insert into plain_sessions (sid, data, expires_at) values (${sid}, ${json}, ${expiryOf(data)})
      on conflict (sid) do update set data = excluded.data, expires_at = excluded.expires_at`.then(
      () => callback(null),
      callback,
    );
  }

  override touch(sid: string, data: SessionData, callback: Callback = () => {}): void {
    this.#sql`update plain_sessions set expires_at = ${expiryOf(data)} where sid = ${sid}`.then(
      () => callback(null),
      callback,
    );
  }

  override destroy(sid: string, callback: Callback = () => {}): void {
    this.#sql`delete from plain_sessions where sid = ${sid}`.then(() => callback(null), callback);
  }

  close(): Promise<void> {
    return this.#sql.end();
  }
}

function expiryOf({ cookie }: SessionData): Date {
  return cookie.expires ? new Date(cookie.expires) : new Date(Date.now() + 86_400_000);
}
