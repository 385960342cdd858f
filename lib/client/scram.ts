/** Authentication by password with SCRAM-SHA-256 (RFC 5802, RFC 7677), with channel binding if the server offers it. */

import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { PgStoreError } from '../errors.js';

/**
 * The largest number of iterations that the store computes. PostgreSQL's default is 4,096. A server chooses the number
 * before it has proved its identity, and 30 million iterations would occupy a core for 25 seconds.
 */
const MOST_ITERATIONS = 1_000_000;

/** The server's first message: its nonce, the salt in base64, and the number of iterations. */
const FIRST_MESSAGE = /^r=([^,]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9]\d{0,8})(?:,|$)/;

/** One SCRAM exchange, which proves to each side that the other one knows the password. */
export class ScramExchange {
  /** The name of the SASL mechanism, with or without channel binding. */
  readonly mechanism: string;
  /** Whether the server has proved that it knows the password. */
  isVerified = false;
  /** Whether the exchange is bound to the TLS connection, so that a man in the middle cannot relay it. */
  readonly bindsChannel: boolean;
  readonly #password: string;
  readonly #nonce = randomBytes(18).toString('base64');
  /** The GS2 header (RFC 5802, section 7), which says whether the channel is bound. */
  readonly #header: string;
  /** The channel binding data; empty without channel binding. */
  readonly #binding: Buffer;
  /** The signature that the server must send in the end. */
  #serverSignature: Buffer | undefined;

  /**
   * @param offered the SASL mechanisms that the server offers
   * @param binding the channel binding data of the TLS connection, if it has any
   * @throws PgStoreError `AUTHENTICATION_FAILED` if the server does not offer SCRAM-SHA-256
   */
  constructor(password: string, offered: readonly string[], binding: Buffer | undefined) {
    if (!offered.includes('SCRAM-SHA-256')) throw authenticationError('the server offers no SCRAM-SHA-256');
    this.#password = saslPrep(password);
    this.bindsChannel = binding !== undefined && offered.includes('SCRAM-SHA-256-PLUS');
    this.mechanism = this.bindsChannel ? 'SCRAM-SHA-256-PLUS' : 'SCRAM-SHA-256';
    // The header "y" says that the client supports channel binding, but that the server has not offered it. If the
    // server did offer it, a man in the middle has removed the offer, and the server refuses the exchange.
    const unbound = binding === undefined ? 'n,,' : 'y,,';
    this.#header = this.bindsChannel ? 'p=tls-server-end-point,,' : unbound;
    this.#binding = this.bindsChannel && binding ? binding : Buffer.alloc(0);
  }

  /** The client's first message. */
  get firstMessage(): string {
    return `${this.#header}n=,r=${this.#nonce}`;
  }

  /**
   * Answers the server's first message with the client's proof that it knows the password.
   *
   * @throws PgStoreError `AUTHENTICATION_FAILED` for a malformed message, for too many iterations, and for a second
   * message of this kind, because each of them would cost that many iterations
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

  /** Checks the server's proof in its last message. @throws PgStoreError `AUTHENTICATION_FAILED` for a wrong one */
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

/**
 * Prepares a password with SASLprep (RFC 4013), as PostgreSQL does when a password is set: it replaces other kinds of
 * spaces, removes invisible characters, and normalizes to NFKC.
 */
function saslPrep(password: string): string {
  return password
    .replace(/[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/g, ' ')
    .replace(/\u034f|[\u180b-\u180d]|[\ufe00-\ufe0f]|\u200d|[\u00ad\u1806\u200c\u2060\ufeff]/g, '')
    .normalize('NFKC');
}

/**
 * The hash function for channel binding, by the object identifier of the certificate's signature algorithm, in
 * hexadecimal (RFC 5929, section 4.1: MD5 and SHA-1 are replaced by SHA-256).
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

/**
 * The channel binding data of type `tls-server-end-point`: the hash of the server's certificate. `undefined` if the
 * signature algorithm of the certificate has no hash in `HASHES`.
 */
export function channelBinding(socket: TLSSocket): Buffer | undefined {
  const { raw } = socket.getPeerCertificate();
  if (!raw) return undefined;
  // In Deno `raw` is a Uint8Array.
  const certificate = Buffer.from(raw);
  const hash = HASHES[signatureAlgorithm(certificate)];
  return hash ? createHash(hash).update(certificate).digest() : undefined;
}

/** The object identifier of the signature algorithm, the second of the three parts of an X.509 certificate in DER. */
function signatureAlgorithm(certificate: Buffer): string {
  const parts = derElement(certificate, 0);
  const toBeSigned = derElement(certificate, parts.start);
  const algorithm = derElement(certificate, toBeSigned.end);
  const identifier = derElement(certificate, algorithm.start);
  return certificate.toString('hex', identifier.start, identifier.end);
}

/** The offsets at which the content of the DER element at `offset` starts and ends. */
function derElement(bytes: Buffer, offset: number): { start: number; end: number } {
  const first = bytes[offset + 1] ?? 0;
  if (first < 0x80) return { start: offset + 2, end: offset + 2 + first };
  const size = first & 0x7f;
  const start = offset + 2 + size;
  return { start, end: start + bytes.readUIntBE(offset + 2, size) };
}
