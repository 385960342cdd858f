/** The world of specs that run on tables in memory. */

import { PgStore, type PgStoreOptions } from '../../lib/index.js';
import { parseOptions } from '../../lib/options.js';
import { SessionIds } from '../../lib/session/session-id.js';
import { MemoryStatements, type RandomOrder } from './memory-statements.js';
import { MemoryTable } from './memory-table.js';
import type { Changes, LosingStore, OpenStore, SeenRow, StatementKind, World, WorldTable } from './worlds.js';

const open = new Set<PgStore>();

export interface MemoryWorldOptions {
  readonly order?: RandomOrder;
  /** The probability that a write finds its row locked by somebody else's statement. */
  readonly locked?: number;
}

/** A store on a table in memory, and its statements. */
export function openMemoryStore(
  options: PgStoreOptions = {},
  table = new MemoryTable(),
  how: MemoryWorldOptions = {},
): { store: PgStore; statements: MemoryStatements } {
  const parsed = parseOptions({ autodelete: false, ...options });
  const { range } = new SessionIds(parsed);
  const statements = new MemoryStatements(table, {
    ...how,
    range,
    maxLifetime: parsed.maxLifetime,
    retry: parsed.retry,
  });
  const store = new PgStore({ autodelete: false, ...options }, statements);
  open.add(store);
  return { store, statements };
}

class MemoryWorldTable implements WorldTable {
  readonly #table = new MemoryTable();
  readonly #how: MemoryWorldOptions;

  constructor(how: MemoryWorldOptions) {
    this.#how = how;
  }

  async open(options?: PgStoreOptions): Promise<OpenStore> {
    return this.openLosing(options);
  }

  async openLosing(options?: PgStoreOptions): Promise<LosingStore> {
    const { store, statements } = openMemoryStore(options, this.#table, this.#how);
    const sent = async (work: (soFar: () => readonly StatementKind[]) => Promise<unknown>) => {
      statements.sent = [];
      await work(() => statements.sent);
      return statements.sent;
    };
    return { store, sent, lose: statements.lose };
  }

  async rows(): Promise<SeenRow[]> {
    const rows = [...this.#table.rows.values()].sort((one, other) => (one.key < other.key ? -1 : 1));
    return rows.map(({ key, data, user, version, expiresAt }) => {
      return { key, data, user, version, expiresInMs: expiresAt - this.#table.now() };
    });
  }

  async change({ data, version, expiresInMs, createdAgoMs }: Changes): Promise<void> {
    const now = this.#table.now();
    for (const row of this.#table.rows.values()) {
      if (data !== undefined) row.data = data;
      if (version !== undefined) row.version = version;
      if (expiresInMs !== undefined) row.expiresAt = row.deleteAfter = now + expiresInMs;
      if (createdAgoMs !== undefined) row.createdAt = BigInt(Math.floor((now - createdAgoMs) * 1000));
    }
  }

  async deleteAll(): Promise<void> {
    this.#table.rows.clear();
  }

  whileLocked<T>(sid: string, work: () => Promise<T>, lock: 'update' | 'key share' = 'update'): Promise<T> {
    return this.#table.whileLocked(sid, lock, work);
  }
}

export function memoryWorld(how: MemoryWorldOptions = {}): World {
  return {
    name: 'in memory',
    createTable: async () => new MemoryWorldTable(how),
    closeStores: async () => {
      const stores = [...open];
      open.clear();
      await Promise.all(stores.map((store) => store.close()));
    },
  };
}
