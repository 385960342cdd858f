/** One connection of the store's own: a socket, and a Postgres.js client that runs statements on it. */

import type net from 'node:net';
import postgres, { type Sql } from 'postgres';
import { deadlines } from '../calls/deadline.js';
import { codeOf, PgStoreError, timeoutError } from '../errors.js';
import type { Query } from '../sql/query.js';
import { requestCancel } from './cancel.js';
import { MessageFilter } from './messages.js';
import { runQuery, runScript } from './postgres-js.js';
import { type Settings, UNFIT_HOST } from './settings.js';
import { type StartedSession, Startup } from './startup.js';
import { type Host, Transport } from './transport.js';

/** The code of a statement that was never sent, because the connection had ended before. */
export const UNSENT = 'CONNECTION_ENDED';

/** The server's message that it has accepted a connection. */
const AUTHENTICATION_OK = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0]);

/** How long before its deadline a statement is cancelled: a tenth of its time, at most so many milliseconds. */
const LONGEST_CANCELLATION = 500;

/**
 * Runs one statement at a time, and never outlives its socket.
 *
 * Postgres.js connects again by itself after a connection broke, and then remains of the old one fail or hang the next
 * statement, or end the process (its issues #1133, #1208 of 3.4); so do several hosts (#1174), `fetch_types` (#1192)
 * and a password to wait for. So it is given one socket, on which a session has been started already, and no second
 * one.
 */
export class Connection {
  /** Whether a statement got no answer, not even to a request to cancel it. */
  isUnresponsive = false;
  readonly #settings: Settings;
  readonly #host: Host;
  readonly #transport: Transport;
  readonly #session: StartedSession;
  readonly #sql: Sql;
  #isEnding = false;

  /** @throws an error after which no socket is left */
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
    this.#sql = this.#client();
  }

  /** Whether it takes another statement. */
  get isOpen(): boolean {
    return !this.#isEnding && this.#transport.isOpen;
  }

  /** The promise settles when the connection is free for the next statement, or has ended. */
  readonly query: Query = (text, values, deadline) => this.#answer(runQuery(this.#sql, text, values), deadline);

  /** Runs statements without values, in one transaction. */
  script(text: string, deadline: number): Promise<unknown> {
    return this.#answer(runScript(this.#sql, text), deadline);
  }

  /** Calls back once the socket has closed. */
  onClosed(callback: () => void): void {
    this.#transport.onClosed(callback);
  }

  /** Ends it as the protocol has it. */
  async end(): Promise<void> {
    this.#isEnding = true;
    await this.#sql.end({ timeout: 1 }).catch(() => {});
    await this.#transport.reset();
  }

  /** Drops it, with what was not delivered. */
  async destroy(): Promise<void> {
    this.#isEnding = true;
    await this.#transport.reset();
  }

  /**
   * Settles as the statement does, or rejects with `TIMEOUT`: then it has been cancelled, or the connection is reset.
   */
  #answer<T>(statement: Promise<T>, deadline: number): Promise<T> {
    const time = deadline - performance.now();
    const cancelTime = deadline - Math.min(time / 10, LONGEST_CANCELLATION);
    return new Promise((resolve, reject) => {
      const watch = deadlines.watch(cancelTime, () => {
        void this.#giveUp(statement, deadline).then(reject);
      });
      statement.then(
        (rows) => {
          if (deadlines.end(watch)) resolve(rows);
        },
        (error) => {
          if (!deadlines.end(watch)) return;
          // The server's own limit comes first where the event loop has stood still.
          const isLate = codeOf(error) === '57014' && performance.now() >= cancelTime;
          reject(isLate ? timeoutError() : error);
        },
      );
    });
  }

  /**
   * Cancels the statement, and waits until it has ended and no signal to the backend is under way that could strike the
   * next one. What comes back does not matter: a commit that waited for a standby ends with success when it is
   * cancelled. Where nothing comes until the deadline, the connection is reset.
   */
  async #giveUp(statement: Promise<unknown>, deadline: number): Promise<Error> {
    const cancelled = requestCancel(this.#settings, this.#host, this.#session.cancelKey, deadline);
    const ended = statement.then(
      () => true,
      () => true,
    );
    const both = Promise.all([cancelled, ended]).then(([isCancelled]) => isCancelled);
    if (!(await deadlines.race(deadline, both).catch(() => false))) {
      this.isUnresponsive = true;
      await this.destroy();
    }
    return timeoutError();
  }

  /** A Postgres.js client of one socket, whose session has been started. */
  #client(): Sql {
    let isUsed = false;
    const socket = () => {
      // Postgres.js would not hear of a socket that has closed, and its `max_lifetime` timer would keep the process up.
      if (isUsed || !this.isOpen) throw new PgStoreError('the connection has ended', UNSENT);
      isUsed = true;
      return startedSocket(this.#transport.socket, this.#session.messages);
    };
    const { client, user, database } = this.#settings;
    const options = {
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
    // Postgres.js takes what it is not told from the environment, but leaves options alone that it has completed once.
    // Without a prototype, they do not inherit what somebody has put into `Object.prototype`.
    const complete = postgres(Object.assign(Object.create(null), options)).options;
    return postgres({ ...complete, target_session_attrs: null } as object);
  }

  /**
   * Looks at the host, and sets what the store's statements count on: they repeat what another transaction has changed
   * under them by themselves, so a role's default of `serializable` would only make batches fail; and the server ends a
   * statement whose process is gone.
   */
  async #prepare(): Promise<void> {
    const { target, statementTimeout } = this.#settings;
    const isUnfit = target ? UNFIT_HOST[target] : 'false';
    // What the app has set itself stays. Behind a pooler the backend is another one: the next transaction may be
    // another client's, so nothing is set there.
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

/**
 * A socket as Postgres.js expects it: the first message that it writes starts a session. That has been done, so the
 * message goes nowhere, and what the server has answered is there to be read. It hears of fit messages alone.
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

/** Hands on whole messages, until one comes that is not fit: then the connection ends with that error. */
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
  // An EventEmitter removes a listener by that which it stands for.
  return Object.assign(onData, { listener });
}

async function passwordOf(settings: Settings, host: Host): Promise<string> {
  let password: unknown;
  try {
    password = await settings.password(host);
  } catch (error) {
    const code = codeOf(error);
    // express-session takes `ENOENT` for "no such session": where a file with a password is missing, it is an error.
    const isOfNoUse = code === '' || code === 'ENOENT';
    throw new PgStoreError('option `postgres.password` failed', isOfNoUse ? 'NO_PASSWORD' : code, error);
  }
  if (typeof password === 'string') return password;
  throw new PgStoreError(`option \`postgres.password\` gave no text, but ${typeof password}`, 'NO_PASSWORD');
}

function passwordTimeoutError(): PgStoreError {
  return new PgStoreError('option `postgres.password` gave no answer in time', 'CONNECT_TIMEOUT');
}
