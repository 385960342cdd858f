/** Authentication by password with SCRAM-SHA-256 (RFC 5802, RFC 7677), with channel binding where it can be had. */

import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { PgStoreError } from '../errors.js';

/**
 * PostgreSQL's default is 4,096. The server names the number before it has shown who it is, and 30 million keep a core
 * busy for 25 s.
 */
const MOST_ITERATIONS = 1_000_000;

const FIRST_MESSAGE = /^r=([^,]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9]\d{0,8})(?:,|$)/;

/** One exchange; it proves to each side that the other one knows the password. */
export class ScramExchange {
  readonly mechanism: string;
  /** Whether the server has proved that it knows the password. */
  isVerified = false;
  /** Whether the exchange is tied to the TLS connection, so that nobody in between can pass it on. */
  readonly bindsChannel: boolean;
  readonly #password: string;
  readonly #nonce = randomBytes(18).toString('base64');
  /** The header that says whether the channel is bound, and what it is bound to. */
  readonly #header: string;
  readonly #binding: Buffer;
  #serverSignature: Buffer | undefined;

  /**
   * @param offered the mechanisms that the server offers
   * @param binding what the TLS connection is recognised by, where there is one
   * @throws PgStoreError where the server offers none of those that the store has
   */
  constructor(password: string, offered: readonly string[], binding: Buffer | undefined) {
    if (!offered.includes('SCRAM-SHA-256')) throw authenticationError('the server offers no SCRAM-SHA-256');
    this.#password = prepared(password);
    this.bindsChannel = binding !== undefined && offered.includes('SCRAM-SHA-256-PLUS');
    this.mechanism = this.bindsChannel ? 'SCRAM-SHA-256-PLUS' : 'SCRAM-SHA-256';
    // "y": the client could bind the channel, and the server has not offered it. If it had, somebody in between has
    // taken the offer away, and the server refuses this.
    const unbound = binding === undefined ? 'n,,' : 'y,,';
    this.#header = this.bindsChannel ? 'p=tls-server-end-point,,' : unbound;
    this.#binding = this.bindsChannel && binding ? binding : Buffer.alloc(0);
  }

  get firstMessage(): string {
    return `${this.#header}n=,r=${this.#nonce}`;
  }

  /**
   * @returns the client's proof
   * @throws PgStoreError for a message that is not the server's part of this exchange, and for a second one: each costs
   * as many iterations as the server likes
   */
  async finalMessage(serverFirst: string): Promise<string> {
    const [, nonce = '', salt = '', count = ''] = FIRST_MESSAGE.exec(serverFirst) ?? [];
    if (this.#serverSignature || !nonce.startsWith(this.#nonce) || nonce === this.#nonce) {
      throw authenticationError('the server has sent a malformed SCRAM message');
    }
    const iterations = Number(count);
    if (iterations > MOST_ITERATIONS) {
      throw authenticationError(`the server asks for more than ${MOST_ITERATIONS} iterations of SCRAM`);
    }
    const salted = await promisify(pbkdf2)(this.#password, Buffer.from(salt, 'base64'), iterations, 32, 'sha256');
    const clientKey = hmac(salted, 'Client Key');
    const bound = Buffer.concat([Buffer.from(this.#header), this.#binding]).toString('base64');
    const withoutProof = `c=${bound},r=${nonce}`;
    const exchange = `n=,r=${this.#nonce},${serverFirst},${withoutProof}`;
    const clientSignature = hmac(createHash('sha256').update(clientKey).digest(), exchange);
    this.#serverSignature = hmac(hmac(salted, 'Server Key'), exchange);
    const proof = clientKey.map((byte, n) => byte ^ (clientSignature[n] ?? 0));
    return `${withoutProof},p=${Buffer.from(proof).toString('base64')}`;
  }

  /** @throws PgStoreError where the server does not know the password */
  verify(serverFinal: string): void {
    const signature = Buffer.from(/^v=([A-Za-z0-9+/=]+)/.exec(serverFinal)?.[1] ?? '', 'base64');
    const expected = this.#serverSignature;
    if (!expected || signature.length !== expected.length || !timingSafeEqual(signature, expected)) {
      throw authenticationError('the server has not proved that it knows the password');
    }
    this.isVerified = true;
  }
}

export function authenticationError(message: string): PgStoreError {
  return new PgStoreError(message, 'AUTHENTICATION_FAILED');
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

/** SASLprep (RFC 4013), as PostgreSQL prepares a password when it is set: other spaces, invisible characters, NFKC. */
function prepared(password: string): string {
  return password
    .replace(/[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/g, ' ')
    .replace(/\u034f|[\u180b-\u180d]|[\ufe00-\ufe0f]|\u200d|[\u00ad\u1806\u200c\u2060\ufeff]/g, '')
    .normalize('NFKC');
}

/**
 * The object identifiers of signature algorithms, in hexadecimal, and the hash that a channel is bound by (RFC 5929).
 */
const HASHES: Readonly<Record<string, string>> = {
  '2a864886f70d010104': 'sha256',
  '2a864886f70d010105': 'sha256',
  '2a864886f70d01010b': 'sha256',
  '2a864886f70d01010c': 'sha384',
  '2a864886f70d01010d': 'sha512',
  '2a8648ce3d0401': 'sha256',
  '2a8648ce3d040302': 'sha256',
  '2a8648ce3d040303': 'sha384',
  '2a8648ce3d040304': 'sha512',
};

/** The hash of the server's certificate (`tls-server-end-point`), or nothing where it is signed in another way. */
export function channelBinding(socket: TLSSocket): Buffer | undefined {
  const { raw } = socket.getPeerCertificate();
  if (!raw) return undefined;
  // With Deno it is an Uint8Array.
  const certificate = Buffer.from(raw);
  const hash = HASHES[signatureAlgorithm(certificate)];
  return hash ? createHash(hash).update(certificate).digest() : undefined;
}

/** The object identifier in the second of the three parts of a certificate (X.509, encoded by DER). */
function signatureAlgorithm(certificate: Buffer): string {
  const parts = derElement(certificate, 0);
  const toBeSigned = derElement(certificate, parts.start);
  const algorithm = derElement(certificate, toBeSigned.end);
  const identifier = derElement(certificate, algorithm.start);
  return certificate.toString('hex', identifier.start, identifier.end);
}

/** Where the content of the element at `offset` starts and ends. */
function derElement(bytes: Buffer, offset: number): { start: number; end: number } {
  const first = bytes[offset + 1] ?? 0;
  if (first < 0x80) return { start: offset + 2, end: offset + 2 + first };
  const size = first & 0x7f;
  const start = offset + 2 + size;
  return { start, end: start + bytes.readUIntBE(offset + 2, size) };
}
