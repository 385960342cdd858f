/** Opens a socket to a server, with TLS if the settings ask for it. */

import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import { deadlines } from '../calls/deadline.js';
import { PgStoreError } from '../errors.js';
import type { TlsSettings } from './tls-settings.js';

/** A server to which a connection may be opened. */
export interface Host {
  /** The host as it was given: a name, an address, or the folder of a Unix socket. */
  readonly given: string;
  /** The name that the server's certificate must contain. */
  readonly name: string;
  /** The name or address to connect to; parameter `hostaddr` may give another address than the name's. */
  readonly address: string;
  readonly port: number;
  /** The file of the Unix socket, if it is one. */
  readonly path: string | undefined;
}

/** The settings of a socket. They are few, so that those of a node-postgres pool can be given in the same form. */
export interface TransportSettings {
  readonly tls: TlsSettings;
  /** Opens the socket instead of the store (option `postgres.socket`). */
  readonly socket?: ((settings: object) => net.Socket | Promise<net.Socket>) | undefined;
  /** Milliseconds until the first TCP keep-alive packet; 0 or `undefined`: none is sent. */
  readonly keepAlive?: number;
}

/** The message SSLRequest of PostgreSQL's protocol, which the server answers with a single byte. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);

/**
 * A socket to a server. The store opens its sockets itself, because Postgres.js 3.4 cannot close a connection whose
 * other end does not answer (its issue #1089), and begins TLS even if the server has answered that it offers none.
 */
export class Transport {
  /** The TCP or Unix socket. */
  readonly #raw: net.Socket;
  /** The socket to read and write: `#raw`, or the TLS socket over it. */
  #socket: net.Socket;

  private constructor(raw: net.Socket) {
    // Those who wait for the socket get its errors by other means. Without a listener, an error at a moment when nobody
    // waits would end the process.
    this.#raw = raw.on('error', () => {});
    this.#socket = raw;
  }

  /**
   * Connects, and starts TLS if the settings ask for it.
   *
   * @param deadline on the clock of `performance.now()`, in milliseconds
   * @throws an error, after the socket has been closed
   */
  static async open(settings: TransportSettings, host: Host, deadline: number): Promise<Transport> {
    const given = settings.socket?.({ ...settings, host: [host.name], port: [host.port], path: host.path ?? false });
    const raw = given ? await inTime(Promise.resolve(given), deadline) : new net.Socket();
    const transport = new Transport(raw);
    if (!given) {
      // The object has no prototype, because a `path` in a polluted `Object.prototype` would lead to another server.
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
   * Resolves as `work` does. If `work` fails, the socket closes or the deadline comes, it resets the socket and
   * rejects.
   */
  async within<T>(deadline: number, work: Promise<T>): Promise<T> {
    // In Bun a socket's error and its end come at the same time, so the handler of the end has to look for the error.
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

  /**
   * Closes the socket, and drops data that were not delivered: a statement that was given up must not reach the server
   * when the network is back.
   */
  async reset(): Promise<void> {
    const raw = this.#raw;
    // Data that are still being written under TLS fail, perhaps after Postgres.js has removed its listeners.
    this.#socket.on('close', () => this.#socket.on('error', () => {}));
    // Only a TCP socket can be reset, and not while it is being ended (libuv fails with EINVAL).
    if (raw.connecting || raw.remoteAddress === undefined || raw.writableEnded) raw.destroy();
    else raw.resetAndDestroy();
    await new Promise<void>((resolve) => this.onClosed(resolve));
  }

  async #start(settings: TransportSettings, host: Host): Promise<void> {
    if (this.#raw.connecting) await once(this.#raw, 'connect');
    // A socket that the app has opened may be an object without this method.
    if (settings.keepAlive) this.#raw.setKeepAlive?.(true, settings.keepAlive);
    // As with libpq, a Unix socket is used without TLS, because PostgreSQL does not offer it there.
    if (settings.tls.mode !== 'disable' && host.path === undefined) await this.#secure(settings.tls, host.name);
  }

  async #secure({ mode, isDirect, sendsHostName, options }: TlsSettings, name: string): Promise<void> {
    if (!isDirect) {
      this.#raw.write(SSL_REQUEST);
      const [answer] = await once(this.#raw, 'data');
      // More than one byte is refused: a man in the middle could have sent the rest, and it would be taken for data of
      // the encrypted connection (CVE-2021-23222).
      if (answer.length !== 1) {
        throw new PgStoreError('the server answered the request for TLS with more than one byte', '08P01');
      }
      if (answer[0] !== 'S'.charCodeAt(0)) {
        if (mode === 'prefer') return;
        throw new PgStoreError('the server offers no TLS, but the connection requires it', 'TLS_NOT_OFFERED');
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
  return new PgStoreError('the host did not accept a connection in time', 'CONNECT_TIMEOUT');
}
