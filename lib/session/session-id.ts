/** From a session ID to the keys of its row and back. Pure. */

import { createHash, createHmac } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { sign, unsign } from 'cookie-signature';
import type { Options } from '../options.js';
import type { KeyRange } from './row.js';

type SessionIdOptions = Pick<Options, 'prefix' | 'secrets' | 'hashIds'> & Partial<Pick<Options, 'shards'>>;

/** The keys under which a session's row may be: the one to write first, then those of older secrets. */
export type RowKeys = readonly [string, ...string[]];

/** Bytes of a session ID or of a user: an entry of an index holds 2,704. */
const LONGEST_TEXT = 2000;

/** Maps session IDs to row keys and back, as options `prefix`, `secret`, `hashIds` and `shards` say. */
export class SessionIds {
  readonly #options: SessionIdOptions;
  /** One for each secret, newest first. */
  readonly #signingKeys: readonly Buffer[];

  constructor(options: SessionIdOptions) {
    this.#options = options;
    this.#signingKeys = options.secrets.map((secret) => signingKey(secret, options.prefix));
  }

  /** Whether `sessionIdFrom` can tell a session ID from its row key. */
  get isReversible(): boolean {
    return !this.#options.hashIds;
  }

  /** All keys that start with the prefix. */
  get range(): KeyRange {
    const { prefix } = this.#options;
    return [prefix, prefix + '\u{10FFFF}'.repeat(LONGEST_TEXT / 4 + 1)];
  }

  rowKeysFor(sid: string): RowKeys {
    const { prefix, hashIds } = this.#options;
    const [newest, ...older] = this.#signingKeys;
    if (!newest) return [prefix + (hashIds ? sha256(sid) : sid)];
    const keyWith = (key: Buffer) => prefix + (hashIds ? hmac(key, sid) : sign(sid, key));
    return [keyWith(newest), ...older.map(keyWith)];
  }

  /**
   * The shard of a session: the CRC-32 (that of zlib and PNG) of prefix and session ID in UTF-8, modulo the number of
   * shards. It is not computed from the row key, so a session stays in its shard when its key changes with `secret`,
   * and one statement can move it.
   */
  shardOf(sid: string): number | undefined {
    const { prefix, shards } = this.#options;
    return shards && crc32(prefix + sid) % shards;
  }

  /** The session ID of a row; `undefined` where the row is not signed with one of the secrets, or IDs are hashed. */
  sessionIdFrom(key: string): string | undefined {
    const { prefix, hashIds } = this.#options;
    if (hashIds || !key.startsWith(prefix)) return undefined;
    const signed = key.slice(prefix.length);
    if (this.#signingKeys.length === 0) return signed;
    for (const signingKey of this.#signingKeys) {
      const sid = unsign(signed, signingKey);
      if (sid !== false) return sid;
    }
    return undefined;
  }

  /**
   * The other keys that the session of this row may have, after a rotation of `secret`. With `hashIds` nobody can tell
   * them.
   */
  otherKeysOf(key: string): readonly string[] {
    const sid = this.#signingKeys.length > 1 ? this.sessionIdFrom(key) : undefined;
    return sid === undefined ? [] : this.rowKeysFor(sid).filter((one) => one !== key);
  }

  /**
   * Whether a handle names the session of this row. A handle is made from a row key, and after a rotation of `secret`
   * the session has another one.
   */
  hasHandle(key: string, handle: string): boolean {
    return [key, ...this.otherKeysOf(key)].some((one) => handleOf(one) === handle);
  }
}

/** What keeps a session ID from being stored, if anything. */
export function validateSessionId(sid: unknown): string | undefined {
  const flaw = typeof sid === 'string' ? textFlaw(sid) : typeof sid;
  return flaw && `expected a string as session ID, got ${flaw}`;
}

/** Why neither a column of type text nor its index can hold this text, if they cannot. */
export function textFlaw(text: string): string | undefined {
  if (text.includes('\0')) return 'one with a NUL character';
  if (!text.isWellFormed()) return 'one with half a surrogate pair';
  return Buffer.byteLength(text) > LONGEST_TEXT ? `one of more than ${LONGEST_TEXT} bytes` : undefined;
}

/**
 * An opaque name of a session for logs and pages. It is of no use as a session ID, and stays the same as long as the
 * row key does.
 */
export function handleOf(key: string): string {
  return createHash('sha256').update('express-pg-store handle\0').update(key).digest('base64url').slice(0, 24);
}

/**
 * express-session signs its cookies with HMAC-SHA-256 too, and apps may well give both the same secret: a row key made
 * with the secret itself would be the signature of a cookie. So row keys are signed, or hashed, with a key of their
 * own, one for each prefix.
 */
function signingKey(secret: string, prefix: string): Buffer {
  return createHmac('sha256', secret).update(`express-pg-store row key\0${prefix}`).digest();
}

function sha256(sid: string): string {
  return createHash('sha256').update(sid).digest('base64url');
}

function hmac(key: Buffer, sid: string): string {
  return createHmac('sha256', key).update(sid).digest('base64url');
}
