/** One of the store's own connections: a socket, and a Postgres.js client that runs statements on it. */

import type net from 'node:net';
import postgres, { type Sql } from 'postgres';
import { deadlines } from '../calls/deadline.js';
import { codeOf, PgStoreError, timeoutError } from '../errors.js';
import type { Query } from '../sql/query.js';
import { cancelTime, isCancelled, requestCancel } from './cancel.js';
import { MessageFilter } from './messages.js';
import { runQuery, runScript } from './postgres-js.js';
import { type Settings, UNFIT_HOST } from './settings.js';
import { type StartedSession, Startup } from './startup.js';
import { type Host, Transport } from './transport.js';

/** The error code of a statement that was never sent, because the connection had ended before. */
export const UNSENT = 'CONNECTION_ENDED';

/** The server's message AuthenticationOk: it has accepted a connection. */
const AUTHENTICATION_OK = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0]);

/**
 * Runs one statement at a time, and ends with its socket.
 *
 * When a connection breaks, Postgres.js 3.4 opens another one by itself, and then the state of the old one can make the
 * next statement fail or hang, or end the process (its issues #1133 and #1208). The same happens with several hosts
 * (#1174), with `fetch_types` (#1192) and with a password that is a promise. Therefore Postgres.js gets a single
 * socket, on which the store has authenticated already, and never a second one.
 */
export class Connection {
  /** Whether a statement got no answer, although it was cancelled. */
  isUnresponsive = false;
  readonly #settings: Settings;
  readonly #host: Host;
  readonly #transport: Transport;
  readonly #session: StartedSession;
  readonly #sql: Sql;
  #isEnding = false;

  /** Opens a connection to a host. @throws an error, after the socket has been closed */
  static async open(settings: Settings, host: Host): Promise<Connection> {
    const deadline = performance.now() + settings.connectTimeout;
    const password = await deadlines.race(deadline, passwordOf(settings, host), passwordTimeoutError);
    const transport = await Transport.open(settings, host, deadline);
    const session = await transport.within(deadline, new Startup(transport.socket, settings, password).run());
    const connection = new Connection(settings, host, transport, session);
    await transport.within(deadline, connection.#prepare());
    return connection;
  }

  private constructor(settings: Settings, host: Host, transport: Transport, session: StartedSession) {
    this.#settings = settings;
    this.#host = host;
    this.#transport = transport;
    this.#session = session;
    this.#sql = this.#newClient();
  }

  /** Whether another statement can be run. */
  get isOpen(): boolean {
    return !this.#isEnding && this.#transport.isOpen;
  }

  /** Runs a statement. The promise settles when the connection is free for the next one, or has ended. */
  readonly query: Query = (text, values, deadline) => this.#answer(runQuery(this.#sql, text, values), deadline);

  /** Runs several statements without parameters, in one transaction. */
  script(text: string, deadline: number): Promise<unknown> {
    return this.#answer(runScript(this.#sql, text), deadline);
  }

  /** Calls back once the socket has closed. */
  onClosed(callback: () => void): void {
    this.#transport.onClosed(callback);
  }

  /** Ends the connection with the protocol's message Terminate. */
  async end(): Promise<void> {
    this.#isEnding = true;
    await this.#sql.end({ timeout: 1 }).catch(() => {});
    await this.#transport.reset();
  }

  /** Ends the connection without a message; data that were not delivered are dropped. */
  async destroy(): Promise<void> {
    this.#isEnding = true;
    await this.#transport.reset();
  }

  /**
   * Settles as the statement does. If it takes too long, the statement is cancelled, or else the connection is reset,
   * and then the promise rejects with `TIMEOUT`.
   */
  #answer<T>(statement: Promise<T>, deadline: number): Promise<T> {
    const whenCancelled = cancelTime(deadline);
    return new Promise((resolve, reject) => {
      const watch = deadlines.watch(whenCancelled, () => {
        void this.#giveUp(statement, deadline).then(reject);
      });
      statement.then(
        (rows) => {
          if (deadlines.end(watch)) resolve(rows);
        },
        (error) => {
          if (!deadlines.end(watch)) return;
          // If the event loop was blocked until now, the server's `statement_timeout` has ended the statement (57014,
          // query_canceled) before the store could cancel it.
          const isLate = codeOf(error) === '57014' && performance.now() >= whenCancelled;
          reject(isLate ? timeoutError() : error);
        },
      );
    });
  }

  /**
   * Cancels the statement. If the server has not handled that before the deadline, the connection is reset.
   *
   * @returns the error with which the call fails
   */
  async #giveUp(statement: Promise<unknown>, deadline: number): Promise<Error> {
    const request = requestCancel(this.#settings, this.#host, this.#session.cancelKey, deadline);
    if (!(await isCancelled(request, statement, deadline))) {
      this.isUnresponsive = true;
      await this.destroy();
    }
    return timeoutError();
  }

  /** A Postgres.js client that uses this connection's socket and no other. */
  #newClient(): Sql {
    let isUsed = false;
    const socket = () => {
      // With a socket that has closed already, Postgres.js would wait for events that never come, and its timer for
      // `max_lifetime` would keep the process alive.
      if (isUsed || !this.isOpen) throw new PgStoreError('the connection has ended', UNSENT);
      isUsed = true;
      return startedSocket(this.#transport.socket, this.#session.messages);
    };
    const { client, user, database } = this.#settings;
    const options = {
      // The defaults of Postgres.js: for an option that it is not given, it also looks into a polluted
      // `Object.prototype`.
      max_lifetime: defaultLifetime,
      max_pipeline: 100,
      debug: false,
      publications: 'alltables',
      sslnegotiation: null,
      ...client,
      user,
      database,
      host: ['localhost'],
      port: [0],
      ssl: false,
      max: 1,
      socket,
      backoff: 0,
      keep_alive: 0,
      connect_timeout: 0,
      fetch_types: false,
      target_session_attrs: 'read-write',
    };
    // Postgres.js completes options from environment variables, and an unset `target_session_attrs` from
    // PGTARGETSESSIONATTRS, for which it would send statements of its own. It does not complete options twice, so there
    // `target_session_attrs` can be unset. Without a prototype, the options do not inherit from a polluted
    // `Object.prototype`.
    const complete = postgres(Object.assign(Object.create(null), options)).options;
    return postgres({ ...complete, target_session_attrs: null } as object);
  }

  /**
   * Checks whether the host is fit (`target_session_attrs`), and sets two parameters of the session:
   *
   * - `default_transaction_isolation` to `read committed`. The store's statements handle concurrent changes themselves,
   *   so with a role's default of `serializable` batches would fail for no gain.
   * - `statement_timeout` to option `timeout`, unless it is shorter, so that the server ends a statement whose process
   *   has died.
   */
  async #prepare(): Promise<void> {
    const { target, statementTimeout } = this.#settings;
    const isUnfit = target ? UNFIT_HOST[target] : 'false';
    // A parameter that the app has set in its connection settings stays (source `client`). Behind a pooler the process
    // ID is not the backend's: the backend serves other clients too, so nothing is set there.
    const [row] = await runQuery(
      this.#sql,
      `select (${isUnfit})::text, (
        select pg_catalog.count(case name
          when 'default_transaction_isolation' then pg_catalog.set_config(name, 'read committed', false)
          when 'statement_timeout' then case
            when setting = '0' or setting::bigint > ${statementTimeout}
            then pg_catalog.set_config(name, '${statementTimeout}', false)
          end
        end)
        from pg_catalog.pg_settings
        where pg_catalog.pg_backend_pid()::text = '${this.#session.pid}' and source <> 'client'
      )::text`,
      [],
    );
    if (row?.[0] === 'true') throw new PgStoreError(`the host is not ${target}`, 'HOST_UNFIT');
  }
}

/** After how many seconds a connection is replaced: 30 to 60 minutes, as by default in Postgres.js. */
function defaultLifetime(): number {
  return 60 * (30 + 30 * Math.random());
}

/**
 * Lets Postgres.js use a socket on which the store has started a session. The first message that Postgres.js writes
 * would start one, so that message is dropped, and Postgres.js reads the messages with which the server has answered
 * the store. It reads only messages that keep to the protocol.
 */
function startedSocket(socket: net.Socket, messages: Buffer): net.Socket {
  const { write } = socket;
  const on = socket.on as (event: string, listener: (...values: any[]) => void) => net.Socket;
  socket.on = (event: string, listener: (...values: any[]) => void) =>
    on.call(socket, event, event === 'data' ? filtered(socket, listener) : listener);
  socket.write = () => {
    socket.write = write;
    socket.unshift(Buffer.concat([AUTHENTICATION_OK, messages]));
    socket.resume();
    return true;
  };
  return socket;
}

/** A listener that hands on complete messages. One that does not keep to the protocol ends the connection. */
function filtered(socket: net.Socket, listener: (messages: Buffer) => void): (chunk: Buffer) => void {
  const filter = new MessageFilter();
  const onData = (chunk: Buffer) => {
    let messages: Buffer | undefined;
    try {
      messages = filter.take(chunk);
    } catch (error) {
      socket.destroy(error as Error);
    }
    if (messages) listener(messages);
  };
  // Postgres.js removes its own listener, and an EventEmitter finds `onData` by this property, as with `once`.
  return Object.assign(onData, { listener });
}

/** The password for a host, from a text or a function of the app. @throws PgStoreError if the function fails */
async function passwordOf(settings: Settings, host: Host): Promise<string> {
  let password: unknown;
  try {
    password = await settings.password(host);
  } catch (error) {
    const code = codeOf(error);
    // express-session takes `ENOENT` for "no such session". Here it means that a file with the password is missing.
    const needsOtherCode = code === '' || code === 'ENOENT';
    throw new PgStoreError('option `postgres.password` failed', needsOtherCode ? 'NO_PASSWORD' : code, error);
  }
  if (typeof password === 'string') return password;
  throw new PgStoreError(`option \`postgres.password\` returned ${typeof password}, not a string`, 'NO_PASSWORD');
}

function passwordTimeoutError(): PgStoreError {
  return new PgStoreError('option `postgres.password` gave no answer in time', 'CONNECT_TIMEOUT');
}
