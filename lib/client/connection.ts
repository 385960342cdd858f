/** One connection: a Postgres.js client that never outlives its socket. */

import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import postgres, { type Sql } from 'postgres';
import { deadlines } from '../calls/deadline.js';
import { codeOf, PgStoreError, timeoutError } from '../errors.js';
import type { BoundQuery } from '../sql/query.js';
import { statementsOf } from './client.js';
import { type Settings, UNFIT_HOST } from './settings.js';

/** The code of a statement that was never sent, as the connection had ended before. */
export const UNSENT = 'CONNECTION_ENDED';

/**
 * Runs one statement at a time.
 *
 * Postgres.js 3.4 cannot close an unresponsive connection (its issue #1089), so the store opens the
 * socket, and puts TLS on it. After a connection broke, remains of it fail or hang the next
 * statement, or end the process (#1133, #1208); several hosts (#1174), `fetch_types` (#1192) and a
 * password to wait for add to that. So it sees one host, one open socket, and no second one.
 */
export class Connection {
  readonly query: BoundQuery = (text, values) => this.#answer(statementsOf(this.#sql).query(text, values));
  readonly script = (text: string) => this.#answer(statementsOf(this.#sql).script(text));
  readonly #raw: net.Socket;
  /** The same, or TLS over it. */
  #socket: net.Socket;
  #sql!: Sql;
  #isEnding = false;
  /** Milliseconds after which PostgreSQL ends a statement, where the store could ask it to. */
  #statementTimeout = Number.POSITIVE_INFINITY;

  /** @throws an error after which no socket is left */
  static async open(settings: Settings, host: number): Promise<Connection> {
    const inTime = <T>(answer: Promise<T>) =>
      deadlines.race(performance.now() + settings.connectTimeout, answer, connectTimeoutError);
    const pass = await inTime(passwordOf(settings));
    const socket = settings.socket ? await inTime(Promise.resolve(settings.socket(settings))) : new net.Socket();
    const connection = new Connection(socket);
    // Postgres.js does not hear of a socket that has closed before it listens to it.
    const closed = new Promise<never>((_, reject) => connection.onClosed(() => reject(closedError())));
    try {
      await inTime(Promise.race([connection.#start({ ...settings, pass }, host), closed]));
      return connection;
    } catch (error) {
      await connection.destroy();
      throw error;
    }
  }

  private constructor(socket: net.Socket) {
    this.#raw = socket.on('error', () => {});
    this.#socket = socket;
  }

  /** Whether it takes another statement. */
  get isOpen(): boolean {
    return !this.#isEnding && !this.#raw.destroyed;
  }

  /** Calls back once the socket has closed. */
  onClosed(callback: () => void): void {
    if (this.#raw.closed) callback();
    else this.#raw.once('close', callback);
  }

  /** Ends it as the protocol has it. */
  async end(): Promise<void> {
    this.#isEnding = true;
    await this.#sql.end({ timeout: 1 }).catch(() => {});
    await this.destroy();
  }

  /**
   * Drops it, with what was not delivered: once the network is there again, no statement may arrive
   * that was given up.
   */
  async destroy(): Promise<void> {
    this.#isEnding = true;
    const raw = this.#raw;
    // What Postgres.js still writes fails under TLS, some of it only after it has taken its
    // listeners off the socket.
    this.#socket.on('close', () => this.#socket.on('error', () => {}));
    // A socket that is being ended takes no reset (libuv: EINVAL), nor does one that is no TCP
    // socket.
    if (raw.connecting || raw.remoteAddress === undefined || raw.writableEnded) raw.destroy();
    else raw.resetAndDestroy();
    await new Promise<void>((resolve) => this.onClosed(resolve));
  }

  /**
   * Connects, looks at the host, and asks it to end each statement before the store gives it up.
   */
  async #start(settings: Settings, n: number): Promise<void> {
    const { path, host: hosts, port: ports, statementTimeout: limit, target_session_attrs: attributes } = settings;
    const { [n]: host = 'localhost' } = hosts;
    const { [n]: port = 5432 } = ports;
    if (!settings.socket) path ? this.#raw.connect(path) : this.#raw.connect({ host, port });
    if (this.#raw.connecting) await once(this.#raw, 'connect');
    if (settings.ssl) this.#socket = await secure(this.#raw, path ? 'localhost' : host, settings);
    let isUsed = false;
    const socket = () => {
      if (isUsed || this.#isEnding) throw new PgStoreError('the connection has ended', UNSENT);
      isUsed = true;
      return this.#socket;
    };
    this.#sql = postgres({
      ...settings,
      host: [host],
      port: [port],
      ssl: false,
      max: 1,
      socket,
      backoff: 0,
      connect_timeout: 0,
      fetch_types: false,
      target_session_attrs: undefined,
    } as object);
    const isUnfit = UNFIT_HOST[attributes ?? ''] ?? 'false';
    const looked = await this.#sql.unsafe(`select pg_catalog.pg_backend_pid()::text, (${isUnfit})::text`).values();
    const [pid, unfit] = looked[0] ?? [];
    if (unfit === 'true') throw new PgStoreError(`the host is not ${attributes}`, 'HOST_UNFIT');
    // Behind a pooler the next transaction may be another client's.
    if (pid !== String(looked.state.pid)) return;
    const limited = await this.#sql.unsafe(`select pg_catalog.set_config(name, '${limit}', false)
      from pg_catalog.pg_settings where name = 'statement_timeout' and source <> 'client'
        and (setting = '0' or setting::integer > ${limit})`);
    if (limited.length > 0) this.#statementTimeout = limit;
  }

  #answer<T>(statement: Promise<T>): Promise<T> {
    const limit = performance.now() + this.#statementTimeout;
    return statement.catch((error) => {
      throw codeOf(error) === '57014' && performance.now() >= limit ? timeoutError() : error;
    });
  }
}

/** The request for TLS of PostgreSQL's protocol; its answer is one byte. */
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);

/** As Postgres.js does it, but where the server offers none: there it goes on regardless. */
async function secure(raw: net.Socket, host: string, { ssl, sslnegotiation }: Settings): Promise<net.Socket> {
  const isDirect = sslnegotiation === 'direct';
  if (!isDirect) {
    raw.write(SSL_REQUEST);
    const [answer] = await once(raw, 'data');
    if (answer[0] !== 'S'.charCodeAt(0)) {
      if (ssl === 'prefer') return raw;
      throw new PgStoreError('the server offers no TLS, and the connection asks for it', 'TLS_NOT_OFFERED');
    }
  }
  const socket = tls.connect({
    socket: raw,
    ...(net.isIP(host) ? {} : { servername: host }),
    ...(isDirect ? { ALPNProtocols: ['postgresql'] } : {}),
    ...(typeof ssl === 'object' ? ssl : { rejectUnauthorized: !/^(require|allow|prefer)$/.test(String(ssl)) }),
  });
  // Postgres.js listens to it only a moment later.
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  return socket;
}

async function passwordOf({ pass }: Settings): Promise<string> {
  try {
    return typeof pass === 'function' ? await pass() : pass;
  } catch (error) {
    throw new PgStoreError('option `postgres.password` failed', codeOf(error) || 'NO_PASSWORD', error);
  }
}

function closedError(): PgStoreError {
  return new PgStoreError('the connection was closed', 'CONNECTION_CLOSED');
}

function connectTimeoutError(): PgStoreError {
  return new PgStoreError('the host gave no connection in time', 'CONNECT_TIMEOUT');
}
