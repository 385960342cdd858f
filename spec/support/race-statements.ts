/** Counts the statements that a store sends, in the client. */

import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { freshTable, openStore } from './postgres.js';

export interface CountedStore {
  readonly store: PgStore;
  readonly table: string;
  /** The statements that are sent while `work` runs, which can look at those sent so far. */
  sent(work: (soFar: readonly Statement[]) => Promise<unknown>): Promise<Statement[]>;
}

export interface Statement {
  readonly kind: 'select' | 'insert' | 'update' | 'delete';
  readonly text: string;
  readonly values: unknown[];
}

/** Opens a store and waits until it is ready. The statements on its table are counted. */
export async function openCountedStore(options: PgStoreOptions = {}): Promise<CountedStore> {
  const table = options.table ?? freshTable();
  let log: Statement[] = [];
  const debug = (_connection: number, text: string, values: unknown[]) => {
    if (text.includes(`"${table}"`)) log.push({ kind: kindOf(text), text, values });
  };
  const store = await openStore({ ...options, table, postgres: { ...options.postgres, debug } });
  await store.ready();
  return {
    store,
    table,
    sent: async (work) => {
      log = [];
      await work(log);
      return log;
    },
  };
}

function kindOf(text: string): Statement['kind'] {
  for (const kind of ['insert', 'delete', 'update'] as const) {
    if (new RegExp(`\\b${kind} (into|from|"|public)`).test(text.replaceAll('for update', ''))) return kind;
  }
  return 'select';
}
