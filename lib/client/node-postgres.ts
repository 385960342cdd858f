/** Option `pool`: runs statements on the app's node-postgres pool, each on a connection that is checked out for it. */

import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { deadlines } from '../calls/deadline.js';
import { isTransient } from '../calls/retry.js';
import { codeOf, timeoutError } from '../errors.js';
import type { Query, Row } from '../sql/query.js';
import { cancelTime, isCancelled, requestCancel } from './cancel.js';
import type { Client } from './client.js';
import type { Host } from './transport.js';

/** The members that the store uses of a connection from a `NodePostgresPool`. */
export interface NodePostgresClient {
  query(statement: {
    text: string;
    values?: any[];
    name?: string;
    rowMode?: any;
    types?: any;
  }): Promise<{ rows: any[] }>;
  on(event: 'error', listener: (error: Error) => void): unknown;
  removeListener(event: 'error', listener: (error: Error) => void): unknown;
  release(destroy?: boolean): void;
  readonly connection?: unknown;
}

/** A `Pool` of node-postgres (`pg` 8), or a compatible one, as in `@neondatabase/serverless` and `@vercel/postgres`. */
export interface NodePostgresPool {
  connect(callback: (error: Error | undefined, client: NodePostgresClient | undefined) => void): void;
}

/** Undocumented members of node-postgres's connections, which the connections of compatible pools may lack. */
interface Internals {
  readonly processID?: unknown;
  readonly secretKey?: unknown;
  readonly host?: unknown;
  readonly port?: unknown;
  readonly ssl?: unknown;
  readonly sslNegotiation?: unknown;
  readonly connection?: { readonly stream?: Partial<Socket> & { readonly _parent?: Partial<Socket> } };
}

/** Makes rows arrays of text, whatever type parsers the app has set. */
const AS_TEXT = { rowMode: 'array', types: { getTypeParser: () => String } } as const;

/**
 * Errors about the name of a prepared statement: the backend does not know it, or knows it although node-postgres has
 * not prepared it on this connection. Both happen behind a pooler, and the first one after `discard all`.
 */
const NOT_PREPARED = /^(26000|42P05)$/;

/** The app's node-postgres pool as a client of the store. */
export class PoolClient implements Client {
  readonly #pool: NodePostgresPool;
  readonly #prepares: boolean;
  /** The names of prepared statements, by their texts. */
  readonly #names = new Map<string, string>();

  /** @param prepares whether statements are prepared by name, which not all poolers allow */
  constructor(pool: NodePostgresPool, prepares: boolean) {
    this.#pool = pool;
    this.#prepares = prepares;
  }

  readonly query: Query = (text, values, deadline) =>
    this.#withConnection(deadline, async (client): Promise<Row[]> => {
      const statement = { text, values, ...AS_TEXT };
      try {
        return (await client.query(this.#prepares ? { ...statement, name: this.#nameOf(text) } : statement)).rows;
      } catch (error) {
        // A statement that failed for its name has not run, so it can be sent again without one.
        if (!this.#prepares || !NOT_PREPARED.test(codeOf(error))) throw error;
        return (await client.query(statement)).rows;
      }
    });

  script(text: string, deadline: number): Promise<unknown> {
    return this.#withConnection(deadline, (client) => client.query({ text }));
  }

  /** Does nothing, because the pool is the app's. */
  async end(): Promise<void> {}

  /**
   * Runs `work` on a connection that is checked out for it. The connection is returned to the pool, or destroyed if
   * `work` timed out or the connection may be broken.
   */
  async #withConnection<T>(deadline: number, work: (client: NodePostgresClient) => Promise<T>): Promise<T> {
    const client = await this.#checkOut(deadline);
    let isBroken = false;
    try {
      return await answerInTime(client, work(client), deadline);
    } catch (error) {
      isBroken = !(error instanceof Error && 'severity' in error) || isTransient(error);
      throw withCode(error);
    } finally {
      client.release(isBroken);
      client.removeListener('error', ignore);
    }
  }

  /** A connection of the pool, with a listener for its errors. @throws PgStoreError `TIMEOUT` after the deadline */
  #checkOut(deadline: number): Promise<NodePostgresClient> {
    let isLate = false;
    const connected = new Promise<NodePostgresClient>((resolve, reject) => {
      // `connect` gets a callback, because with its promise the connection would have no listener for errors until the
      // next tick, and an error in between would end the process.
      this.#pool.connect((error, client) => {
        if (!client) return reject(withCode(error));
        if (isLate) return client.release();
        client.on('error', ignore);
        resolve(client);
      });
    });
    return deadlines.race(deadline, connected, () => {
      isLate = true;
      return timeoutError();
    });
  }

  /** The name of a prepared statement. It is the same on all connections, and differs from names that the app uses. */
  #nameOf(text: string): string {
    let name = this.#names.get(text);
    if (!name) {
      name = `express_pg_store_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`;
      this.#names.set(text, name);
    }
    return name;
  }
}

/** Listens to a connection's errors, so that they do not end the process. They fail its statement as well. */
function ignore(): void {}

/**
 * Settles as the answer does. If it takes too long, the statement is cancelled, or else the socket is reset, and then
 * the promise rejects with `TIMEOUT`.
 */
async function answerInTime<T>(client: NodePostgresClient, answer: Promise<T>, deadline: number): Promise<T> {
  let isLate = false;
  try {
    return await deadlines.race(cancelTime(deadline), answer, () => {
      isLate = true;
      return timeoutError();
    });
  } catch (error) {
    if (!isLate) throw error;
    if (!(await isCancelled(cancel(client, deadline), answer, deadline))) resetSocket(client);
    throw error;
  }
}

/**
 * Cancels the connection's statement, if the connection has the members that a cancel request needs.
 *
 * @returns whether the server has handled the request
 */
function cancel(client: NodePostgresClient, deadline: number): Promise<boolean> {
  const { processID, secretKey, host, port, ssl, sslNegotiation, connection } = client as Internals;
  const isKnown = typeof processID === 'number' && typeof secretKey === 'number';
  // A stream that the app has made, such as a tunnel or a WebSocket, need not lead to the server at `host`.
  const isSocket = typeof (connection?.stream?._parent ?? connection?.stream)?.remoteAddress === 'string';
  if (!isKnown || typeof host !== 'string' || typeof port !== 'number') return Promise.resolve(false);
  const path = host.startsWith('/') ? `${host}/.s.PGSQL.${port}` : undefined;
  if (!isSocket && !path) return Promise.resolve(false);
  const key = Buffer.alloc(8);
  key.writeInt32BE(processID, 0);
  key.writeInt32BE(secretKey, 4);
  const server: Host = { given: host, name: path ? 'localhost' : host, address: host, port, path };
  const isDirect = sslNegotiation === 'direct';
  const options = {
    ...(typeof ssl === 'object' ? ssl : {}),
    ...(isDirect ? { ALPNProtocols: ['postgresql'] } : {}),
  };
  return requestCancel(
    { tls: { mode: ssl ? 'require' : 'disable', isDirect, sendsHostName: true, options } },
    server,
    key,
    deadline,
  );
}

/**
 * Drops data that were not delivered: a statement that timed out must not reach the server when the network is back.
 * Under TLS, the socket below is reset.
 */
function resetSocket(client: NodePostgresClient): void {
  const { stream } = (client as Internals).connection ?? {};
  (stream?._parent ?? stream)?.resetAndDestroy?.();
}

/** Messages of node-postgres about connections that were lost or not opened in time. Its own errors have no code. */
const CONNECTION_LOST =
  /^(Connection terminated|Client (has encountered|was closed)|timeout e|Query read timeout|Received unexpected|There was an error establishing an SSL)/;

/** Gives an error of node-postgres a code, by which the store decides whether to repeat the statement. */
function withCode(error: unknown): unknown {
  if (codeOf(error) !== '') return error;
  // Neon's connections fail with a WebSocket's event instead of an error.
  const { message = 'no connection' } = (error ?? {}) as { message?: string };
  const coded = (code: string, text = message) => Object.assign(new Error(text), { code });
  if (message.includes('after calling end')) return coded('POOL_ENDED', 'the pool of option `pool` was ended');
  if (message.includes('not support SSL')) {
    return coded('TLS_NOT_OFFERED', 'the server offers no TLS, but the pool requires it');
  }
  const isLost = CONNECTION_LOST.test(message) || !(error instanceof Error);
  return coded(isLost ? 'CONNECTION_CLOSED' : 'CONNECTION_FAILED');
}
