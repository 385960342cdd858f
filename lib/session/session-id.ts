/** Converts session IDs to the keys of their rows and back. Has no side effects. */

import { createHash, createHmac } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { sign, unsign } from 'cookie-signature';
import type { Options } from '../options.js';
import type { KeyRange } from './row.js';

type SessionIdOptions = Pick<Options, 'prefix' | 'secrets' | 'hashIds' | 'shards'>;

/** The keys under which a session's row may be: first the one that is written, then those of older secrets. */
export type RowKeys = readonly [string, ...string[]];

/** The largest length of a session ID or a user in bytes. An entry of a PostgreSQL index has at most 2,704 bytes. */
const LONGEST_TEXT = 2000;

/** Maps session IDs to row keys and shards, according to options `prefix`, `secret`, `hashIds` and `shards`. */
export class SessionIds {
  readonly #options: SessionIdOptions;
  /** The signing key of each secret, newest first. */
  readonly #signingKeys: readonly Buffer[];

  constructor(options: SessionIdOptions) {
    this.#options = options;
    this.#signingKeys = options.secrets.map((secret) => signingKey(secret, options.prefix));
  }

  /** Whether `sessionIdFrom` can find the session ID of a row key, which is impossible with option `hashIds`. */
  get isReversible(): boolean {
    return !this.#options.hashIds;
  }

  /** The range of all row keys that begin with the prefix. */
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
   * The shard of a session: the CRC-32 (as in zlib) of prefix and session ID in UTF-8, modulo the number of shards;
   * `undefined` without option `shards`. It does not depend on the row key, so a session stays in its shard when its
   * key changes after a rotation of `secret`, and one statement can change the key.
   */
  shardOf(sid: string): number | undefined {
    const { prefix, shards } = this.#options;
    return shards && crc32(prefix + sid) % shards;
  }

  /** The session ID of a row; `undefined` if the row is not signed with one of the secrets, or IDs are hashed. */
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
   * The other keys that the session of this row may have after a rotation of `secret`. With option `hashIds` there are
   * none, because they cannot be computed from a hash.
   */
  otherKeysOf(key: string): readonly string[] {
    const sid = this.#signingKeys.length > 1 ? this.sessionIdFrom(key) : undefined;
    return sid === undefined ? [] : this.rowKeysFor(sid).filter((one) => one !== key);
  }

  /**
   * Whether a handle names the session of this row. A handle is computed from a row key, so after a rotation of
   * `secret` a session has several handles.
   */
  hasHandle(key: string, handle: string): boolean {
    return [key, ...this.otherKeysOf(key)].some((one) => handleOf(one) === handle);
  }
}

/** Says why a session ID cannot be stored; `undefined` if it can. */
export function validateSessionId(sid: unknown): string | undefined {
  const flaw = typeof sid === 'string' ? textFlaw(sid) : typeof sid;
  return flaw && `expected a string as session ID, got ${flaw}`;
}

/** Says why a column of type `text` with an index cannot contain a text; `undefined` if it can. */
export function textFlaw(text: string): string | undefined {
  if (text.includes('\0')) return 'one with a NUL character';
  if (!text.isWellFormed()) return 'one with half a surrogate pair';
  return Buffer.byteLength(text) > LONGEST_TEXT ? `one of more than ${LONGEST_TEXT} bytes` : undefined;
}

/**
 * The handle of a session: an opaque name for logs and pages, which cannot be used as a session ID. It changes only
 * when the row key changes.
 */
export function handleOf(key: string): string {
  return createHash('sha256').update('express-pg-store handle\0').update(key).digest('base64url').slice(0, 24);
}

/**
 * The key with which row keys are signed or hashed. It is derived from the secret and the prefix. If row keys were
 * signed with the secret itself, and the app gives express-session the same secret, a row key would be a valid cookie,
 * because express-session signs its cookies with HMAC-SHA-256, too.
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
