/**
 * Option `previous`: sessions of the store that the app used before are taken over when they are
 * first requested.
 */

import type { SessionData } from 'express-session';
import { deadlines } from '../calls/deadline.js';
import { withRetries } from '../calls/retry.js';
import { PgStoreError, toPgStoreError } from '../errors.js';
import type { Emit } from '../events.js';
import type { Options, PreviousStore } from '../options.js';
import type { ConcurrentSessions } from './concurrency.js';
import type { ListedRow } from './row.js';
import { handleOf, type SessionIds, validateSessionId } from './session-id.js';

type Answer = (error?: any, result?: unknown) => void;

/** Sessions that `takeOver` moves at a time. */
const PAGE = 256;

export type PreviousSessions = ReturnType<typeof previousSessions>;

/**
 * The calls that concern both stores. No crash between two writes loses a session or brings one
 * back: a session is kept here before it is destroyed there, and destroyed there before it is
 * destroyed here. Here it leaves a tombstone, since a process of the old app that still has the
 * session may save it there once more.
 */
export function previousSessions(
  store: PreviousStore,
  sessions: ConcurrentSessions,
  ids: SessionIds,
  { retry, timeout }: Options,
  emit: Emit,
) {
  /** Calls the previous store, again after transient errors. */
  function ask(call: string, deadline: number, start: (answer: Answer) => unknown): Promise<unknown> {
    const name = `previous.${call}`;
    const onRetry = (attempt: number, error: unknown) => emit('retry', name, attempt, toPgStoreError(name, error));
    return withRetries(retry, deadline, onRetry, () => answered(deadline, start)).catch((error) => {
      throw toPgStoreError(name, error);
    });
  }

  const deadlineFromNow = () => performance.now() + timeout;
  const destroyThere = (sid: string, deadline: number) =>
    ask('destroy', deadline, (answer) => store.destroy(sid, answer));

  const underWay = new Map<string, Promise<boolean>>();

  /** Requests of one session that come in parallel take it over once. */
  function takeOver(sid: string, deadline: number): Promise<boolean> {
    const running = underWay.get(sid) ?? takeOverOnce(sid, deadline).finally(() => underWay.delete(sid));
    underWay.set(sid, running);
    return running;
  }

  async function takeOverOnce(sid: string, deadline: number): Promise<boolean> {
    if (validateSessionId(sid)) return false;
    const session = await ask('get', deadline, (answer) => store.get(sid, answer));
    // What is no session, such as one without a cookie, is none here either.
    const cookie: unknown = (session as SessionData | null | undefined)?.cookie;
    if (typeof cookie !== 'object' || cookie === null) return false;
    const isTaken = await sessions.adopt(sid, session, deadline);
    if (isTaken) emit('takenOver', handleOf(ids.rowKeysFor(sid)[0]));
    await destroyThere(sid, deadline);
    return isTaken;
  }

  return {
    async load(sid: string, deadline: number): Promise<SessionData | null> {
      const session = await sessions.load(sid, deadline);
      if (session !== null) return session;
      await takeOver(sid, deadline);
      // Also where there was nothing to take over: another request may have been faster.
      return sessions.load(sid, deadline);
    },

    async destroy(sid: string, deadline: number): Promise<void> {
      await destroyThere(sid, deadline);
      await sessions.leaveTombstone(ids.rowKeysFor(sid), ids.shardOf(sid), deadline);
    },

    /**
     * The session of a row. With `hashIds` nobody knows its ID, and only the tombstone keeps it
     * from coming back.
     */
    async destroyRow({ key, shard }: ListedRow): Promise<void> {
      const sid = ids.sessionIdFrom(key);
      if (sid !== undefined) return this.destroy(sid, deadlineFromNow());
      await sessions.leaveTombstone([key], shard, deadlineFromNow());
    },

    async clear(): Promise<void> {
      if (!store.clear) throw unsupported('`clear`');
      await ask('clear', deadlineFromNow(), (answer) => store.clear?.(answer));
    },

    /**
     * @param inOrder runs a task in the order of the calls on a session ID
     * @returns how many sessions were taken over
     */
    async takeOver(
      inOrder: (sid: string, task: () => Promise<boolean>) => Promise<boolean>,
      onProgress?: (done: number, total: number) => void,
    ): Promise<number> {
      if (!store.all) throw unsupported('`all`, which lists its sessions');
      if (onProgress && typeof onProgress !== 'function') throw new TypeError('`onProgress`: expected a function');
      const sids = idsOf(await ask('all', deadlineFromNow(), (answer) => store.all?.(answer)));
      let count = 0;
      for (let done = 0; done < sids.length; onProgress?.(done, sids.length)) {
        const page = sids.slice(done, done + PAGE);
        const taken = await Promise.all(page.map((sid) => inOrder(sid, () => takeOver(sid, deadlineFromNow()))));
        count += taken.filter(Boolean).length;
        done += page.length;
      }
      return count;
    },
  };
}

/**
 * What the store calls back with. A promise that it returns as well counts only where it is
 * rejected. Stores that keep files report a missing session as `ENOENT`; where a socket is missing,
 * it is an error.
 */
function answered(deadline: number, start: (answer: Answer) => unknown): Promise<unknown> {
  const answer = new Promise((resolve, reject) => {
    const fail = (error: any) =>
      error.code === 'ENOENT' && error.syscall !== 'connect' ? resolve(null) : reject(error);
    Promise.resolve(start((error, result) => (error ? fail(error) : resolve(result)))).catch(reject);
  });
  return deadlines.race(deadline, answer);
}

/**
 * `all` answers with an object by session ID (MemoryStore) or an array of sessions with their `id`
 * (connect-redis).
 */
function idsOf(sessions: unknown): string[] {
  const ids = Array.isArray(sessions) ? sessions.map((session) => session?.id) : Object.keys(sessions ?? {});
  if (ids.every((id) => typeof id === 'string')) return ids;
  throw unsupported('session IDs in the answer of `all`');
}

function unsupported(what: string): PgStoreError {
  return new PgStoreError(`the store in option \`previous\` has no ${what}`, 'UNSUPPORTED');
}
