/** Starts a connection by PostgreSQL's protocol, from the first message until the server is ready for statements. */

import { createHash } from 'node:crypto';
import type net from 'node:net';
import tls from 'node:tls';
import postgres from 'postgres';
import { PgStoreError } from '../errors.js';
import { LEAST_KEY_LENGTH, protocolError } from './messages.js';
import { authenticationError, channelBinding, ScramExchange } from './scram.js';
import type { AuthMethod, Settings } from './settings.js';

const PROTOCOL_3_0 = 196_608;
/** The largest length of a message in bytes. No server sends a longer one before a connection is ready. */
const LONGEST_START_MESSAGE = 100_000;
/** The largest number of bytes in all messages together, until a connection is ready. */
const MOST_BYTES = 1_000_000;

/** The kinds of authentication messages (PostgreSQL: Message Formats). */
const AUTHENTICATION_OK = 0;
const CLEARTEXT_PASSWORD = 3;
const MD5_PASSWORD = 5;
const SASL = 10;
const SASL_CONTINUE = 11;
const SASL_FINAL = 12;

/** The session of PostgreSQL that the server has started for a connection. */
export interface StartedSession {
  /** The process ID of the backend, in decimal. */
  readonly pid: string;
  /** The process ID and the secret key of the backend, in the form that a cancel request needs. */
  readonly cancelKey: Buffer;
  /** The messages that followed AuthenticationOk, as they were received. */
  readonly messages: Buffer;
}

/**
 * Starts a connection over a socket.
 *
 * Postgres.js 3.4 is not used for this: it ends the process if the password is not a string, or if the server's SCRAM
 * message is malformed; it blocks the event loop while it derives the SCRAM key, with as many iterations as the server
 * asks for; it supports no channel binding; and it prints messages that it does not know to the console.
 */
export class Startup {
  readonly #socket: net.Socket;
  readonly #settings: Settings;
  readonly #password: string;
  readonly #messages: MessageReader;
  #scram: ScramExchange | undefined;
  /** The authentication method that the server has asked for. */
  #method: AuthMethod = 'none';

  constructor(socket: net.Socket, settings: Settings, password: string) {
    this.#socket = socket;
    this.#settings = settings;
    this.#password = password;
    this.#messages = new MessageReader(socket);
  }

  /**
   * Authenticates and waits until the server is ready. Afterwards the socket is paused.
   *
   * @throws the server's error, or a PgStoreError if authentication fails or the server breaks the protocol
   */
  async run(): Promise<StartedSession> {
    const { user, database, serverSettings } = this.#settings;
    this.#socket.write(startupMessage({ user, database, client_encoding: 'UTF8', ...serverSettings }));
    await this.#authenticate();
    const received: Buffer[] = [];
    let cancelKey = Buffer.alloc(LEAST_KEY_LENGTH);
    for (;;) {
      const message = await this.#messages.next();
      if (message.type === 'E') throw serverError(message.body);
      // ParameterStatus (S), BackendKeyData (K), NoticeResponse (N) and ReadyForQuery (Z).
      if (!'SKNZ'.includes(message.type)) throw protocolError();
      received.push(message.bytes);
      if (message.type === 'K') cancelKey = keyIn(message.body);
      if (message.type !== 'Z') continue;
      this.#messages.end();
      return { pid: String(cancelKey.readUInt32BE(0)), cancelKey, messages: Buffer.concat(received) };
    }
  }

  async #authenticate(): Promise<void> {
    for (;;) {
      const { type, body } = await this.#messages.next();
      if (type === 'E') throw serverError(body);
      // A server may also send NegotiateProtocolVersion (v), which concerns versions that the store does not ask for,
      // and notices (N).
      if (type === 'v' || type === 'N') continue;
      if (type !== 'R' || body.length < 4) throw protocolError();
      const kind = body.readInt32BE(0);
      if (kind === AUTHENTICATION_OK) return this.#checkAuthentication();
      await this.#answer(kind, body.subarray(4));
    }
  }

  /** Answers an authentication message of the server. */
  async #answer(kind: number, data: Buffer): Promise<void> {
    const { user } = this.#settings;
    switch (kind) {
      case CLEARTEXT_PASSWORD:
        this.#accept('password');
        return this.#send(`${this.#password}\0`);
      case MD5_PASSWORD:
        this.#accept('md5');
        return this.#send(`md5${md5(md5(this.#password + user), data)}\0`);
      case SASL: {
        if (this.#scram) throw protocolError();
        this.#accept('scram-sha-256');
        const scram = new ScramExchange(this.#password, data.toString().split('\0'), this.#channelBinding());
        this.#scram = scram;
        if (this.#settings.channelBinding === 'require' && !scram.bindsChannel) throw unboundError();
        const text = Buffer.from(scram.firstMessage);
        return this.#send(Buffer.concat([Buffer.from(`${scram.mechanism}\0`), int32(text.length), text]));
      }
      case SASL_CONTINUE:
        if (!this.#scram) throw protocolError();
        return this.#send(await this.#scram.finalMessage(data.toString()));
      case SASL_FINAL:
        if (!this.#scram) throw protocolError();
        return this.#scram.verify(data.toString());
      default:
        throw authenticationError('the server asks for an authentication method that the store does not support');
    }
  }

  /**
   * Accepts the method that the server asks for.
   *
   * @throws PgStoreError if the settings do not allow it, or there is no password
   */
  #accept(method: AuthMethod): void {
    this.#method = method;
    const { authMethods, channelBinding } = this.#settings;
    if (!authMethods.has(method)) {
      throw authenticationError(
        `the server asks for the authentication method ${method}, which \`require_auth\` does not allow`,
      );
    }
    if (channelBinding === 'require' && method !== 'scram-sha-256') throw unboundError();
    if (this.#password === '') {
      throw new PgStoreError('the server asks for a password, but none is given', 'NO_PASSWORD');
    }
  }

  /**
   * Checks, when the server says that it has accepted the connection, that it did so in an allowed way. After SCRAM, a
   * server that has not proved that it knows the password may be an attacker's.
   */
  #checkAuthentication(): void {
    const { authMethods, channelBinding } = this.#settings;
    if (!authMethods.has(this.#method)) {
      throw authenticationError('the server does not ask for authentication, but `require_auth` requires it');
    }
    if (this.#scram && !this.#scram.isVerified) {
      throw authenticationError('the server has not proved that it knows the password');
    }
    if (channelBinding === 'require' && !this.#scram?.bindsChannel) throw unboundError();
  }

  /** The channel binding data of the TLS connection, unless the settings disable channel binding. */
  #channelBinding(): Buffer | undefined {
    if (!(this.#socket instanceof tls.TLSSocket) || this.#settings.channelBinding === 'disable') return undefined;
    return channelBinding(this.#socket);
  }

  /** Sends an answer to an authentication message; PostgreSQL uses message type "p" for all of them. */
  #send(data: string | Buffer): void {
    const bytes = Buffer.from(data);
    this.#socket.write(Buffer.concat([Buffer.from('p'), int32(bytes.length + 4), bytes]));
  }
}

interface Message {
  readonly type: string;
  readonly body: Buffer;
  /** The message as it was received: type, length and body. */
  readonly bytes: Buffer;
}

/** Reads the messages of a server, one after the other. */
class MessageReader {
  readonly #socket: net.Socket;
  #received = Buffer.alloc(0);
  /** The number of bytes in the messages that were read. */
  #read = 0;
  #wake: (() => void) | undefined;

  constructor(socket: net.Socket) {
    this.#socket = socket.on('data', this.#onData);
  }

  /** Waits for the next message, without a time limit. @throws PgStoreError for a length that no message has */
  async next(): Promise<Message> {
    for (;;) {
      const length = this.#received.length < 5 ? undefined : this.#received.readUInt32BE(1);
      if (length !== undefined && (length < 4 || length > LONGEST_START_MESSAGE)) throw protocolError();
      if (length !== undefined && this.#received.length > length) {
        const bytes = this.#received.subarray(0, length + 1);
        this.#received = this.#received.subarray(length + 1);
        this.#read += bytes.length;
        if (this.#read > MOST_BYTES) throw protocolError();
        return { type: bytes.toString('latin1', 0, 1), body: bytes.subarray(5), bytes };
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Stops reading, and pauses the socket, so that the data that follow stay in it for the next reader. */
  end(): void {
    this.#socket.pause().off('data', this.#onData);
    if (this.#received.length > 0) this.#socket.unshift(this.#received);
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#received = Buffer.concat([this.#received, chunk]);
    this.#wake?.();
  };
}

function keyIn(body: Buffer): Buffer<ArrayBuffer> {
  if (body.length < LEAST_KEY_LENGTH) throw protocolError();
  return Buffer.from(body);
}

function startupMessage(settings: Record<string, string>): Buffer {
  const texts = Object.entries(settings).flat();
  const body = Buffer.concat([int32(PROTOCOL_3_0), ...texts.map((text) => Buffer.from(`${text}\0`)), Buffer.alloc(1)]);
  return Buffer.concat([int32(body.length + 4), body]);
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function md5(text: string, salt: Buffer = Buffer.alloc(0)): string {
  return createHash('md5').update(text).update(salt).digest('hex');
}

/**
 * The fields of an error message that the store passes on, by the codes of the protocol. `V` is the severity in
 * English; it follows `S`, the translated one, and replaces it.
 */
const ERROR_FIELDS: Readonly<Record<string, string>> = {
  S: 'severity',
  V: 'severity',
  C: 'code',
  M: 'message',
  R: 'routine',
};

function serverError(body: Buffer): Error {
  const fields: Record<string, string> = { message: 'the server refused the connection', code: '08004' };
  for (const text of body.toString().split('\0')) {
    const name = ERROR_FIELDS[text.slice(0, 1)];
    if (name) fields[name] = text.slice(1);
  }
  return new postgres.PostgresError(fields as unknown as string);
}

function unboundError(): PgStoreError {
  return authenticationError('the server does not offer channel binding, but `channel_binding` requires it');
}
