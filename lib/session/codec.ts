/** From a session to the columns of its row and back, as options `encryptionKey`, `ttl` and `user` say. */

import type { SessionData } from 'express-session';
import { PgStoreError, UnreadableRowError } from '../errors.js';
import type { Emit } from '../events.js';
import type { Options } from '../options.js';
import { cookieFlaw } from './cookie.js';
import { Encryption } from './encryption.js';
import { isObject } from './merge.js';
import { property } from './property.js';
import type { ChangedRow, NewRow, StoredRow } from './row.js';
import { handleOf, type RowKeys } from './session-id.js';
import { userOf } from './user.js';

/** A session as texts: what is compared, merged and stored. */
export interface Content {
  /** JSON of the session without its cookie. */
  readonly data: string;
  /**
   * JSON of the cookie, its `expires` replaced by `true`: that changes with each request, and has a column of its own.
   * `null` for a session without a cookie.
   */
  readonly cookie: string | null;
}

/** What is in a row: the session, and the texts that it was parsed from. */
export interface OpenedRow {
  readonly session: SessionData;
  readonly content: Content;
}

/** When a session expires. Both are milliseconds since 1970 by the app's clock. */
export type Expiry = Pick<NewRow, 'cookieExpires' | 'expires'>;

export interface EncodedSession extends Content, Expiry {}

/** PostgreSQL's timestamps end in the year 294276, JavaScript's dates in 275760. */
const LATEST_MS = 8e15;

/**
 * A cookie's `expires` is given back as it was set where the clocks of app and database agree within so many
 * milliseconds.
 */
const CLOCKS_AGREE_MS = 5000;

export class Codec {
  readonly #options: Options;
  readonly #encryption: Encryption | undefined;
  /** What encrypts rows; `undefined` while they are still written without encryption (option `allowPlaintext`). */
  readonly #sealing: Encryption | undefined;

  constructor(options: Options) {
    this.#options = options;
    const [newest, ...older] = options.encryptionKeys;
    this.#encryption = newest === undefined ? undefined : new Encryption([newest, ...older]);
    this.#sealing = options.allowPlaintext === 'write' ? undefined : this.#encryption;
  }

  /**
   * The session as it is now: what the app changes later is not part of it.
   *
   * @param lifetime in milliseconds, instead of what the cookie says
   * @throws PgStoreError `INVALID_SESSION` for what is not a session, and what JSON.stringify throws: TypeError for
   * cycles and BigInt, RangeError for too deep nesting
   */
  encode(session: unknown, lifetime?: number): EncodedSession {
    const { data, cookie, cookieExpires, expires } = encodeWithoutTtl(session);
    if (lifetime !== undefined) return { data, cookie, cookieExpires, expires: limit(Date.now() + lifetime) };
    const due = expires ?? Date.now() + this.ttl(() => decode({ data, cookie }, 0));
    return { data, cookie, cookieExpires, expires: due };
  }

  /** What a touch stores: without the data, unless a function in option `ttl` looks at them. */
  encodeForTouch(session: SessionData | undefined): EncodedSession {
    const seesData = typeof this.#options.ttl === 'function';
    return this.encode(seesData ? session : { cookie: session?.cookie });
  }

  /**
   * A session that another store has kept. Its cookie's `expires` may be past, since most stores' touch leaves the JSON
   * as it is; so it lives as long as if it had just been touched.
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
    const session = decode(content, expiryOf(row), cookieFlaw);
    return { session, content };
  }

  /** Content as a session object. @throws UnreadableRowError */
  sessionOf(content: Content, expires: number): SessionData {
    return decode(content, expires);
  }

  /** The `data` column for a session's JSON: the JSON, or its ciphertext as a JSON string. */
  seal(key: string, data: string): string {
    return this.#sealing ? `"${this.#sealing.seal(key, data)}"` : data;
  }

  /** The JSON in a row's `data` column. @throws UnreadableRowError */
  open({ key, data }: Pick<StoredRow, 'key' | 'data'>): string {
    // Somebody has dropped the column's `not null`.
    if (data === '') throw new UnreadableRowError('the row has no data');
    if (!this.#encryption) return data;
    if (data.startsWith('"')) return this.#encryption.open(key, data.slice(1, -1));
    if (this.#options.allowPlaintext === false) throw new UnreadableRowError('the data is not encrypted');
    return data;
  }

  /**
   * Whether the row still has the key of an older secret, or data that are not as `seal` would return them now:
   * encrypted with the newest key, or not encrypted.
   */
  needsRekey({ key, data }: Pick<StoredRow, 'key' | 'data'>, [newestKey]: RowKeys): boolean {
    return key !== newestKey || (this.#sealing ? !data.startsWith(this.#sealing.newestHead, 1) : data.startsWith('"'));
  }

  /** The row that holds a session. @throws whatever option `user` throws */
  newRow(key: string, { data, cookie, cookieExpires, expires }: EncodedSession, version: number): NewRow {
    const user = this.userOf({ data, cookie }, expires);
    return { key, data: this.seal(key, data), cookie, cookieExpires, user, version, expires };
  }

  /** How many milliseconds a session lives whose cookie has no expiry. */
  ttl(session: () => SessionData): number {
    const { ttl } = this.#options;
    const seconds: unknown = typeof ttl === 'function' ? ttl(session()) : ttl;
    if (typeof seconds === 'number' && seconds >= 0 && seconds <= 1e11) return seconds * 1000;
    throw new PgStoreError('option `ttl` returned no number of seconds', 'INVALID_SESSION');
  }

  /** Whose session it is, as the table stores it; `null`: nobody's. @throws whatever option `user` throws */
  userOf(content: Content, expires: number = Date.now()): string | null {
    const { user } = this.#options;
    // Nothing is parsed where there cannot be a user of Passport's: parsing is the larger part of the work.
    if (!user && !content.data.includes('"passport"')) return null;
    return userOf(decode(content, expires), user);
  }
}

/**
 * The change of a row that is under this key and has this version. Property by property: V8 takes microseconds for a
 * spread of an object that holds times.
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

function encodeWithoutTtl(session: unknown): Content & { cookieExpires: number | null; expires: number | undefined } {
  const value = toPlain(session);
  if (!isObject(value)) throw new PgStoreError('the session is not an object', 'INVALID_SESSION');
  const { cookie: _, ...data } = value;
  const text = JSON.stringify(data);
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
  return { data: text, cookie: JSON.stringify(cookie), cookieExpires: null, expires: due };
}

/** A cookie's `expires`: a Date, the text of one, or milliseconds since 1970. */
function timeOf(expires: unknown): number | undefined {
  const isTime = expires instanceof Date || typeof expires === 'string' || typeof expires === 'number';
  const time = isTime ? new Date(expires).getTime() : Number.NaN;
  return Number.isNaN(time) ? undefined : limit(time);
}

/**
 * @param expires of the cookie, where it has one
 * @param flawOf says why a cookie that was read from the table is not fit to be used, if it is not
 */
function decode({ data, cookie }: Content, expires: number, flawOf: typeof cookieFlaw = () => undefined): SessionData {
  const session = parse(data, 'data');
  if (!isObject(session)) throw new UnreadableRowError('the data is not an object');
  // It has a column of its own: in the data it can only have been written by hand.
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
 * When the row's cookie expires, by the app's clock: as the app had set it, unless the clocks disagree, the answer took
 * long, or somebody has changed `expires_at`. Then what is left counts.
 */
function expiryOf({ cookieExpires, expiresInMs }: StoredRow): number {
  const due = Date.now() + expiresInMs;
  return cookieExpires !== null && Math.abs(cookieExpires - due) <= CLOCKS_AGREE_MS ? cookieExpires : due;
}

/** What JSON.stringify would see: the app may have given the session or its cookie a `toJSON`. */
function toPlain(value: unknown): unknown {
  const object = value as { toJSON?: () => unknown } | null | undefined;
  return typeof object?.toJSON === 'function' ? object.toJSON() : value;
}

function parse(text: string, column: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message quotes the text.
    throw new UnreadableRowError(`the ${column} is not JSON`);
  }
}

function limit(time: number): number {
  return Math.min(Math.max(time, 0), LATEST_MS);
}
