/**
 * Runs statements on the app's node-postgres pool, each on a connection that it checks out for
 * itself.
 */

import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { deadlines } from '../calls/deadline.js';
import { isTransient } from '../calls/retry.js';
import { codeOf, timeoutError } from '../errors.js';
import type { Client } from './client.js';

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

/** Rows as arrays of text, whatever type parsers the app has set. */
const AS_TEXT = { rowMode: 'array', types: { getTypeParser: () => String } } as const;

/**
 * The statement's name is unknown to the connection, or known already: a pooler or `discard all`
 * stands behind it.
 */
const NOT_PREPARED = /^(26000|42P05)$/;

/** The app's own node-postgres pool. @param prepares whether statements are prepared */
export function poolClient(pool: NodePostgresPool, prepares: boolean): Client {
  return {
    query: (text, values, deadline) =>
      withConnection(pool, deadline, async (client) => {
        const statement = { text, values, ...AS_TEXT };
        try {
          return (await client.query(prepares ? { ...statement, name: nameOf(text) } : statement)).rows;
        } catch (error) {
          // It has not run.
          if (!prepares || !NOT_PREPARED.test(codeOf(error))) throw error;
          return (await client.query(statement)).rows;
        }
      }),
    script: (text, deadline) => withConnection(pool, deadline, (client) => client.query({ text })),
    end: async () => {},
  };
}

/**
 * A checked-out connection, destroyed where it timed out or may be broken: the pool's others stay
 * as they are.
 */
async function withConnection<T>(
  pool: NodePostgresPool,
  deadline: number,
  work: (client: NodePostgresClient) => Promise<T>,
): Promise<T> {
  const client = await checkOut(pool, deadline);
  let isBroken = false;
  try {
    return await deadlines.race(deadline, work(client), () => discardUnsent(client));
  } catch (error) {
    isBroken = !(error instanceof Error && 'severity' in error) || isTransient(error);
    throw withCode(error);
  } finally {
    client.release(isBroken);
    client.removeListener('error', ignore);
  }
}

function checkOut(pool: NodePostgresPool, deadline: number): Promise<NodePostgresClient> {
  let isLate = false;
  const connected = new Promise<NodePostgresClient>((resolve, reject) => {
    // With a callback: a promise would leave the connection without a listener for its errors for a
    // moment.
    pool.connect((error, client) => {
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

/** The failure of a connection is that of its statement, too. */
function ignore(): void {}

/**
 * Resets the socket (under TLS, the one below): once the network is back, no statement may arrive
 * that timed out.
 */
function discardUnsent(client: NodePostgresClient): Error {
  const { stream } = (client.connection ?? {}) as { stream?: Partial<Socket> & { _parent?: Partial<Socket> } };
  (stream?._parent ?? stream)?.resetAndDestroy?.();
  return timeoutError();
}

/**
 * What node-postgres says of connections that were lost, or that it did not get in time; its own
 * errors have no code.
 */
const CONNECTION_LOST = /^(Connection terminated|Client (has encountered|was closed)|timeout e|Query read timeout)/;

function withCode(error: unknown): unknown {
  if (codeOf(error) !== '') return error;
  // Neon's connections fail with the event of a WebSocket.
  const { message = 'no connection' } = (error ?? {}) as { message?: string };
  const coded = (code: string, text = message) => Object.assign(new Error(text), { code });
  if (message.includes('after calling end')) return coded('POOL_ENDED', 'the pool of option `pool` was ended');
  if (message.includes('not support SSL'))
    return coded('TLS_NOT_OFFERED', 'the server offers no TLS, the pool asks for it');
  const isLost = CONNECTION_LOST.test(message) || !(error instanceof Error);
  return coded(isLost ? 'CONNECTION_CLOSED' : 'CONNECTION_FAILED');
}

const names = new Map<string, string>();

/** One for each text, on all connections; no name that the app gives. */
function nameOf(text: string): string {
  let name = names.get(text);
  if (!name) {
    name = `express_pg_store_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`;
    names.set(text, name);
  }
  return name;
}
