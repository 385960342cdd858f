/** Checks that the table holds what was acknowledged, and nothing that was destroyed. */

import type { Sql } from 'postgres';
import type { Report } from './chaos-app.js';

export interface Verdict {
  saved: number;
  destroyed: number;
  lost: string[];
  revived: string[];
  stale: number;
}

/** All that the app processes were told. */
export class Log {
  calls = 0;
  failed = 0;
  dropped = 0;
  longest = 0;
  readonly codes: Record<string, number> = {};
  #stale = 0;
  readonly #saved = new Map<string, string[]>();
  readonly #destroying = new Set<string>();
  readonly #destroyed = new Map<string, number>();
  readonly #found = new Map<string, number>();

  add(report: Report): void {
    this.calls += report.calls;
    this.failed += report.failed;
    this.dropped += report.dropped;
    this.#stale += report.stale;
    this.longest = Math.max(this.longest, report.longest);
    for (const [code, n] of Object.entries(report.codes)) this.codes[code] = (this.codes[code] ?? 0) + n;
    for (const sid of report.created) if (!this.#saved.has(sid)) this.#saved.set(sid, []);
    for (const [sid, key] of report.saved) {
      const keys = this.#saved.get(sid);
      if (keys) keys.push(key);
      else this.#saved.set(sid, [key]);
    }
    // Several may have destroyed it: it is gone from the first acknowledgement on.
    for (const [sid, at] of report.destroyed)
      this.#destroyed.set(sid, Math.min(at, this.#destroyed.get(sid) ?? Number.POSITIVE_INFINITY));
    for (const [sid, at] of Object.entries(report.found)) this.#found.set(sid, Math.max(at, this.#found.get(sid) ?? 0));
  }

  destroying(sid: string): void {
    this.#destroying.add(sid);
  }

  /**
   * Lost: an acknowledged save whose key is not in its row, or an acknowledged session without a
   * row; unless somebody began to destroy it. Then the row may be gone; if it is there, it must be
   * whole. Revived: there, or found by a `get` that began after its destroy was acknowledged. A
   * call that failed may have taken effect or not: nothing follows from it.
   */
  async check(sql: Sql, table: string): Promise<Verdict> {
    const lost: string[] = [];
    const revived: string[] = [];
    const there = new Set<string>();
    for await (const rows of sql`select sid, data::text as data from ${sql(table)}`.cursor(500)) {
      for (const { sid, data } of rows) {
        there.add(sid);
        const session = JSON.parse(data);
        for (const key of this.#saved.get(sid) ?? []) if (session[key] !== key) lost.push(`${sid} ${key}`);
        if (this.#destroyed.has(sid)) revived.push(sid);
      }
    }
    for (const [sid, keys] of this.#saved) {
      if (!there.has(sid) && !this.#destroying.has(sid)) lost.push(sid, ...keys.map((key) => `${sid} ${key}`));
    }
    for (const [sid, at] of this.#destroyed) {
      if ((this.#found.get(sid) ?? 0) > at && !revived.includes(sid)) revived.push(sid);
    }
    const saved = [...this.#saved.values()].reduce((sum, keys) => sum + keys.length + 1, 0);
    return { saved, destroyed: this.#destroyed.size, lost, revived, stale: this.#stale };
  }
}
