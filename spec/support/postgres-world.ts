/** The world of specs that run on PostgreSQL. */

import type { Sql } from 'postgres';
import type { PgStoreOptions } from '../../lib/index.js';
import { losingAnswers } from './losing-answers.js';
import { closeStores, freshTable, openStore, sqlClient } from './postgres.js';
import { openCountedStore } from './race-statements.js';
import type { Changes, LosingStore, OpenStore, SeenRow, StatementKind, World, WorldTable } from './worlds.js';

class PostgresWorldTable implements WorldTable {
  readonly #sql: Sql;
  readonly #name = freshTable();

  constructor(sql: Sql) {
    this.#sql = sql;
  }

  async open(options: PgStoreOptions = {}): Promise<OpenStore> {
    const { store, sent } = await openCountedStore({ ...options, table: this.#name });
    const counted = async (work: (soFar: () => StatementKind[]) => Promise<unknown>) => {
      const statements = await sent((soFar) => work(() => soFar.map(({ kind }) => kind)));
      return statements.map(({ kind }) => kind);
    };
    return { store, sent: counted };
  }

  async openLosing(options: PgStoreOptions = {}): Promise<LosingStore> {
    const client = losingAnswers(this.#sql);
    const store = await openStore({ ...options, table: this.#name, sql: client.sql });
    await store.ready();
    return { store, sent: () => Promise.reject(new Error('its statements are not counted')), lose: client.lose };
  }

  async rows(): Promise<SeenRow[]> {
    const sql = this.#sql;
    const rows = await sql`select sid, data::text, user_id, version,
      extract(epoch from expires_at - now())::float8 * 1000 as expires_in from ${sql(this.#name)} order by sid`;
    return rows.map(({ sid, data, user_id: user, version, expires_in: expiresInMs }) => {
      return { key: sid, data, user, version, expiresInMs };
    });
  }

  async change({ data, version, expiresInMs, createdAgoMs }: Changes): Promise<void> {
    const sql = this.#sql;
    const table = sql(this.#name);
    if (data !== undefined) await sql`update ${table} set data = ${data}::text::json`;
    if (version !== undefined) await sql`update ${table} set version = ${version}`;
    if (createdAgoMs !== undefined) {
      await sql`update ${table} set created_at = now() - ${createdAgoMs}::float8 * interval '1 ms'`;
    }
    if (expiresInMs !== undefined) {
      const time = sql`now() + ${expiresInMs}::float8 * interval '1 ms'`;
      await sql`update ${table} set expires_at = ${time}, delete_after = ${time}`;
    }
  }

  async deleteAll(how: 'delete' | 'truncate' = 'delete'): Promise<void> {
    const sql = this.#sql;
    if (how === 'truncate') await sql`truncate ${sql(this.#name)}`;
    else await sql`delete from ${sql(this.#name)}`;
  }

  async whileLocked<T>(sid: string, work: () => Promise<T>, lock: 'update' | 'key share' = 'update'): Promise<T> {
    return this.#sql.begin(async (holding) => {
      await holding.unsafe(`select from ${this.#name} where sid = $1 for ${lock}`, [sid]);
      return work();
    }) as Promise<T>;
  }
}

export const postgresWorld: World = {
  name: 'on PostgreSQL',
  createTable: async () => new PostgresWorldTable(await sqlClient()),
  closeStores,
};
