/** Changes stored sessions outside of a request: atomically, by compare-and-set. */

import { isDeepStrictEqual } from 'node:util';
import type { SessionData } from 'express-session';
import { backOffFromLockedRow } from '../calls/backoff.js';
import type { InOrder } from '../calls/order.js';
import { AppError, ArgumentError, PgStoreError } from '../errors.js';
import type { Emit } from '../events.js';
import { type Codec, changeOf, type EncodedSession, type OpenedRow, readRow } from './codec.js';
import { isLive, randomVersion } from './concurrency.js';
import { cookieFlaw, settledCookie } from './cookie.js';
import { isObject } from './merge.js';
import type { PreviousSessions } from './previous.js';
import type { Change } from './public-types.js';
import type { ChangedRow, RowStatements, Statements, StoredRow, UserRow } from './row.js';
import type { RowKeys, SessionIds } from './session-id.js';

/** The call of `PreviousSessions` that takes a session over. */
type PreviousSource = Pick<PreviousSessions, 'takeOver'>;

/** The session that is to be changed. */
interface Target {
  /** The method that changes it, as errors name it. */
  readonly method: string;
  /** The keys under which its row may be; the row gets the first of them. */
  readonly keys: RowKeys;
  readonly shard: number | undefined;
  /** The user to whom the session must belong by its data; `undefined`: any user. */
  readonly user: string | undefined;
}

/** The result of a change. `session` is the session as it is stored. */
type Outcome =
  | { readonly kind: 'changed' | 'unchanged'; readonly session: SessionData }
  | { readonly kind: 'gone' | 'unreadable' | 'of another user' };

/** The result of the app's function. */
interface Applied {
  /** The session as it will be stored. */
  readonly session: SessionData;
  /** The session in the form that is to be written; `undefined` if nothing has changed. */
  readonly encoded: EncodedSession | undefined;
  /** Whether the expiry is written, because the function has changed the cookie. */
  readonly movesExpiry: boolean;
}

/** How many of a user's sessions are changed at the same time. */
const PAGE = 100;

export class SessionUpdates {
  readonly #statements: Statements;
  readonly #ids: SessionIds;
  readonly #codec: Codec;
  readonly #previous: PreviousSource | undefined;
  readonly #deadline: () => number;
  readonly #emit: Emit;

  /** @param deadline returns the deadline for the change of a session that starts now */
  constructor(
    statements: Statements,
    ids: SessionIds,
    codec: Codec,
    previous: PreviousSource | undefined,
    deadline: () => number,
    emit: Emit,
  ) {
    this.#statements = statements;
    this.#ids = ids;
    this.#codec = codec;
    this.#previous = previous;
    this.#deadline = deadline;
    this.#emit = emit;
  }

  /**
   * Changes one session. The caller runs calls on the same session ID one after the other.
   *
   * @returns the session as it is stored; `null` if there is none
   * @throws PgStoreError `UNREADABLE`
   */
  async one(sid: string, change: Change, deadline: number): Promise<SessionData | null> {
    const target = {
      method: 'update',
      keys: this.#ids.rowKeysFor(sid),
      shard: this.#ids.shardOf(sid),
      user: undefined,
    };
    let outcome = await this.#change(target, change, deadline);
    if (outcome.kind === 'gone' && this.#previous) {
      await this.#previous.takeOver(sid, deadline);
      outcome = await this.#change(target, change, deadline);
    }
    if (outcome.kind === 'unreadable') {
      throw new PgStoreError('the row cannot be read, so the session was not changed', 'UNREADABLE');
    }
    return 'session' in outcome ? outcome.session : null;
  }

  /**
   * Changes each unexpired session of a user.
   *
   * @param inOrder runs a task in the order of the calls on a session ID
   * @returns how many sessions were changed
   */
  async ofUser(user: string, change: Change, inOrder: InOrder<Outcome>): Promise<number> {
    const found = await this.#unexpiredRowsOf(user);
    const first = await this.#changeAll(found, change, inOrder);
    // A session that has no row under its key any more may have been moved to the key of a newer secret by another
    // request. With option `hashIds` that key cannot be computed, so the user's rows are looked for once more.
    const known = new Set(found.map(({ key }) => key));
    const gone = new Set(first.gone.map(({ createdAt }) => createdAt));
    const isMoved = ({ key, createdAt }: UserRow) => gone.has(createdAt) && !known.has(key);
    const moved = gone.size > 0 ? (await this.#unexpiredRowsOf(user)).filter(isMoved) : [];
    const second = await this.#changeAll(moved, change, inOrder);
    return first.changed + second.changed;
  }

  async #unexpiredRowsOf(user: string): Promise<UserRow[]> {
    return (await this.#statements.findOfUser(user, this.#deadline())).filter(({ isExpired }) => !isExpired);
  }

  /**
   * Changes the sessions of these rows, page after page. If a change fails, the other changes of its page are
   * completed.
   */
  async #changeAll(rows: readonly UserRow[], change: Change, inOrder: InOrder<Outcome>) {
    const gone: UserRow[] = [];
    let changed = 0;
    for (let start = 0; start < rows.length; start += PAGE) {
      const page = rows.slice(start, start + PAGE);
      const results = await Promise.allSettled(page.map((row) => this.#changeRow(row, change, inOrder)));
      for (const [n, result] of results.entries()) {
        if (result.status === 'rejected') throw result.reason;
        if (result.value.kind === 'changed') changed++;
        if (result.value.kind === 'gone') gone.push(page[n] as UserRow);
      }
    }
    return { changed, gone };
  }

  async #changeRow({ key, shard, user }: UserRow, change: Change, inOrder: InOrder<Outcome>): Promise<Outcome> {
    const sid = this.#ids.sessionIdFrom(key);
    // A row that is not signed with one of the secrets is not a session.
    if (sid === undefined && this.#ids.isReversible) return { kind: 'unreadable' };
    const keys: RowKeys = sid === undefined ? [key] : this.#ids.rowKeysFor(sid);
    const target = { method: 'updateSessionsOf', keys, shard, user };
    // With option `hashIds` the session ID is unknown. Then only changes of the same row are put in order here, and the
    // row's version keeps a change from overwriting what another call has saved.
    return inOrder(sid ?? key, () => this.#change(target, change, this.#deadline()));
  }

  /** Reads the row and changes its session. It does so again if the row was changed before the change was written. */
  async #change({ method, keys, shard, user }: Target, change: Change, deadline: number): Promise<Outcome> {
    const statements = this.#statements.onShard(shard);
    let row = await statements.read(keys, deadline);
    for (;;) {
      if (!isLive(row)) return { kind: 'gone' };
      const opened = readRow(this.#codec, row, this.#emit);
      if (!opened) return { kind: 'unreadable' };
      const expires = Date.now() + row.expiresInMs;
      if (user !== undefined && this.#codec.userOf(opened.content, expires) !== user)
        return { kind: 'of another user' };
      const { session, encoded, movesExpiry } = this.#apply(method, change, row, opened);
      if (!encoded) return { kind: 'unchanged', session };
      const newRow = this.#codec.newRow(keys[0], encoded, randomVersion());
      const changed = changeOf(newRow, row.key, row.version, movesExpiry);
      const written = await writeChanged(statements, keys, changed, deadline);
      if (written.isDone) return { kind: 'changed', session };
      row = written.row;
    }
  }

  /** Calls the app's function, and compares the result with the stored session. */
  #apply(method: string, change: Change, row: StoredRow, { session, content }: OpenedRow): Applied {
    const { cookie: _, ...dataBefore } = JSON.parse(content.data);
    const cookieBefore: unknown = session.cookie && copyOf(session.cookie);
    const result = copyOf(resultOf(method, change, session));
    if (!isObject(result)) throw new ArgumentError(method, '`change` made the session something that is not an object');
    const { cookie: cookieAfter, ...data } = result;
    // If the result has no cookie, the session keeps its own, because express-session cannot load a session without
    // one.
    const cookie = cookieAfter ?? cookieBefore;
    if (!isDeepStrictEqual(cookie, cookieBefore)) {
      const encoded = this.#codec.encode({ ...data, cookie: settledCookie(cookie, cookieBefore) });
      // A row with such a cookie could not be read any more.
      const flaw = cookieFlaw(JSON.parse(encoded.cookie ?? '{}'));
      if (flaw) throw new ArgumentError(method, `\`change\` made a cookie that cannot be used: ${flaw}`);
      const expires = Math.min(encoded.expires, Date.now() + row.endsInMs);
      return { session: this.#codec.sessionOf(encoded, expires), encoded, movesExpiry: true };
    }
    const stored = { ...data, ...(cookie !== undefined && { cookie }) } as unknown as SessionData;
    if (isDeepStrictEqual(data, dataBefore)) return { session: stored, encoded: undefined, movesExpiry: false };
    const { cookieExpires, expiresInMs } = row;
    const expiry = { cookieExpires, expires: Date.now() + expiresInMs };
    const encoded = { data: JSON.stringify(data), cookie: row.cookie, ...expiry };
    return { session: stored, encoded, movesExpiry: false };
  }
}

/**
 * Writes a changed row, if it still has the version on which the change is based. While another transaction has locked
 * the row, the statement is repeated.
 *
 * @returns whether the row was written, and if not, the row as it is now
 */
async function writeChanged(
  statements: RowStatements,
  keys: RowKeys,
  changed: ChangedRow,
  deadline: number,
): Promise<{ isDone: true } | { isDone: false; row: StoredRow | undefined }> {
  for (let tries = 1; ; tries++) {
    if (await statements.update(changed, deadline)) return { isDone: true };
    const row = await statements.read(keys, deadline);
    // An earlier attempt at this statement was written, and its answer was lost.
    if (row?.version === changed.version) return { isDone: true };
    const isLocked = isLive(row) && row.key === changed.oldKey && row.version === changed.oldVersion;
    if (!isLocked) return { isDone: false, row };
    await backOffFromLockedRow(tries, deadline);
  }
}

/**
 * Calls the app's function.
 *
 * @returns the session that it returned, or the one that it changed
 * @throws AppError with what the function threw
 */
function resultOf(method: string, change: Change, session: SessionData): unknown {
  let result: unknown;
  try {
    result = change(session);
  } catch (error) {
    throw new AppError(error);
  }
  if (result === undefined) return session;
  if (typeof (result as PromiseLike<unknown> | null)?.then === 'function') {
    // Nobody awaits this promise. If it is rejected, that must not end the process.
    Promise.resolve(result).catch(() => {});
    throw new ArgumentError(
      method,
      '`change` returned a promise; it must be synchronous, since it may be called again',
    );
  }
  if (isObject(result)) return result;
  throw new ArgumentError(method, `\`change\` returned ${nameOf(result)}; expected a session, or nothing`);
}

/** Describes the kind of a value. */
function nameOf(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'an array' : `a ${typeof value}`;
}

/** A copy of a value by way of JSON. */
function copyOf(value: unknown): unknown {
  const text = JSON.stringify(value);
  return text === undefined ? undefined : JSON.parse(text);
}
