/**
 * The pool of the store's own connections. They are opened when statements need them, at most `maxConnections`, and a
 * connection that is lost is replaced without the others.
 */

import { type Deadline, deadlines } from '../calls/deadline.js';
import { needsNewConnection } from '../calls/retry.js';
import { codeOf, timeoutError } from '../errors.js';
import type { Options } from '../options.js';
import type { Query } from '../sql/query.js';
import type { Client } from './client.js';
import { Connection, UNSENT } from './connection.js';
import { parseSettings, type Settings } from './settings.js';

/** A statement that needs a connection, or has one. */
interface PooledStatement {
  /** In milliseconds on the clock of `performance.now()`. */
  readonly deadline: number;
  send(connection: Connection): Promise<unknown>;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

interface WaitingStatement {
  readonly statement: PooledStatement;
  readonly watch: Deadline;
}

/** Milliseconds before the next attempt to open a connection, if the last attempt failed and others are open. */
const PROBE_INTERVAL_MS = 1000;

export class ConnectionPool implements Client {
  readonly #settings: Settings;
  /** All connections whose sockets have not closed yet. */
  readonly #connections = new Set<Connection>();
  /**
   * Connections without a statement. The one that was used last is taken first, so that the others stay unused and
   * `idle_timeout` can end them.
   */
  readonly #idle: Connection[] = [];
  /** Statements that wait for a connection, the oldest first. */
  readonly #waiting: WaitingStatement[] = [];
  /** How many connections are being opened. */
  #connecting = 0;
  /**
   * The earliest time of the next attempt to open a connection, in milliseconds on the clock of `performance.now()`; it
   * is set after an attempt failed. At a connection limit of the server or the role, the open connections serve all
   * statements until then.
   */
  #probeTime: number | undefined;
  /** The index of the host to try first: the last one that was fit, or the one after the last that was not. */
  #hostIndex = 0;
  /** Resolves the promise of `end`; it is set once `end` was called. */
  #whenEnded: (() => void) | undefined;

  /** @throws TypeError that names the option, the parameter or the environment variable that cannot be honoured */
  constructor(options: Options) {
    this.#settings = parseSettings(options);
  }

  readonly query: Query = (text, values, deadline) =>
    this.#run(deadline, (connection) => connection.query(text, values, deadline));

  script(text: string, deadline: number): Promise<unknown> {
    return this.#run(deadline, (connection) => connection.script(text, deadline));
  }

  end(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenEnded = resolve;
      for (const connection of this.#idle.splice(0)) void connection.end();
      this.#endIfEmpty();
    });
  }

  #run<T>(deadline: number, send: (connection: Connection) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => this.#start({ deadline, send, resolve, reject }));
  }

  #start(statement: PooledStatement): void {
    const connection = this.#takeIdle();
    if (connection) this.#send(statement, connection);
    else this.#wait(statement);
  }

  #takeIdle(): Connection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (!connection || connection.isOpen) return connection;
    }
  }

  #send(statement: PooledStatement, connection: Connection): void {
    if (statement.deadline <= performance.now()) {
      statement.reject(timeoutError());
      this.#release(connection);
      return;
    }
    statement.send(connection).then(
      (result) => {
        this.#release(connection);
        statement.resolve(result);
      },
      (error) => {
        this.#releaseAfter(error, connection);
        // The connection reached its planned end (`max_lifetime`, `idle_timeout`) before it could send the statement,
        // so the statement gets another one.
        if (codeOf(error) === UNSENT && performance.now() < statement.deadline) this.#start(statement);
        else statement.reject(error);
      },
    );
  }

  #wait(statement: PooledStatement): void {
    const watch = deadlines.watch(statement.deadline, () => {
      this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
      statement.reject(timeoutError());
    });
    const waiting = { statement, watch };
    this.#waiting.push(waiting);
    this.#openForWaiting();
  }

  /** Gives a connection that is free to the next statement, if one waits. */
  #release(connection: Connection): void {
    if (!connection.isOpen) {
      this.#openForWaiting();
      return;
    }
    const next = this.#takeWaiting();
    if (next) {
      this.#send(next, connection);
      this.#openForWaiting();
    } else if (this.#whenEnded) void connection.end();
    else this.#idle.push(connection);
  }

  #takeWaiting(): PooledStatement | undefined {
    const next = this.#waiting.shift();
    if (next) deadlines.end(next.watch);
    return next?.statement;
  }

  #releaseAfter(error: unknown, connection: Connection): void {
    if (needsNewConnection(error)) void connection.destroy();
    // If the network drops the packets of one connection, it drops those of the idle connections as well.
    if (connection.isUnresponsive) for (const idle of this.#idle.splice(0)) void idle.destroy();
    this.#release(connection);
  }

  /** Opens a connection for each statement that waits, as far as the limit allows and none is being opened for it. */
  #openForWaiting(): void {
    while (this.#connecting < this.#waiting.length && this.#mayOpen()) void this.#open();
  }

  #mayOpen(): boolean {
    if (this.#connections.size + this.#connecting >= this.#settings.maxConnections) return false;
    if (this.#probeTime === undefined || this.#connections.size === 0) return true;
    return this.#connecting === 0 && performance.now() >= this.#probeTime;
  }

  /** Opens a connection to the first fit host, beginning with the one that was fit last. */
  async #open(): Promise<void> {
    this.#connecting++;
    const { hosts } = this.#settings;
    let failure: unknown;
    for (let tries = 0; tries < hosts.length; tries++) {
      const index = this.#hostIndex;
      const host = hosts[index];
      const connection =
        host &&
        (await Connection.open(this.#settings, host).catch((error) => {
          failure = error;
        }));
      if (connection) {
        this.#connecting--;
        this.#probeTime = undefined;
        return this.#add(connection);
      }
      // If another attempt has found a fit host meanwhile, that host stays the first one.
      if (this.#hostIndex === index) this.#hostIndex = (index + 1) % hosts.length;
    }
    this.#connecting--;
    this.#afterFailure(failure);
  }

  #afterFailure(failure: unknown): void {
    this.#probeTime = performance.now() + PROBE_INTERVAL_MS;
    // While other connections are open or being opened, the statements that wait can still be served by these.
    if (this.#connections.size === 0 && this.#connecting === 0) {
      for (let next = this.#takeWaiting(); next; next = this.#takeWaiting()) next.reject(failure);
    }
    this.#endIfEmpty();
  }

  #add(connection: Connection): void {
    this.#connections.add(connection);
    connection.onClosed(() => {
      this.#connections.delete(connection);
      // One connection fewer is open, so a connection limit of the server may allow another one now.
      this.#probeTime = undefined;
      this.#openForWaiting();
      this.#endIfEmpty();
    });
    this.#release(connection);
  }

  #endIfEmpty(): void {
    if (this.#whenEnded && this.#connections.size === 0 && this.#connecting === 0) this.#whenEnded();
  }
}
