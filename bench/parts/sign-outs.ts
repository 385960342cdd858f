/** Measures many sign-ins at the same time, each of which signs its user out everywhere else. */

import { randomUUID } from 'node:crypto';
import diagnostics from 'node:diagnostics_channel';
import type { SessionData } from 'express-session';
import postgres from 'postgres';
import type { PgStore } from '../../lib/index.js';
import { median } from '../figures/measure.js';
import { sessionOf } from '../stores/data.js';
import { openPgStore, type Servers } from '../stores/peers.js';

/** What a number of concurrent sign-ins cost: medians over the rounds. */
export interface SignOuts {
  readonly signIns: number;
  readonly ours: Cost;
  readonly plainSql: Cost;
  /** Sign-ins that failed, in all rounds. */
  readonly failed: number;
}

export interface Cost {
  readonly statements: number;
  readonly milliseconds: number;
}

/** How many sessions each user has before the measurement. */
const OTHER_SESSIONS = 2;

/**
 * Measures sign-ins, each of which saves a new session and destroys the user's others: `set`, and then
 * `destroySessionsOf(user, { except })`. Plain SQL does the same with an `insert` and a `delete`, on a table of its own
 * with the same data and the same index on the user.
 *
 * @param counts the numbers of concurrent sign-ins
 */
export async function signOuts(
  servers: Servers,
  counts: readonly number[],
  rounds: number,
  onStep: (part: string) => void,
): Promise<SignOuts[]> {
  const ours = await storeUnderTest(servers);
  const plainSql = await plainSqlUnderTest(servers);
  const results: SignOuts[] = [];
  for (const signIns of counts) {
    const costs: Record<'ours' | 'plainSql', Cost[]> = { ours: [], plainSql: [] };
    let failed = 0;
    // The first round warms up the compiler and the caches, and is not counted.
    for (let round = 0; round <= rounds; round++) {
      onStep(`${signIns} sign-ins at once`);
      const users = Array.from({ length: signIns }, () => randomUUID());
      for (const [name, subject] of Object.entries({ ours, plainSql })) {
        for (let n = 0; n < OTHER_SESSIONS; n++)
          await Promise.all(users.map((user) => subject.save(randomUUID(), user)));
        const before = subject.statements();
        const started = performance.now();
        const answers = await Promise.allSettled(users.map((user) => signIn(subject, user)));
        const milliseconds = performance.now() - started;
        failed += answers.filter(({ status }) => status === 'rejected').length;
        if (round > 0) {
          costs[name as 'ours' | 'plainSql'].push({ statements: subject.statements() - before, milliseconds });
        }
      }
    }
    results.push({ signIns, ours: medianOf(costs.ours), plainSql: medianOf(costs.plainSql), failed });
  }
  await ours.close();
  await plainSql.close();
  return results;
}

interface Subject {
  save(sid: string, user: string): Promise<unknown>;
  destroyOthers(sid: string, user: string): Promise<unknown>;
  /** How many statements were sent so far. */
  statements(): number;
  close(): Promise<unknown>;
}

async function signIn(subject: Subject, user: string): Promise<void> {
  const sid = randomUUID();
  await subject.save(sid, user);
  await subject.destroyOthers(sid, user);
}

async function storeUnderTest(servers: Servers): Promise<Subject> {
  let sent = 0;
  const count = () => {
    sent++;
  };
  diagnostics.subscribe('express-pg-store:statement', count);
  const peer = await openPgStore(servers, { table: 'sign_outs' });
  const store = peer.store as PgStore;
  await store.ready();
  return {
    save: (sid, user) => store.set(sid, dataOf(user)),
    destroyOthers: (sid, user) => store.destroySessionsOf(user, { except: sid }),
    statements: () => sent,
    close: async () => {
      diagnostics.unsubscribe('express-pg-store:statement', count);
      await peer.close();
    },
  };
}

async function plainSqlUnderTest(servers: Servers): Promise<Subject> {
  const sql = postgres(servers.postgres, { max: 10, onnotice: () => {} });
  await sql`create table plain_sign_outs (
    sid text collate "C" primary key, data json not null, user_id text, expires_at timestamptz not null)`;
  await sql`create index on plain_sign_outs (user_id)`;
  let sent = 0;
  return {
    save: (sid, user) => {
      sent++;
      const data = sql.json(dataOf(user) as never);
      return sql`insert into plain_sign_outs values (${sid}, ${data}, ${user}, now() + interval '1 day')`;
    },
    destroyOthers: (sid, user) => {
      sent++;
      return sql`delete from plain_sign_outs where user_id = ${user} and sid <> ${sid}`;
    },
    statements: () => sent,
    close: () => sql.end(),
  };
}

/** A session that belongs to a user, in the form that Passport uses. */
function dataOf(user: string): SessionData {
  return Object.assign(sessionOf(0), { passport: { user } });
}

function medianOf(costs: Cost[]): Cost {
  return {
    statements: median(costs.map(({ statements }) => statements)),
    milliseconds: median(costs.map(({ milliseconds }) => milliseconds)),
  };
}
