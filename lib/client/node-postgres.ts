/**
 * Option `pool`: runs statements on the app's node-postgres pool, each on a connection that it checks out for itself.
 */

import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { deadlines } from '../calls/deadline.js';
import { isTransient } from '../calls/retry.js';
import { codeOf, timeoutError } from '../errors.js';
import type { Query, Row } from '../sql/query.js';
import { requestCancel } from './cancel.js';
import type { Client } from './client.js';
import type { Host } from './transport.js';

/** What the store uses of a connection that it checked out of a `NodePostgresPool`. */
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

/**
 * A `Pool` of node-postgres (`pg` 8), or one like it: of `@neondatabase/serverless`,
 * `@vercel/postgres`.
 */
export interface NodePostgresPool {
  connect(callback: (error: Error | undefined, client: NodePostgresClient | undefined) => void): void;
}

/** What node-postgres's connections have beside that, and others may not have. */
interface Internals {
  readonly processID?: unknown;
  readonly secretKey?: unknown;
  readonly host?: unknown;
  readonly port?: unknown;
  readonly ssl?: unknown;
  readonly sslNegotiation?: unknown;
  readonly connection?: { readonly stream?: Partial<Socket> & { readonly _parent?: Partial<Socket> } };
}

/** Rows as arrays of text, whatever type parsers the app has set. */
const AS_TEXT = { rowMode: 'array', types: { getTypeParser: () => String } } as const;

/**
 * The statement's name is unknown to the connection, or known already: a pooler or `discard all`
 * stands behind it.
 */
const NOT_PREPARED = /^(26000|42P05)$/;

/** How long before its deadline a statement is cancelled: a tenth of its time, at most so many milliseconds. */
const LONGEST_CANCELLATION = 500;

export class PoolClient implements Client {
  readonly #pool: NodePostgresPool;
  readonly #prepares: boolean;
  readonly #names = new Map<string, string>();

  /** @param prepares whether statements are prepared */
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
        // It has not run.
        if (!this.#prepares || !NOT_PREPARED.test(codeOf(error))) throw error;
        return (await client.query(statement)).rows;
      }
    });

  script(text: string, deadline: number): Promise<unknown> {
    return this.#withConnection(deadline, (client) => client.query({ text }));
  }

  async end(): Promise<void> {}

  /**
   * Runs `work` on a connection that is checked out for it, and destroyed where it timed out or may be broken. The
   * pool's others stay as they are.
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

  #checkOut(deadline: number): Promise<NodePostgresClient> {
    let isLate = false;
    const connected = new Promise<NodePostgresClient>((resolve, reject) => {
      // With a callback: a promise would leave the connection without a listener for its errors for a
      // moment.
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

  /** One name for each text, on all connections, and none that the app gives. */
  #nameOf(text: string): string {
    let name = this.#names.get(text);
    if (!name) {
      name = `express_pg_store_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`;
      this.#names.set(text, name);
    }
    return name;
  }
}

/** The failure of a connection is that of its statement, too. */
function ignore(): void {}

/**
 * Resolves with the answer, or rejects with `TIMEOUT`: then the statement has been cancelled, or the socket is reset.
 */
async function answerInTime<T>(client: NodePostgresClient, answer: Promise<T>, deadline: number): Promise<T> {
  const time = Math.max(0, deadline - performance.now());
  const cancelTime = deadline - Math.min(time / 10, LONGEST_CANCELLATION);
  let isLate = false;
  try {
    return await deadlines.race(cancelTime, answer, () => {
      isLate = true;
      return timeoutError();
    });
  } catch (error) {
    if (!isLate) throw error;
    const cancelled = cancel(client, deadline);
    const both = Promise.all([cancelled, answer.catch(() => {})]).then(([isCancelled]) => isCancelled);
    if (!(await deadlines.race(deadline, both).catch(() => false))) resetSocket(client);
    throw error;
  }
}

/** Cancels the connection's statement, where the connection says how. @returns whether the server has seen to it */
function cancel(client: NodePostgresClient, deadline: number): Promise<boolean> {
  const { processID, secretKey, host, port, ssl, sslNegotiation, connection } = client as Internals;
  const isKnown = typeof processID === 'number' && typeof secretKey === 'number';
  // A stream of the app's own (a tunnel, a WebSocket) leads elsewhere than to the client's host.
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

/** Under TLS, the socket below is reset. When the network is back, no statement may arrive that timed out. */
function resetSocket(client: NodePostgresClient): void {
  const { stream } = (client as Internals).connection ?? {};
  (stream?._parent ?? stream)?.resetAndDestroy?.();
}

/**
 * What node-postgres says of connections that were lost, or that it did not get in time; its own errors have no code.
 */
const CONNECTION_LOST =
  /^(Connection terminated|Client (has encountered|was closed)|timeout e|Query read timeout|Received unexpected|There was an error establishing an SSL)/;

function withCode(error: unknown): unknown {
  if (codeOf(error) !== '') return error;
  // Neon's connections fail with the event of a WebSocket.
  const { message = 'no connection' } = (error ?? {}) as { message?: string };
  const coded = (code: string, text = message) => Object.assign(new Error(text), { code });
  if (message.includes('after calling end')) return coded('POOL_ENDED', 'the pool of option `pool` was ended');
  if (message.includes('not support SSL')) {
    return coded('TLS_NOT_OFFERED', 'the server offers no TLS, the pool asks for it');
  }
  const isLost = CONNECTION_LOST.test(message) || !(error instanceof Error);
  return coded(isLost ? 'CONNECTION_CLOSED' : 'CONNECTION_FAILED');
}
