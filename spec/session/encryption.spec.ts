/** An envelope opens exactly where it was sealed, as it was sealed, and in later versions too. */

import assert from 'node:assert/strict';
import { randomBytes, webcrypto } from 'node:crypto';
import fc from 'fast-check';
import { UnreadableRowError } from '../../lib/errors.js';
import { Encryption } from '../../lib/session/encryption.js';

const { subtle } = webcrypto;
const KEY = 'correct horse battery staple';

/**
 * Envelopes made by other implementations (WebCrypto, and Python's `cryptography` for the first):
 * never to be changed.
 */
const VECTORS = [
  {
    password: KEY,
    rowKey: 'abc',
    text: '{"user":"ann"}',
    envelope: 'AShhiKAAAQIDBAUGBwgJCgu6lz3asEB07LXXkKoZEs9zSYlzoXuPTv5ynfKmIlU',
  },
  {
    password: 'Schlüssel mit Umlauten 🔑',
    rowKey: 'app:ü💥',
    text: '{"cart":["ä","💥",null]}',
    envelope: 'AcV74WFkZWZnaGlqa2xtbm9JiwBxrbx2H4kkyJGsJxDRfAqljMuVUS0ZYOybpob5qBmwMTOpN793UNMZ',
  },
  {
    password: '0123456789abcdef',
    rowKey: '',
    text: '{}',
    envelope: 'AavPit309fb3-Pn6-_z9_v_-e74bTp12ho2xpf4XBAZD86o',
  },
];

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

const unreadable = (why: RegExp) => (error: unknown) => error instanceof UnreadableRowError && why.test(error.message);

async function derive(password: string, info: string, bytes: number): Promise<Uint8Array> {
  const key = await subtle.importKey('raw', Buffer.from(password), 'HKDF', false, ['deriveBits']);
  const how = { name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(), info: Buffer.from(info) };
  return new Uint8Array(await subtle.deriveBits(how, key, bytes * 8));
}

async function aesKey(password: string, use: 'encrypt' | 'decrypt') {
  return subtle.importKey('raw', await derive(password, 'express-pg-store data', 32), 'AES-GCM', false, [use]);
}

/** The envelope as docs/security.md describes it, by WebCrypto. */
async function sealed(password: string, rowKey: string, text: string): Promise<string> {
  const iv = randomBytes(12);
  const how = { name: 'AES-GCM', iv, additionalData: Buffer.from(rowKey) };
  const out = Buffer.from(await subtle.encrypt(how, await aesKey(password, 'encrypt'), Buffer.from(text)));
  const id = await derive(password, 'express-pg-store key id', 4);
  return Buffer.concat([Buffer.of(1), id, iv, out.subarray(-16), out.subarray(0, -16)]).toString('base64url');
}

async function opened(password: string, rowKey: string, envelope: string): Promise<string> {
  const bytes = Buffer.from(envelope, 'base64url');
  assert.equal(bytes[0], 1);
  assert.deepEqual(new Uint8Array(bytes.subarray(1, 5)), await derive(password, 'express-pg-store key id', 4));
  const how = { name: 'AES-GCM', iv: bytes.subarray(5, 17), additionalData: Buffer.from(rowKey) };
  const body = Buffer.concat([bytes.subarray(33), bytes.subarray(17, 33)]);
  return Buffer.from(await subtle.decrypt(how, await aesKey(password, 'decrypt'), body)).toString();
}

describe('encryption', () => {
  it('opens the committed envelopes', () => {
    for (const { password, rowKey, text, envelope } of VECTORS) {
      assert.equal(new Encryption([password]).open(rowKey, envelope), text);
    }
  });

  it('opens what WebCrypto sealed, and WebCrypto opens what it sealed', async () => {
    for (const { password, rowKey, text } of VECTORS) {
      const encryption = new Encryption([password]);
      assert.equal(encryption.open(rowKey, await sealed(password, rowKey, text)), text);
      assert.equal(await opened(password, rowKey, encryption.seal(rowKey, text)), text);
    }
  });

  it('gives back any text under any key', () => {
    const any = () => fc.string({ unit: 'grapheme' });
    fc.assert(
      fc.property(fc.string({ minLength: 16 }), any(), any(), (password, rowKey, text) => {
        const encryption = new Encryption([password]);
        assert.equal(encryption.open(rowKey, encryption.seal(rowKey, text)), text);
      }),
    );
  });

  it('shows nothing of the text but its length', () => {
    const encryption = new Encryption([KEY]);
    const bytes = Buffer.from(encryption.seal('abc', 'hunter2'.repeat(20)), 'base64url');
    assert.equal(bytes.length, 33 + 140);
    assert(!bytes.includes('hunter2'));
  });

  it('takes a fresh nonce each time', () => {
    const encryption = new Encryption([KEY]);
    const nonces = Array.from({ length: 2000 }, () => {
      const bytes = Buffer.from(encryption.seal('abc', 'same'), 'base64url');
      return bytes.subarray(5, 17).toString('hex');
    });
    assert.equal(new Set(nonces).size, nonces.length);
  });

  it('does not open with any one bit changed', () => {
    const encryption = new Encryption([KEY]);
    const bytes = Buffer.from(encryption.seal('abc', '{"user":"ann"}'), 'base64url');
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = Buffer.from(bytes);
      changed[bit >> 3] ^= 1 << (bit & 7);
      assert.throws(() => encryption.open('abc', changed.toString('base64url')), UnreadableRowError, `bit ${bit}`);
    }
  });

  it('does not open with any one character changed, removed or added', () => {
    const encryption = new Encryption([KEY]);
    // Of these lengths, the last character has bits that stand for nothing, or has none.
    for (const text of ['{"a":1}', '{"a":12}', '{"a":123}']) {
      const envelope = encryption.seal('abc', text);
      for (let at = 0; at <= envelope.length; at++) {
        const [head, tail] = [envelope.slice(0, at), envelope.slice(at)];
        const other = ALPHABET[(ALPHABET.indexOf(envelope[at] ?? 'A') + 1) % 64];
        const variants = [head, `${head}A${tail}`, `${head}=${tail}`, `${head} ${tail}`];
        if (at < envelope.length) variants.push(head + tail.slice(1), head + other + tail.slice(1));
        for (const variant of variants) {
          if (variant !== envelope) assert.throws(() => encryption.open('abc', variant), UnreadableRowError, variant);
        }
      }
      const base64 = envelope.replaceAll('-', '+').replaceAll('_', '/');
      if (base64 !== envelope) assert.throws(() => encryption.open('abc', base64), UnreadableRowError);
    }
  });

  it('does not open on another row', () => {
    const encryption = new Encryption([KEY]);
    const envelope = encryption.seal('abc', '{}');
    for (const other of ['abd', 'ABC', 'p:abc', 'abc ', '']) {
      assert.throws(() => encryption.open(other, envelope), unreadable(/belongs to another row/));
    }
  });

  it('does not open with another key, and says so', () => {
    const envelope = new Encryption([KEY]).seal('abc', '{}');
    assert.throws(
      () => new Encryption(['another key of 30 characters..']).open('abc', envelope),
      unreadable(/with a key/),
    );
  });

  it('does not open what has another version, or is no envelope', () => {
    const encryption = new Encryption([KEY]);
    const bytes = Buffer.from(encryption.seal('abc', '{}'), 'base64url');
    for (const version of [0, 2, 255]) {
      bytes[0] = version;
      assert.throws(() => encryption.open('abc', bytes.toString('base64url')), unreadable(/this version/));
    }
    for (const text of ['', 'A', 'AQ', '\\u0041', '{}', 'AQ'.repeat(16)]) {
      assert.throws(() => encryption.open('abc', text), unreadable(/this version/));
    }
  });

  it('seals with the newest key and opens with all', async () => {
    const [old, fresh] = [KEY, 'the newest of the two keys'];
    const rotated = new Encryption([fresh, old]);
    const before = new Encryption([old]).seal('abc', '1');
    const after = rotated.seal('abc', '2');
    assert.equal(rotated.open('abc', before), '1');
    assert.equal(await opened(fresh, 'abc', after), '2');
    assert(after.startsWith(rotated.newestHead));
    assert(!before.startsWith(rotated.newestHead));
  });

  it('never quotes key or text in an error', () => {
    const encryption = new Encryption([KEY]);
    const envelope = encryption.seal('abc', 'hunter2');
    for (const wrong of [envelope.slice(0, -2), `${envelope.slice(0, 30)}AAAA${envelope.slice(34)}`, 'hunter2']) {
      try {
        encryption.open('abc', wrong);
        assert.fail('opened');
      } catch (error) {
        assert(error instanceof UnreadableRowError);
        for (const secret of [KEY, 'hunter2', 'abc', envelope.slice(33)]) assert(!error.message.includes(secret));
      }
    }
  });
});
