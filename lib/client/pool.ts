/**
 * The store's own connections: opened when needed, never more than `maxConnections`, each replaced
 * alone when lost.
 */

import { deadlines } from '../calls/deadline.js';
import { codeOf, timeoutError } from '../errors.js';
import type { Options } from '../options.js';
import type { Query } from '../sql/query.js';
import type { Client } from './client.js';
import { Connection, UNSENT } from './connection.js';
import { parseSettings, type Settings } from './settings.js';

type Give = (connection: Connection | Promise<never>) => void;

export class ConnectionPool implements Client {
  readonly query: Query = (text, values, deadline) =>
    this.#run((connection) => connection.query(text, values), deadline);
  readonly script = (text: string, deadline: number) => this.#run((connection) => connection.script(text), deadline);
  readonly #settings: Settings;
  /** Until their sockets have closed. */
  readonly #connections = new Set<Connection>();
  #idle: Connection[] = [];
  readonly #waiting = new Set<Give>();
  #connecting = 0;
  #max: number;
  /** The host to try first: the last one that was fit. */
  #host = 0;
  #whenEnded: (() => void) | undefined;

  constructor(options: Options) {
    this.#settings = parseSettings(options);
    this.#max = this.#settings.max;
  }

  end(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenEnded = resolve;
      for (const connection of this.#idle) void connection.end();
      this.#dispatch();
    });
  }

  async #run<T>(statement: (connection: Connection) => Promise<T>, deadline: number): Promise<T> {
    try {
      return await this.#runOnce(statement, deadline);
    } catch (error) {
      // A planned end (`max_lifetime`, `idle_timeout`) came first.
      if (codeOf(error) !== UNSENT || performance.now() >= deadline) throw error;
      return this.#run(statement, deadline);
    }
  }

  async #runOnce<T>(statement: (connection: Connection) => Promise<T>, deadline: number): Promise<T> {
    const connection = await this.#acquire(deadline);
    const late = () => {
      // The idle ones as well: where packets of one connection are dropped, those of the others
      // are.
      for (const unsure of [connection, ...this.#idle]) void unsure.destroy();
      return timeoutError();
    };
    try {
      return await deadlines.race(deadline, statement(connection), late);
    } finally {
      this.#release(connection);
    }
  }

  #release(connection: Connection): void {
    if (this.#whenEnded && this.#waiting.size === 0) void connection.end();
    else this.#idle.push(connection);
    this.#dispatch();
  }

  #acquire(deadline: number): Promise<Connection> {
    let give!: Give;
    const connection = new Promise<Connection>((resolve) => {
      give = resolve;
    });
    this.#waiting.add(give);
    this.#dispatch();
    return deadlines.race(deadline, connection).finally(() => this.#waiting.delete(give));
  }

  /** Gives idle connections to those who wait, and opens others where there are too few. */
  #dispatch(): void {
    this.#idle = this.#idle.filter(({ isOpen }) => isOpen);
    for (const give of this.#waiting) {
      const connection = this.#idle.pop();
      if (!connection) break;
      this.#waiting.delete(give);
      give(connection);
    }
    const size = () => this.#connections.size + this.#connecting;
    while (this.#connecting < this.#waiting.size && size() < this.#max) void this.#connect();
    if (size() === 0) this.#whenEnded?.();
  }

  /** Opens a connection to the first of the hosts that is fit. */
  async #connect(): Promise<void> {
    this.#connecting++;
    const hosts = this.#settings.host.length;
    let failure: unknown;
    for (let tries = 0; tries < hosts; tries++) {
      const host = this.#host;
      const connection = await Connection.open(this.#settings, host).catch((error) => {
        failure = error;
      });
      if (connection) {
        this.#connecting--;
        return this.#add(connection);
      }
      if (this.#host === host) this.#host = (host + 1) % hosts;
    }
    this.#connecting--;
    // At a limit of the server or the role, those that are open serve everybody, until one of them
    // ends.
    if (this.#connections.size > 0) this.#max = this.#connections.size;
    else if (this.#connecting === 0) this.#refuse(failure);
    else return;
    this.#dispatch();
  }

  #refuse(failure: unknown): void {
    for (const give of this.#waiting) give(Promise.reject(failure));
    this.#waiting.clear();
  }

  #add(connection: Connection): void {
    this.#connections.add(connection);
    connection.onClosed(() => {
      this.#connections.delete(connection);
      this.#max = this.#settings.max;
      this.#dispatch();
    });
    this.#release(connection);
  }
}
