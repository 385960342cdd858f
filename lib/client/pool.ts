/**
 * The store's own connections: opened when they are needed, at most `maxConnections`, each replaced alone when it is
 * lost.
 */

import { type Deadline, deadlines } from '../calls/deadline.js';
import { needsNewConnection } from '../calls/retry.js';
import { codeOf, timeoutError } from '../errors.js';
import type { Options } from '../options.js';
import type { Query } from '../sql/query.js';
import type { Client } from './client.js';
import { Connection, UNSENT } from './connection.js';
import { parseSettings, type Settings } from './settings.js';

/** A statement on its way through the pool. */
interface PooledStatement<T = any> {
  /** On the clock of `performance.now()`, in milliseconds. */
  readonly deadline: number;
  send(connection: Connection): Promise<T>;
  resolve(result: T): void;
  reject(error: unknown): void;
}

interface WaitingStatement {
  readonly statement: PooledStatement;
  readonly watch: Deadline;
}

/** Milliseconds until the store tries again to open a connection, where it has others and the last attempt failed. */
const PROBE_INTERVAL = 1000;

export class ConnectionPool implements Client {
  readonly #settings: Settings;
  /** Connections, until their sockets have closed. */
  readonly #connections = new Set<Connection>();
  /** The one that was used last comes first, so that those which are not needed can end (`idle_timeout`). */
  readonly #idle: Connection[] = [];
  /** In the order of their calls. */
  readonly #waiting: WaitingStatement[] = [];
  #connecting = 0;
  /**
   * When the next connection may be tried, on the clock of `performance.now()`, after an attempt failed while others
   * are open: at a limit of the server or the role, those serve everybody.
   */
  #probeTime: number | undefined;
  /** The place of the host to try first: the last one that was fit. */
  #hostIndex = 0;
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
        // The connection had a planned end (`max_lifetime`, `idle_timeout`), which came first.
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
    // Where the packets of one connection are dropped, those of the idle ones are, too.
    if (connection.isUnresponsive) for (const idle of this.#idle.splice(0)) void idle.destroy();
    this.#release(connection);
  }

  /** Opens connections where too few are open or being opened for the statements that wait. */
  #openForWaiting(): void {
    while (this.#connecting < this.#waiting.length && this.#mayOpen()) void this.#open();
  }

  #mayOpen(): boolean {
    if (this.#connections.size + this.#connecting >= this.#settings.maxConnections) return false;
    if (this.#probeTime === undefined || this.#connections.size === 0) return true;
    return this.#connecting === 0 && performance.now() >= this.#probeTime;
  }

  /** Opens a connection to the first of the hosts that is fit. */
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
      // Unless another attempt has found a fit host meanwhile.
      if (this.#hostIndex === index) this.#hostIndex = (index + 1) % hosts.length;
    }
    this.#connecting--;
    this.#afterFailure(failure);
  }

  #afterFailure(failure: unknown): void {
    this.#probeTime = performance.now() + PROBE_INTERVAL;
    // Those that are open serve the statements that wait, or those that are being opened will.
    if (this.#connections.size === 0 && this.#connecting === 0) {
      for (let next = this.#takeWaiting(); next; next = this.#takeWaiting()) next.reject(failure);
    }
    this.#endIfEmpty();
  }

  #add(connection: Connection): void {
    this.#connections.add(connection);
    connection.onClosed(() => {
      this.#connections.delete(connection);
      // There is room for another one.
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
