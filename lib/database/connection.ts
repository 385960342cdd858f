/** One connection: a Postgres.js client that never outlives its socket. */

import net from 'node:net';
import { setImmediate } from 'node:timers/promises';
import postgres, { type Sql } from 'postgres';
import { codeOf, PgStoreError, timeoutError } from '../errors.js';
import { type Client, statementsOf, within } from './client.js';
import type { Query } from './query.js';
import { type Settings, UNFIT_HOST } from './settings.js';

/** The code of a statement that was never sent, as the connection had ended before. */
export const UNSENT = 'CONNECTION_ENDED';

/**
 * Runs one statement at a time.
 *
 * Postgres.js 3.4 cannot close an unresponsive connection (its issue #1089), so the
 * store opens the socket. After a connection broke, remains of it fail or hang the next statement,
 * or end the process (#1133, #1208); several hosts (#1174), `fetch_types` (#1192) and a password to
 * wait for add to that. So it sees one host, one socket, and no second one.
 */
export class Connection {
  readonly query: Query = (text, values) => this.#answer(this.#statements.query(text, values));
  readonly script = (text: string) => this.#answer(this.#statements.script(text));
  readonly #sql: Sql;
  readonly #statements: Pick<Client, 'query' | 'script'>;
  readonly #socket: net.Socket;
  #isEnding = false;
  /** Milliseconds after which PostgreSQL ends a statement, where the store could ask it to. */
  #statementTimeout = Number.POSITIVE_INFINITY;
  #refusesTls = false;

  /** @throws an error after which no socket is left */
  static async open(settings: Settings, host: number): Promise<Connection> {
    const inTime = <T>(answer: Promise<T>) => within(settings.connectTimeout, answer, connectTimeoutError);
    const pass = await inTime(passwordOf(settings));
    const socket = settings.socket ? await inTime(Promise.resolve(settings.socket(settings))) : new net.Socket();
    const connection = new Connection({ ...settings, pass }, host, socket);
    try {
      await inTime(connection.#start(settings));
      return connection;
    } catch (error) {
      await connection.destroy();
      if (!connection.#refusesTls) throw error;
      throw new PgStoreError('the server offers no TLS, and the connection asks for it', 'TLS_NOT_OFFERED', error);
    }
  }

  private constructor(settings: Settings, host: number, socket: net.Socket) {
    this.#socket = socket;
    const { path, ssl } = settings;
    const address = { host: settings.host[host] ?? 'localhost', port: settings.port[host] ?? 5432 };
    let isUsed = false;
    const use = async () => {
      if (isUsed) throw new PgStoreError('the connection has ended', UNSENT);
      isUsed = true;
      // Postgres.js has to have its listeners on the socket before that may fail.
      await undefined;
      if (settings.socket) return socket;
      return path ? socket.connect(path) : Object.assign(socket.connect(address), address);
    };
    // The server's answer to the request for TLS is one byte. Postgres.js takes any for yes.
    if (ssl && ssl !== 'prefer') socket.once('data', ([answer]) => (this.#refusesTls = answer === 'N'.charCodeAt(0)));
    this.#sql = postgres({
      ...settings,
      host: [address.host],
      port: [address.port],
      max: 1,
      socket: use,
      backoff: 0,
      connect_timeout: 0,
      fetch_types: false,
      target_session_attrs: undefined,
    } as object);
    this.#statements = statementsOf(this.#sql);
  }

  /** Whether it takes another statement. */
  get isOpen(): boolean {
    return !this.#isEnding && !this.#socket.destroyed;
  }

  /** Calls back once the socket has closed. */
  onClosed(callback: () => void): void {
    if (this.#socket.closed) callback();
    else this.#socket.once('close', callback);
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
    // Next in the event loop, Postgres.js hears of it. A write in between would throw, under TLS.
    await setImmediate();
    const socket = this.#socket;
    // A socket that is being ended takes no reset (libuv: EINVAL), nor does one that is no TCP
    // socket.
    if (socket.connecting || socket.remoteAddress === undefined || socket.writableEnded) socket.destroy();
    else socket.resetAndDestroy();
    await new Promise<void>((resolve) => this.onClosed(resolve));
  }

  /**
   * Connects, looks at the host, and asks it to end each statement before the store gives it up.
   */
  async #start({ target_session_attrs: attributes, statementTimeout: limit }: Settings): Promise<void> {
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

async function passwordOf({ pass }: Settings): Promise<string> {
  try {
    return typeof pass === 'function' ? await pass() : pass;
  } catch (error) {
    throw new PgStoreError('option `postgres.password` failed', codeOf(error) || 'NO_PASSWORD', error);
  }
}

function connectTimeoutError(): PgStoreError {
  return new PgStoreError('the host gave no connection in time', 'CONNECT_TIMEOUT');
}
