/** Helps specs of watched sessions to wait for callbacks and for checks. */

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PgStore, SessionEnd, StatementMessage } from '../../lib/index.js';
import { SHARDS } from './postgres.js';

/** One watch of a session. */
export class Watched {
  /** The reasons of all callbacks. There must be at most one. */
  readonly reasons: SessionEnd[] = [];
  readonly stop: () => void;
  readonly ended: Promise<SessionEnd>;

  constructor(store: PgStore, sid: string) {
    let end: (reason: SessionEnd) => void = () => {};
    this.ended = new Promise((resolve) => {
      end = resolve;
    });
    this.stop = store.watch(sid, (reason) => {
      this.reasons.push(reason);
      end(reason);
    });
  }
}

/** Waits until a condition is met, at most until Mocha's timeout. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(5);
}

/** Counts the statements with which the stores on a table check watched sessions. */
export class CheckCount {
  readonly #table: string;
  checks = 0;

  constructor(table: string) {
    this.#table = `public.${table}`;
    subscribe('express-pg-store:statement', this.#count);
  }

  /** Resolves once each shard has been checked after this moment. */
  async more(): Promise<void> {
    // A check may be under way already, so each shard is waited for twice.
    const enough = this.checks + 2 * (SHARDS ?? 1);
    await until(() => this.checks >= enough);
  }

  close(): void {
    unsubscribe('express-pg-store:statement', this.#count);
  }

  readonly #count = (message: unknown) => {
    const { table, kind } = message as StatementMessage;
    if (kind === 'watch' && table === this.#table) this.checks++;
  };
}
