/** Encrypts the sessions' data with AES-256-GCM, and binds them to their rows. */

import { createCipheriv, createDecipheriv, hkdfSync, randomFillSync } from 'node:crypto';
import { UnreadableRowError } from '../errors.js';

/**
 * An envelope is the base64url form of: version (1 byte), key ID (4 bytes), nonce (12), authentication tag (16),
 * ciphertext.
 */
const VERSION = 1;
const KEY_ID_END = 5;
const NONCE_END = 17;
const TAG_END = 33;

interface Key {
  /** Says in an envelope with which key it was sealed. */
  readonly id: Buffer;
  readonly secret: Buffer;
}

/**
 * AES-256-GCM (NIST SP 800-38D) with a new random nonce for each write. The row key is its additional data, so an
 * envelope that was changed, cut or moved to another row cannot be opened.
 */
export class Encryption {
  /** The first characters of every envelope that was sealed with the newest key. */
  readonly newestHead: string;
  readonly #keys: readonly [Key, ...Key[]];
  /** Random bytes for 256 nonces, so that one call of the generator serves many nonces. */
  readonly #random = Buffer.alloc(12 * 256);
  #used = this.#random.length;

  /** @param keys newest first. The first one seals, and all of them open. */
  constructor(keys: readonly [string, ...string[]]) {
    this.#keys = keys.map(deriveKey) as [Key, ...Key[]];
    // Version and key ID are 40 bits. Six characters of base64url are the first 36 of them; the seventh character also
    // has bits of the nonce.
    this.newestHead = Buffer.of(VERSION, ...this.#keys[0].id)
      .toString('base64url')
      .slice(0, 6);
  }

  seal(rowKey: string, text: string): string {
    const key = this.#keys[0];
    const nonce = this.#nonce();
    const cipher = createCipheriv('aes-256-gcm', key.secret, nonce);
    cipher.setAAD(Buffer.from(rowKey));
    const body = cipher.update(text, 'utf8');
    cipher.final();
    return Buffer.concat([Buffer.of(VERSION), key.id, nonce, cipher.getAuthTag(), body]).toString('base64url');
  }

  /** @throws UnreadableRowError */
  open(rowKey: string, envelope: string): string {
    const bytes = Buffer.from(envelope, 'base64url');
    // Buffer's decoder ignores characters that are not base64url, so the text is compared with its encoding.
    if (bytes.length < TAG_END || bytes[0] !== VERSION || bytes.toString('base64url') !== envelope)
      throw new UnreadableRowError('not an envelope of this version');
    const id = bytes.subarray(1, KEY_ID_END);
    const key = this.#keys.find((candidate) => candidate.id.equals(id));
    if (!key) throw new UnreadableRowError('encrypted with a key that is not in `encryptionKey`');
    const decipher = createDecipheriv('aes-256-gcm', key.secret, bytes.subarray(KEY_ID_END, NONCE_END), {
      authTagLength: 16,
    });
    decipher.setAAD(Buffer.from(rowKey));
    decipher.setAuthTag(bytes.subarray(NONCE_END, TAG_END));
    try {
      // `update` returns all of the text, and `final` throws if the authentication tag is wrong.
      const text = decipher.update(bytes.subarray(TAG_END));
      decipher.final();
      return text.toString();
    } catch {
      throw new UnreadableRowError('the data was changed, or belongs to another row');
    }
  }

  #nonce(): Buffer {
    if (this.#used === this.#random.length) {
      randomFillSync(this.#random);
      this.#used = 0;
    }
    const start = this.#used;
    this.#used += 12;
    return this.#random.subarray(start, this.#used);
  }
}

/**
 * Derives a key of 32 bytes, and an ID that reveals nothing about it, with HKDF-SHA-256 (RFC 5869) without salt.
 */
function deriveKey(keyMaterial: string): Key {
  const derive = (info: string, bytes: number) => Buffer.from(hkdfSync('sha256', keyMaterial, '', info, bytes));
  return { id: derive('express-pg-store key id', 4), secret: derive('express-pg-store data', 32) };
}
