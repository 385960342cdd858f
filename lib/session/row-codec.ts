/**
 * From a session to the columns of its row and back, as the options say: `encryptionKey`, `ttl`,
 * `user`.
 */

import type { SessionData } from 'express-session';
import { PgStoreError, UnreadableRowError } from '../errors.js';
import type { Emit } from '../events.js';
import type { Options } from '../options.js';
import { Encryption } from './encryption.js';
import { CLOCKS_AGREE_MS, type StoredRow } from './row.js';
import { decode, type EncodedSession, encode } from './session-codec.js';
import { handleOf } from './session-id.js';
import { userOf } from './user.js';

export type TimedSession = EncodedSession & { readonly expires: number };

export class RowCodec {
  readonly #options: Options;
  readonly #emit: Emit;
  readonly #encryption: Encryption | undefined;
  /** The same; `undefined` while rows are still written without encryption. */
  readonly #sealing: Encryption | undefined;

  constructor(options: Options, emit: Emit) {
    this.#options = options;
    this.#emit = emit;
    const [newest, ...older] = options.encryptionKeys;
    this.#encryption = newest === undefined ? undefined : new Encryption([newest, ...older]);
    this.#sealing = options.allowPlaintext === 'write' ? undefined : this.#encryption;
  }

  /** The session as it is now, whatever the app changes later, with an expiry. */
  encode(session: SessionData): TimedSession {
    const encoded = encode(session);
    const { expires = Date.now() + this.ttl(() => decode(encoded.data, encoded.cookie, 0)) } = encoded;
    return { ...encoded, expires };
  }

  /**
   * The same of what a touch stores: without data that only a function in option `ttl` would see.
   */
  encodeForTouch(session: SessionData): TimedSession {
    const seesData = typeof this.#options.ttl === 'function';
    return this.encode(seesData ? session : ({ cookie: session?.cookie } as SessionData));
  }

  /** A row's session and its data's JSON, or nothing, with an `unreadable` event. */
  read(row: StoredRow): { session: SessionData; data: string } | undefined {
    try {
      const data = this.open(row.key, row.data);
      return { session: decode(data, row.cookie, expiryOf(row)), data };
    } catch (error) {
      if (!(error instanceof UnreadableRowError)) throw error;
      this.#emit('unreadable', handleOf(row.key), error.message);
      return undefined;
    }
  }

  /** The `data` column for a session's JSON: the JSON, or its ciphertext as a JSON string. */
  seal(key: string, data: string): string {
    return this.#sealing ? `"${this.#sealing.seal(key, data)}"` : data;
  }

  /** The JSON in a `data` column. @throws UnreadableRowError */
  open(key: string, column: string): string {
    // The column's `not null` was dropped.
    if (column === '') throw new UnreadableRowError('the row has no data');
    if (!this.#encryption) return column;
    if (column.startsWith('"')) return this.#encryption.open(key, column.slice(1, -1));
    if (this.#options.allowPlaintext === false) throw new UnreadableRowError('the data is not encrypted');
    return column;
  }

  /**
   * Whether the row still has an older secret's key, or data that are not as `seal` would return
   * them now: encrypted with the newest key, or not encrypted.
   */
  needsRekey({ key, data }: StoredRow, [newest]: readonly string[]): boolean {
    return key !== newest || (this.#sealing ? !data.startsWith(this.#sealing.newestHead, 1) : data.startsWith('"'));
  }

  /** Milliseconds that a session lives whose cookie has no expiry. */
  ttl(session: () => SessionData): number {
    const { ttl } = this.#options;
    const seconds: unknown = typeof ttl === 'function' ? ttl(session()) : ttl;
    if (typeof seconds === 'number' && seconds >= 0 && seconds <= 1e11) return seconds * 1000;
    throw new PgStoreError('option `ttl` returned no number of seconds', 'INVALID_SESSION');
  }

  user({ data, cookie, expires }: TimedSession): string | null {
    const { user } = this.#options;
    // Without parsing, which is what costs here.
    if (!user && !data.includes('"passport"')) return null;
    return userOf(decode(data, cookie, expires), user);
  }
}

/**
 * When a row expires by the app's clock. Where that agrees with the database's, as it was set, to
 * the millisecond. The difference is the time that the answer took, too.
 */
function expiryOf({ expiresAt, expiresInMs }: StoredRow): number {
  const expires = Date.now() + expiresInMs;
  return Math.abs(expires - expiresAt) <= CLOCKS_AGREE_MS ? Math.round(expiresAt) : expires;
}
