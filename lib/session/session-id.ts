/** From a session ID to the keys of its row and back. Pure. */

import { createHash, createHmac } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { sign, unsign } from 'cookie-signature';
import type { Options } from '../options.js';

type SessionIdOptions = Pick<Options, 'prefix' | 'secrets' | 'hashIds'> & Partial<Pick<Options, 'shards'>>;

export type SessionIds = ReturnType<typeof sessionIds>;

/** Maps session IDs to row keys and back. */
export function sessionIds({ prefix, secrets, hashIds, shards }: SessionIdOptions) {
  const signingKeys = secrets.map((secret) => signingKey(secret, prefix));
  return {
    /** Whether `sessionIdFrom` can tell a session ID from its row key. */
    reversible: !hashIds,

    /**
     * The first key, and one after all keys that start with the prefix, in the order of `collate
     * "C"`.
     */
    range: [prefix, prefix + '\u{10FFFF}'.repeat(LONGEST_TEXT / 4 + 1)] as [string, string],

    /**
     * The keys under which the session's row may be: the one to write first, then those of older
     * secrets.
     */
    rowKeysFor(sid: string): [string, ...string[]] {
      if (secrets.length === 0) return [prefix + (hashIds ? sha256(sid) : sid)];
      const ids = hashIds ? secrets.map((secret) => hmac(secret, sid)) : signingKeys.map((key) => sign(sid, key));
      return ids.map((id) => prefix + id) as [string, ...string[]];
    },

    /**
     * The shard of a session: CRC-32 (that of zlib and PNG) of prefix and session ID in UTF-8,
     * modulo the number of shards. Not of the row key: a session stays in its shard when its key
     * changes with `secret`, so one statement can move it.
     */
    shardOf(sid: string): number | undefined {
      return shards && crc32(prefix + sid) % shards;
    },

    /**
     * The session ID of a row, or `undefined` where the row is not signed with one of the secrets,
     * or IDs are hashed.
     */
    sessionIdFrom(key: string): string | undefined {
      if (hashIds || !key.startsWith(prefix)) return undefined;
      const rest = key.slice(prefix.length);
      if (secrets.length === 0) return rest;
      for (const key of signingKeys) {
        const sid = unsign(rest, key);
        if (sid !== false) return sid;
      }
      return undefined;
    },
  };
}

/** What keeps a session ID from being stored, if anything. */
export function validateSessionId(sid: unknown): string | undefined {
  const flaw = typeof sid === 'string' ? textFlaw(sid) : typeof sid;
  return flaw && `expected a string as session ID, got ${flaw}`;
}

/** Bytes of a session ID or a user: an entry of an index holds 2,704. */
const LONGEST_TEXT = 2000;

/** Why neither a column of type text nor its index holds a text, if they do not. */
export function textFlaw(text: string): string | undefined {
  if (text.includes('\0')) return 'one with a NUL character';
  if (!text.isWellFormed()) return 'one with half a surrogate pair';
  return Buffer.byteLength(text) > LONGEST_TEXT ? `one of more than ${LONGEST_TEXT} bytes` : undefined;
}

/** The least text after a key, in the order of `collate "C"`: PostgreSQL's text has no NUL. */
export function nextKey(key: string): string {
  return `${key}\u0001`;
}

/**
 * An opaque name of a session for logs and pages: stable while its row key is, and of no use as a
 * session ID.
 */
export function handleOf(key: string): string {
  return createHash('sha256').update('express-pg-store handle\0').update(key).digest('base64url').slice(0, 24);
}

/**
 * express-session signs its cookies with cookie-signature too, and apps may well give both the same
 * secret: a row key signed with that would be a cookie ready for use. So rows are signed with a key
 * of their own, one for each prefix.
 */
function signingKey(secret: string, prefix: string): Buffer {
  return createHmac('sha256', secret).update(`express-pg-store row key\0${prefix}`).digest();
}

function sha256(sid: string): string {
  return createHash('sha256').update(sid).digest('base64url');
}

function hmac(secret: string, sid: string): string {
  return createHmac('sha256', secret).update(sid).digest('base64url');
}
