/** A socket to a server, with TLS over it where the settings ask for it. */

import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { deadlines } from '../calls/deadline.js';
import { PgStoreError } from '../errors.js';
import type { TlsSettings } from './tls-settings.js';

/** A server that a connection may go to. */
export interface Host {
  /** As it was given: a name, an address, or the folder of a Unix socket. */
  readonly given: string;
  /** What a certificate is compared with. */
  readonly name: string;
  /** Where the connection goes: the name, or its address from parameter `hostaddr`. */
  readonly address: string;
  readonly port: number;
  /** The file of its Unix socket. */
  readonly path: string | undefined;
}

/** What a transport needs to know; the settings of a node-postgres pool fit, too. */
export interface TransportSettings {
  readonly tls: TlsSettings;
  readonly socket?: ((settings: object) => net.Socket | Promise<net.Socket>) | undefined;
  readonly keepAlive?: number;
}

/** The request for TLS of PostgreSQL's protocol; its answer is one byte. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);

/**
 * The store opens its sockets itself: Postgres.js 3.4 cannot close a connection whose other end does not answer (its
 * issue #1089), and goes on with TLS where the server has answered that it offers none.
 */
export class Transport {
  readonly #raw: net.Socket;
  /** The same, or TLS over it. */
  #socket: net.Socket;

  private constructor(raw: net.Socket) {
    // Errors reach who waits for the socket; nobody may be waiting when it breaks.
    this.#raw = raw.on('error', () => {});
    this.#socket = raw;
  }

  /**
   * Connects, and secures the connection where the settings ask for it.
   *
   * @param deadline on the clock of `performance.now()`, in milliseconds
   * @throws an error after which no socket is left
   */
  static async open(settings: TransportSettings, host: Host, deadline: number): Promise<Transport> {
    const given = settings.socket?.({ ...settings, host: [host.name], port: [host.port], path: host.path ?? false });
    const raw = given ? await inTime(Promise.resolve(given), deadline) : new net.Socket();
    const transport = new Transport(raw);
    if (!given) {
      // Without a prototype: a `path` in `Object.prototype` would lead to another server.
      const address = Object.assign(Object.create(null), { host: host.address, port: host.port });
      if (host.path === undefined) raw.connect(address);
      else raw.connect(host.path);
    }
    return transport.within(deadline, transport.#start(settings, host)).then(() => transport);
  }

  get socket(): net.Socket {
    return this.#socket;
  }

  get isOpen(): boolean {
    return !this.#raw.destroyed;
  }

  /** Calls back once the socket has closed. */
  onClosed(callback: () => void): void {
    if (this.#raw.closed) callback();
    else this.#raw.once('close', callback);
  }

  /**
   * Resolves as `work` does; where that fails, the socket closes or the deadline comes, resets the socket and rejects.
   */
  async within<T>(deadline: number, work: Promise<T>): Promise<T> {
    // In Bun the socket's error and its end come at the same time, so the end tells the error too.
    const closed = new Promise<never>((_, reject) => {
      this.onClosed(() => reject(this.#raw.errored ?? closedError()));
    });
    try {
      return await deadlines.race(deadline, Promise.race([work, closed]), connectTimeoutError);
    } catch (error) {
      await this.reset();
      throw error;
    }
  }

  /** Drops what was not delivered: when the network is back, no statement may arrive that was given up. */
  async reset(): Promise<void> {
    const raw = this.#raw;
    // What is still written fails under TLS, some of it only after Postgres.js has taken its listeners off the socket.
    this.#socket.on('close', () => this.#socket.on('error', () => {}));
    // A socket that is being ended takes no reset (libuv: EINVAL), nor does one that is not a TCP socket.
    if (raw.connecting || raw.remoteAddress === undefined || raw.writableEnded) raw.destroy();
    else raw.resetAndDestroy();
    await new Promise<void>((resolve) => this.onClosed(resolve));
  }

  async #start(settings: TransportSettings, host: Host): Promise<void> {
    if (this.#raw.connecting) await once(this.#raw, 'connect');
    // A socket of the app's own may not have it.
    if (settings.keepAlive) this.#raw.setKeepAlive?.(true, settings.keepAlive);
    // As with libpq, a Unix socket needs no TLS: PostgreSQL offers none there.
    if (settings.tls.mode !== 'disable' && host.path === undefined) await this.#secure(settings.tls, host.name);
  }

  async #secure({ mode, isDirect, sendsHostName, options }: TlsSettings, name: string): Promise<void> {
    if (!isDirect) {
      this.#raw.write(SSL_REQUEST);
      const [answer] = await once(this.#raw, 'data');
      // One byte and no more: what came with it would be taken for a part of the encrypted connection (CVE-2021-23222).
      if (answer.length !== 1) throw new PgStoreError('the server answered the request for TLS with too much', '08P01');
      if (answer[0] !== 'S'.charCodeAt(0)) {
        if (mode === 'prefer') return;
        throw new PgStoreError('the server offers no TLS, and the connection asks for it', 'TLS_NOT_OFFERED');
      }
    }
    const isNamed = sendsHostName && net.isIP(name) === 0;
    const socket = tls.connect({ socket: this.#raw, host: name, ...(isNamed ? { servername: name } : {}), ...options });
    this.#socket = socket.on('error', () => {});
    await once(socket, 'secureConnect');
    // As with libpq: a server of another protocol with the same certificate must not be taken for PostgreSQL (ALPACA).
    if (isDirect && socket.alpnProtocol !== 'postgresql') {
      throw new PgStoreError('the server does not say that it speaks PostgreSQL (ALPN)', '08P01');
    }
  }
}

/** A socket of the app's; one that comes too late is closed, since nobody will use it. */
function inTime(given: Promise<net.Socket>, deadline: number): Promise<net.Socket> {
  return deadlines.race(deadline, given, () => {
    given.then(
      (socket) => socket.on('error', () => {}).destroy(),
      () => {},
    );
    return connectTimeoutError();
  });
}

function closedError(): PgStoreError {
  return new PgStoreError('the connection was closed', 'CONNECTION_CLOSED');
}

function connectTimeoutError(): PgStoreError {
  return new PgStoreError('the host gave no connection in time', 'CONNECT_TIMEOUT');
}
