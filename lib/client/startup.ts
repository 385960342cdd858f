/** The start of a connection by PostgreSQL's protocol: from the first message until the server waits for statements. */

import { createHash } from 'node:crypto';
import type net from 'node:net';
import tls from 'node:tls';
import postgres from 'postgres';
import { PgStoreError } from '../errors.js';
import { protocolError } from './messages.js';
import { authenticationError, channelBinding, ScramExchange } from './scram.js';
import type { AuthMethod, Settings } from './settings.js';

const PROTOCOL_3_0 = 196_608;
/** Longer messages do not occur before a connection is ready. */
const LONGEST_MESSAGE = 100_000;
/** Nor do all messages together need more bytes. */
const MOST_BYTES = 1_000_000;
/** Bytes of the process ID and the secret in a backend's key, at least. */
const KEY_LENGTH = 8;

/** The kinds of the server's message "Authentication". */
const AUTHENTICATION_OK = 0;
const CLEARTEXT_PASSWORD = 3;
const MD5_PASSWORD = 5;
const SASL = 10;
const SASL_CONTINUE = 11;
const SASL_FINAL = 12;

/** What the server says when a connection is ready. */
export interface StartedSession {
  /** The process ID of the backend, in decimal. */
  readonly pid: string;
  /** The process ID and the secret, as a cancel request has them. */
  readonly cancelKey: Buffer;
  /** The messages since the server has accepted the connection, as they came. */
  readonly messages: Buffer;
}

/**
 * Starts a connection over a socket, in place of Postgres.js, which (3.4) ends the process where a password is no text
 * or the server's SCRAM message is malformed, derives the SCRAM key synchronously with as many iterations as the server
 * likes, does not bind the channel, and prints what it does not know to the console.
 */
export class Startup {
  readonly #socket: net.Socket;
  readonly #settings: Settings;
  readonly #password: string;
  readonly #messages: MessageReader;
  #scram: ScramExchange | undefined;
  /** The way to authenticate that the server has asked for. */
  #method: AuthMethod = 'none';

  constructor(socket: net.Socket, settings: Settings, password: string) {
    this.#socket = socket;
    this.#settings = settings;
    this.#password = password;
    this.#messages = new MessageReader(socket);
  }

  /** Leaves the socket paused. @throws the server's error, or a PgStoreError where it does not keep to the protocol */
  async run(): Promise<StartedSession> {
    const { user, database, serverSettings } = this.#settings;
    this.#socket.write(startupMessage({ user, database, client_encoding: 'UTF8', ...serverSettings }));
    await this.#authenticate();
    const received: Buffer[] = [];
    let cancelKey = Buffer.alloc(KEY_LENGTH);
    for (;;) {
      const message = await this.#messages.next();
      if (message.type === 'E') throw serverError(message.body);
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
      // A server may also speak of minor versions of the protocol, which the store has not asked for, and give notices.
      if (type === 'v' || type === 'N') continue;
      if (type !== 'R' || body.length < 4) throw protocolError();
      const kind = body.readInt32BE(0);
      if (kind === AUTHENTICATION_OK) return this.#checkHowItWasDone();
      await this.#answer(kind, body.subarray(4));
    }
  }

  async #answer(kind: number, data: Buffer): Promise<void> {
    const { user } = this.#settings;
    switch (kind) {
      case CLEARTEXT_PASSWORD:
        this.#ask('password');
        return this.#send(`${this.#password}\0`);
      case MD5_PASSWORD:
        this.#ask('md5');
        return this.#send(`md5${md5(md5(this.#password + user), data)}\0`);
      case SASL: {
        if (this.#scram) throw protocolError();
        this.#ask('scram-sha-256');
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
        return this.#scram ? this.#scram.verify(data.toString()) : fail(protocolError());
      default:
        throw authenticationError('the server asks for a way to authenticate that the store does not have');
    }
  }

  /** @throws PgStoreError where the way to authenticate is not allowed, or needs a password and there is none */
  #ask(method: AuthMethod): void {
    this.#method = method;
    const { authMethods, channelBinding } = this.#settings;
    if (!authMethods.has(method)) {
      throw authenticationError(
        `the server asks for authentication by ${method}, which \`require_auth\` does not allow`,
      );
    }
    if (channelBinding === 'require' && method !== 'scram-sha-256') throw unboundError();
    if (this.#password === '')
      throw new PgStoreError('the server asks for a password, and none is given', 'NO_PASSWORD');
  }

  /** A server that has not proved that it knows the password may be anybody's. */
  #checkHowItWasDone(): void {
    const { authMethods, channelBinding } = this.#settings;
    if (!authMethods.has(this.#method)) {
      throw authenticationError('the server asks for no authentication, which `require_auth` does not allow');
    }
    if (this.#scram && !this.#scram.isVerified) {
      throw authenticationError('the server has not proved that it knows the password');
    }
    if (channelBinding === 'require' && !this.#scram?.bindsChannel) throw unboundError();
  }

  #channelBinding(): Buffer | undefined {
    if (!(this.#socket instanceof tls.TLSSocket) || this.#settings.channelBinding === 'disable') return undefined;
    return channelBinding(this.#socket);
  }

  #send(data: string | Buffer): void {
    const bytes = Buffer.from(data);
    this.#socket.write(Buffer.concat([Buffer.from('p'), int32(bytes.length + 4), bytes]));
  }
}

interface Message {
  readonly type: string;
  readonly body: Buffer;
  /** All of it. */
  readonly bytes: Buffer;
}

/** The messages of a server, one after the other. */
class MessageReader {
  readonly #socket: net.Socket;
  #received = Buffer.alloc(0);
  /** Bytes of the messages that were read. */
  #read = 0;
  #wake: (() => void) | undefined;

  constructor(socket: net.Socket) {
    this.#socket = socket.on('data', this.#onData);
  }

  /** Waits for as long as it takes. @throws PgStoreError for what cannot be a message */
  async next(): Promise<Message> {
    for (;;) {
      const length = this.#received.length < 5 ? undefined : this.#received.readUInt32BE(1);
      if (length !== undefined && (length < 4 || length > LONGEST_MESSAGE)) throw protocolError();
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

  /** Pauses the socket, so that what follows waits for who reads it next. */
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
  if (body.length < KEY_LENGTH) throw protocolError();
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

/** The fields of an error message that the store passes on; `V` is the severity in English, which old servers lack. */
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
  return authenticationError('the server does not bind the channel, and `channel_binding` requires it');
}

function fail(error: Error): never {
  throw error;
}
