/** Checks that the table holds what was acknowledged, and nothing that was destroyed. */

import type { Sql } from 'postgres';
import { Destructions } from './destructions.js';
import { addTo, countOf } from './lists.js';
import type { Beginning, Report, Update } from './messages.js';
import { WatchLog } from './watch-log.js';

/** What was found to be wrong, each described. */
export interface Wrong {
  /** Acknowledged saves, sessions and updates that are not in the table. */
  readonly lost: string[];
  /** Sessions that were there after a call had destroyed them. */
  readonly revived: string[];
  /** Sessions that a call did not find though nobody had begun to destroy them. */
  readonly missed: string[];
  /** Updates that count twice without a reason, or whose sum is wrong. */
  readonly miscounted: string[];
  readonly falseEnds: string[];
  readonly untoldEnds: string[];
  readonly repeatedEnds: string[];
}

export interface Verdict {
  readonly wrong: Wrong;
  /** Acknowledged writes: sessions, saves and updates. */
  readonly acknowledged: number;
  readonly updates: number;
  /** Updates that count twice because an answer was lost; docs/concurrency.md says why nobody can decide this. */
  readonly countedTwice: number;
  readonly destroyed: number;
}

/** What the row of a session holds. */
type Data = Readonly<Record<string, unknown>> & {
  readonly count?: number;
  readonly updates?: Readonly<Record<string, number>>;
};

/** All that the app processes were told. */
export class Log {
  calls = 0;
  failed = 0;
  dropped = 0;
  longest = 0;
  stale = 0;
  requests = 0;
  readonly codes: Record<string, number> = {};
  readonly destructions = new Destructions();
  readonly watches = new WatchLog(this.destructions);
  /** The sessions whose creation was acknowledged. */
  readonly #created = new Set<string>();
  /** By session: the keys that acknowledged saves have added. */
  readonly #saved = new Map<string, string[]>();
  readonly #updated = new Map<string, Update[]>();
  readonly #found = new Map<string, number>();
  readonly #missed = new Map<string, number>();

  began(beginning: Beginning): void {
    this.destructions.began(beginning);
  }

  add(process: string, report: Report): void {
    this.calls += report.calls;
    this.failed += report.failed;
    this.dropped += report.dropped;
    this.stale += report.stale;
    this.requests += report.requests;
    this.longest = Math.max(this.longest, report.longest);
    for (const [code, n] of Object.entries(report.codes)) this.codes[code] = (this.codes[code] ?? 0) + n;
    for (const { sid } of report.created) this.#created.add(sid);
    for (const [sid, key] of report.saved) addTo(this.#saved, sid, key);
    for (const update of report.updated) addTo(this.#updated, update.sid, update);
    for (const ending of report.ended) this.destructions.ended(ending);
    for (const [sid, at] of Object.entries(report.found)) this.#found.set(sid, Math.max(at, this.#found.get(sid) ?? 0));
    for (const [sid, at] of Object.entries(report.missed))
      this.#missed.set(sid, Math.min(at, this.#missed.get(sid) ?? Number.POSITIVE_INFINITY));
    this.watches.add(process, report);
  }

  processDied(process: string, at: number): void {
    this.destructions.processDied(process, at);
    this.watches.processDied(process);
  }

  /**
   * Lost: an acknowledged save or update that is not in its row, or an acknowledged session without a row; unless some
   * call may have destroyed it. Then the row may be gone; if it is there, it must be whole. Revived: there, or found by
   * a `get` that began after its destruction was acknowledged. A call that failed may have taken effect or not: nothing
   * follows from it.
   *
   * @param untoldEnds watches that should have been told by now
   */
  async check(sql: Sql, table: string, untoldEnds: string[]): Promise<Verdict> {
    const lost: string[] = [];
    const miscounted: string[] = [];
    let countedTwice = 0;
    const there = new Set<string>();
    for await (const rows of sql`select sid, data::text as data from ${sql(table)}`.cursor(500)) {
      for (const row of rows) {
        const sid: string = row.sid;
        const data: Data = JSON.parse(row.data);
        there.add(sid);
        for (const key of this.#saved.get(sid) ?? []) if (data[key] !== key) lost.push(`${sid}: save ${key}`);
        const updates = checkUpdates(data, this.#updated.get(sid) ?? []);
        lost.push(...updates.lost.map((id) => `${sid}: update ${id}`));
        miscounted.push(...updates.miscounted.map((what) => `${sid}: ${what}`));
        countedTwice += updates.countedTwice;
      }
    }
    const written = new Set([...this.#created, ...this.#saved.keys(), ...this.#updated.keys()]);
    for (const sid of written) {
      if (!there.has(sid) && !this.destructions.mayBeGone(sid, Number.POSITIVE_INFINITY)) lost.push(sid);
    }
    const destroyed = this.destructions.sidsOfDestroyed();
    const isThereAfter = (sid: string, moment: number) => there.has(sid) || (this.#found.get(sid) ?? 0) > moment;
    const revived = destroyed.filter((sid) => isThereAfter(sid, this.destructions.goneSince(sid)));
    const isCreated = (sid: string) => this.#created.has(sid);
    const missed = [...this.#missed].filter(([sid, at]) => isCreated(sid) && !this.destructions.mayBeGone(sid, at));
    const updates = countOf(this.#updated);
    return {
      wrong: {
        lost,
        revived: [...revived, ...this.destructions.exceededLimits(isThereAfter)],
        missed: missed.map(([sid]) => sid),
        miscounted,
        falseEnds: [...this.watches.falseEnds(isCreated), ...this.watches.expired],
        untoldEnds,
        repeatedEnds: this.watches.toldAgain,
      },
      acknowledged: this.#created.size + countOf(this.#saved) + updates,
      updates,
      countedTwice,
      destroyed: destroyed.length,
    };
  }
}

/**
 * Each update counts itself in the session, and adds to the number of them all: so the row shows how often each one was
 * done.
 *
 * @param acknowledged the updates of this session that were acknowledged; others may be there or not
 */
export function checkUpdates({ count = 0, updates = {} }: Data, acknowledged: readonly Update[]) {
  const lost = acknowledged.filter(({ id }) => updates[id] === undefined).map(({ id }) => id);
  const miscounted: string[] = [];
  const sum = Object.values(updates).reduce((total, times) => total + times, 0);
  if (sum !== count) miscounted.push(`${count} in all, but ${sum} one by one`);
  const isUndisturbed = new Set(acknowledged.filter(({ mayCountTwice }) => !mayCountTwice).map(({ id }) => id));
  const repeated = Object.entries(updates).filter(([, times]) => times > 1);
  for (const [id, times] of repeated) if (isUndisturbed.has(id)) miscounted.push(`update ${id} counts ${times} times`);
  return { lost, miscounted, countedTwice: repeated.length };
}
