/** Converts a session to the columns of its row and back, according to options `encryptionKey`, `ttl` and `user`. */

import type { SessionData } from 'express-session';
import { callApp, PgStoreError, UnreadableRowError } from '../errors.js';
import type { Emit } from '../events.js';
import type { Options } from '../options.js';
import { cookieFlaw } from './cookie.js';
import { Encryption } from './encryption.js';
import { isObject } from './merge.js';
import { property } from './property.js';
import type { ChangedRow, NewRow, StoredRow } from './row.js';
import { handleOf, type RowKeys } from './session-id.js';
import { userOf } from './user.js';

/** A session as two texts, in which form it is compared, merged and stored. */
export interface Content {
  /** JSON of the session without its cookie. */
  readonly data: string;
  /**
   * JSON of the cookie; `null` for a session without one. `expires` is replaced by `true`, because it changes with each
   * request, and has a column of its own.
   */
  readonly cookie: string | null;
}

/** The session in a row, and the texts from which it was parsed. */
export interface OpenedRow {
  readonly session: SessionData;
  readonly content: Content;
  /** The `expires` of the session's cookie, in milliseconds since 1970; `null` if it has none. */
  readonly cookieExpires: number | null;
}

/** When a session, and its cookie, expire. Both times are milliseconds since 1970 by the app's clock. */
type Expiry = Pick<NewRow, 'cookieExpires' | 'expires'>;

export interface EncodedSession extends Content, Expiry {}

/**
 * The latest expiry that is stored, in milliseconds since 1970 (the year 255479). PostgreSQL's timestamps end in the
 * year 294276, and JavaScript's dates in 275760.
 */
const LATEST_STORED_MS = 8e15;

/**
 * If the clocks of app and database agree within so many milliseconds, `get` returns a cookie's `expires` as the app
 * had set it.
 */
const CLOCKS_AGREE_MS = 5000;

export class Codec {
  readonly #options: Options;
  readonly #encryption: Encryption | undefined;
  /** Encrypts new rows; `undefined` while they are written without encryption (`allowPlaintext: 'write'`). */
  readonly #sealing: Encryption | undefined;

  constructor(options: Options) {
    this.#options = options;
    const [newest, ...older] = options.encryptionKeys;
    this.#encryption = newest === undefined ? undefined : new Encryption([newest, ...older]);
    this.#sealing = options.allowPlaintext === 'write' ? undefined : this.#encryption;
  }

  /**
   * Encodes the session as it is now, so that later changes of the app have no effect.
   *
   * @param lifetime milliseconds that the session lives, whatever its cookie says
   * @throws PgStoreError `INVALID_SESSION` if it is not a session; and the errors of JSON.stringify: a TypeError for a
   * cycle or a BigInt, a RangeError for nesting that is too deep
   */
  encode(session: unknown, lifetime?: number): EncodedSession {
    const { data, cookie, cookieExpires, expires } = encodeWithoutTtl(session);
    if (lifetime !== undefined) return { data, cookie, cookieExpires, expires: limit(Date.now() + lifetime) };
    const due = expires ?? Date.now() + this.ttl(() => decode({ data, cookie }, 0));
    return { data, cookie, cookieExpires, expires: due };
  }

  /** Encodes what a touch stores. The data are left out, unless a function in option `ttl` needs them. */
  encodeForTouch(session: SessionData | undefined): EncodedSession {
    const seesData = typeof this.#options.ttl === 'function';
    return this.encode(seesData ? session : { cookie: session?.cookie });
  }

  /**
   * Encodes a session that the previous store has kept. Its cookie's `expires` may be in the past, because the touch of
   * most stores does not change the stored JSON. So the session lives as long as if it had just been touched.
   */
  encodeForeign(session: unknown): EncodedSession {
    const encoded = encodeWithoutTtl(session);
    const now = Date.now();
    const originalMaxAge = property(JSON.parse(encoded.cookie ?? '{}'), 'originalMaxAge');
    const known = Math.max(encoded.expires ?? 0, now + (Number(originalMaxAge) || 0));
    const expires = known > now ? known : now + this.ttl(() => decode(encoded, now));
    return { ...encoded, expires: limit(expires) };
  }

  /** The session in a row. @throws UnreadableRowError */
  decode(row: StoredRow): OpenedRow {
    const content = { data: this.open(row), cookie: row.cookie };
    const expires = expiryOf(row);
    const session = decode(content, expires, cookieFlaw);
    return { session, content, cookieExpires: row.cookieExpires === null ? null : Math.trunc(expires) };
  }

  /** A session object with this content. @param expires of its cookie, if that has one. @throws UnreadableRowError */
  sessionOf(content: Content, expires: number): SessionData {
    return decode(content, expires);
  }

  /** The `data` column for a session's JSON: the JSON, or its ciphertext as a JSON string. */
  seal(key: string, data: string): string {
    return this.#sealing ? `"${this.#sealing.seal(key, data)}"` : data;
  }

  /** The JSON in a row's `data` column. @throws UnreadableRowError */
  open({ key, data }: Pick<StoredRow, 'key' | 'data'>): string {
    // The data can only be null if somebody has dropped the column's `not null`.
    if (data === '') throw new UnreadableRowError('the row has no data');
    if (!this.#encryption) return data;
    if (data.startsWith('"')) return this.#encryption.open(key, data.slice(1, -1));
    if (this.#options.allowPlaintext === false) throw new UnreadableRowError('the data is not encrypted');
    return data;
  }

  /**
   * Whether a save should rewrite the row even if the session has not changed: because it has the key of an older
   * `secret`, or its data are not encrypted as `seal` does it now.
   */
  needsRekey({ key, data }: Pick<StoredRow, 'key' | 'data'>, [newestKey]: RowKeys): boolean {
    return key !== newestKey || (this.#sealing ? !data.startsWith(this.#sealing.newestHead, 1) : data.startsWith('"'));
  }

  /** A row for the session. @throws whatever option `user` throws */
  newRow(key: string, { data, cookie, cookieExpires, expires }: EncodedSession, version: number): NewRow {
    const user = this.userOf({ data, cookie }, expires);
    return { key, data: this.seal(key, data), cookie, cookieExpires, user, version, expires };
  }

  /** The lifetime of a session whose cookie has no expiry, in milliseconds. @throws PgStoreError `INVALID_SESSION` */
  ttl(session: () => SessionData): number {
    const { ttl } = this.#options;
    const seconds: unknown = typeof ttl === 'function' ? callApp(() => ttl(session())) : ttl;
    if (typeof seconds === 'number' && seconds >= 0 && seconds <= 1e11) return seconds * 1000;
    throw new PgStoreError('option `ttl` did not return a number of seconds', 'INVALID_SESSION');
  }

  /** Whose session it is, as the table stores it; `null`: nobody's. @throws whatever option `user` throws */
  userOf(content: Content, expires: number = Date.now()): string | null {
    const { user } = this.#options;
    // Without option `user`, only a session that contains "passport" can have a user. All others need not be parsed.
    if (!user && !content.data.includes('"passport"')) return null;
    return userOf(decode(content, expires), user);
  }
}

/**
 * The change of a row that has this key and this version. The object is written out property by property, because V8
 * needs microseconds to spread an object that contains times.
 */
export function changeOf(
  { key, data, cookie, cookieExpires, user, version, expires }: NewRow,
  oldKey: string,
  oldVersion: number,
  movesExpiry: boolean,
): ChangedRow {
  return { key, data, cookie, cookieExpires, user, version, expires, oldKey, oldVersion, movesExpiry };
}

/** The session in a row; `undefined`, with an event `unreadable`, where it cannot be read. */
export function readRow(codec: Codec, row: StoredRow, emit: Emit): OpenedRow | undefined {
  try {
    return codec.decode(row);
  } catch (error) {
    if (!(error instanceof UnreadableRowError)) throw error;
    emit('unreadable', handleOf(row.key), error.message);
    return undefined;
  }
}

/** `expires` is `undefined` for a session whose cookie has no expiry. @throws as `encode` does */
function encodeWithoutTtl(session: unknown): Content & { cookieExpires: number | null; expires: number | undefined } {
  const value = toPlain(session);
  if (!isObject(value)) throw new PgStoreError('the session is not an object', 'INVALID_SESSION');
  const { cookie: _, ...data } = value;
  const text = callApp(() => JSON.stringify(data));
  const cookie = toPlain(property(value, 'cookie'));
  if (cookie === undefined || cookie === null) {
    return { data: text, cookie: null, cookieExpires: null, expires: undefined };
  }
  if (!isObject(cookie)) throw new PgStoreError("the session's cookie is not an object", 'INVALID_SESSION');
  const time = timeOf(property(cookie, 'expires'));
  if (time !== undefined) {
    return { data: text, cookie: JSON.stringify({ ...cookie, expires: true }), cookieExpires: time, expires: time };
  }
  const maxAge = property(cookie, 'maxAge');
  const hasMaxAge = typeof maxAge === 'number' && !Number.isNaN(maxAge);
  const due = hasMaxAge ? limit(Date.now() + maxAge) : undefined;
  // A cookie with another kind of `expires` could not be read back.
  const readable = property(cookie, 'expires') ? { ...cookie, expires: null } : cookie;
  return { data: text, cookie: JSON.stringify(readable), cookieExpires: null, expires: due };
}

/**
 * A cookie's `expires` in milliseconds since 1970. It may be a Date, a text or a number; anything else is no expiry.
 */
function timeOf(expires: unknown): number | undefined {
  const isDate = expires instanceof Date || typeof expires === 'string';
  // A number may be too large for a Date.
  const time = isDate ? new Date(expires).getTime() : expires;
  return typeof time !== 'number' || Number.isNaN(time) ? undefined : limit(time);
}

/**
 * Parses a session.
 *
 * @param expires the cookie's expiry, in milliseconds since 1970, if it has one
 * @param flawOf says why a cookie from the table cannot be used, or returns `undefined`
 * @throws UnreadableRowError
 */
function decode({ data, cookie }: Content, expires: number, flawOf: typeof cookieFlaw = () => undefined): SessionData {
  const session = parse(data, 'data');
  if (!isObject(session)) throw new UnreadableRowError('the data is not an object');
  // The cookie has a column of its own. A key `cookie` in the data was written by hand.
  if (Object.hasOwn(session, 'cookie')) delete session.cookie;
  if (cookie === null) return session as unknown as SessionData;
  const parsed = parse(cookie, 'cookie');
  if (!isObject(parsed)) throw new UnreadableRowError('the cookie is not an object');
  const flaw = flawOf(parsed);
  if (flaw) throw new UnreadableRowError(flaw);
  if (property(parsed, 'expires') === true) parsed.expires = new Date(limit(expires)).toISOString();
  return Object.assign(session, { cookie: parsed }) as unknown as SessionData;
}

/**
 * When the row's cookie expires, in milliseconds since 1970 by the app's clock. That is the time which the app had set.
 * If the clocks disagree, the answer took long, or somebody has changed `expires_at`, it is the present time plus the
 * time that the row has left.
 */
function expiryOf({ cookieExpires, expiresInMs }: StoredRow): number {
  const due = Date.now() + expiresInMs;
  return cookieExpires !== null && Math.abs(cookieExpires - due) <= CLOCKS_AGREE_MS ? cookieExpires : due;
}

/** The value that JSON.stringify serializes: that of `toJSON`, if the app has given the session or its cookie one. */
function toPlain(value: unknown): unknown {
  const object = value as { toJSON?: () => unknown } | null | undefined;
  return typeof object?.toJSON === 'function' ? callApp(() => object.toJSON?.()) : value;
}

function parse(text: string, column: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message quotes the text.
    throw new UnreadableRowError(`the ${column} is not JSON`);
  }
}

/** The nearest time that can be stored. */
function limit(time: number): number {
  return Math.min(Math.max(time, 0), LATEST_STORED_MS);
}
