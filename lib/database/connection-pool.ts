/** The store's own connections: opened when needed, never more than `maxConnections`, each replaced alone when lost. */

import { timeoutError } from '../errors.js';
import type { Options } from '../options.js';
import { type Client, within } from './client.js';
import { Connection, parseSettings, type Seconds, type Settings } from './connection.js';
import type { Query } from './query.js';

interface Waiting {
  resolve(connection: Connection): void;
  reject(error: unknown): void;
}

/** Milliseconds before another connection is tried while others work: at a limit of the server or the role. */
const PAUSE_MS = 1000;

export class ConnectionPool implements Client {
  readonly query: Query = (text, values) => this.#run((connection) => connection.query(text, values));
  readonly script = (text: string) => this.#run((connection) => connection.script(text));
  readonly #settings: Settings;
  readonly #timeout: number;
  /** Until their sockets have closed. */
  readonly #connections = new Set<Connection>();
  #idle: Connection[] = [];
  readonly #waiting = new Set<Waiting>();
  #connecting = 0;
  /** The host to try first: the last one that was fit. */
  #host = 0;
  #pause: NodeJS.Timeout | undefined;
  #whenEnded: (() => void) | undefined;

  constructor(options: Options) {
    this.#settings = parseSettings(options);
    this.#timeout = options.timeout;
  }

  async end(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#whenEnded = resolve;
      for (const connection of this.#idle) void connection.end();
      this.#dispatch();
    });
    clearTimeout(this.#pause);
  }

  async #run<T>(statement: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await this.#acquire();
    try {
      return await within(this.#timeout, statement(connection), () => this.#dropUnresponsive(connection));
    } finally {
      this.#release(connection);
    }
  }

  #acquire(): Promise<Connection> {
    let waiting!: Waiting;
    const connection = new Promise<Connection>((resolve, reject) => {
      waiting = { resolve, reject };
    });
    this.#waiting.add(waiting);
    this.#dispatch();
    return within(this.#timeout, connection, () => {
      this.#waiting.delete(waiting);
      return timeoutError();
    });
  }

  #release(connection: Connection): void {
    if (!connection.isOpen) return;
    if (connection.isRetired || (this.#whenEnded && this.#waiting.size === 0)) return void connection.end();
    connection.idleTimer = timer(this.#settings.idle_timeout, () => this.#retire(connection));
    this.#idle.push(connection);
    this.#dispatch();
  }

  /** Gives idle connections to those who wait, and opens others where there are too few. */
  #dispatch(): void {
    this.#idle = this.#idle.filter(({ isOpen }) => isOpen);
    for (const waiting of this.#waiting) {
      const connection = this.#idle.pop();
      if (!connection) break;
      clearTimeout(connection.idleTimer);
      this.#waiting.delete(waiting);
      waiting.resolve(connection);
    }
    while (this.#connecting < this.#waiting.size && this.#canConnect()) void this.#connect();
    if (this.#connections.size + this.#connecting === 0) this.#whenEnded?.();
  }

  /** Where a connection cannot be opened, those that are open serve everybody, and after a pause another is tried. */
  #canConnect(): boolean {
    if (this.#connections.size + this.#connecting >= this.#settings.max) return false;
    return !this.#pause || this.#openConnections() === 0;
  }

  #openConnections(): number {
    return [...this.#connections].filter(({ isOpen }) => isOpen).length;
  }

  /** Opens a connection to the first of the hosts that is fit. */
  async #connect(): Promise<void> {
    this.#connecting++;
    let failure: unknown;
    for (let tries = this.#settings.host.length; tries > 0; tries--) {
      const host = this.#host;
      try {
        const connection = await Connection.open(this.#settings, host);
        this.#connecting--;
        return this.#add(connection);
      } catch (error) {
        failure = error;
        if (this.#host === host) this.#host = (host + 1) % this.#settings.host.length;
      }
    }
    this.#connecting--;
    if (this.#openConnections() > 0) {
      this.#pause ??= setTimeout(() => {
        this.#pause = undefined;
        this.#dispatch();
      }, PAUSE_MS).unref();
    } else {
      const [first] = this.#waiting;
      if (first) this.#waiting.delete(first);
      first?.reject(failure);
    }
    this.#dispatch();
  }

  #add(connection: Connection): void {
    const life = timer(this.#settings.max_lifetime, () => this.#retire(connection));
    this.#connections.add(connection);
    connection.onClosed(() => {
      clearTimeout(life);
      clearTimeout(connection.idleTimer);
      this.#connections.delete(connection);
      this.#dispatch();
    });
    this.#release(connection);
  }

  /** A planned end, after what it still does. */
  #retire(connection: Connection): void {
    connection.isRetired = true;
    if (this.#idle.includes(connection)) void connection.end();
  }

  /** The idle ones with it: where one packet is dropped, others are. */
  #dropUnresponsive(connection: Connection): Error {
    for (const unsure of [connection, ...this.#idle]) void unsure.destroy();
    return timeoutError();
  }
}

function timer(seconds: Seconds, callback: () => void): NodeJS.Timeout | undefined {
  const value = typeof seconds === 'function' ? seconds() : seconds;
  return value ? setTimeout(callback, Math.min(value * 1000, 2 ** 31 - 1)).unref() : undefined;
}
