/** The Postgres.js client that runs the statements, and how the store replaces an unresponsive one. */

import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import postgres, { type Sql } from 'postgres';
import { codeOf, PgStoreError } from '../errors.js';
import type { Options } from '../options.js';
import type { Query, Row } from './query.js';

/** What the store needs of a client. */
export interface Client {
  readonly query: Query;
  /** Runs a script of statements without values, in one transaction. */
  readonly script: (text: string) => Promise<unknown>;
  /**
   * A client to use from now on; ends this one, after what it still does or at once. The app's own client is only returned.
   */
  replace(when: 'graceful' | 'immediate'): Client;
  /** Ends the client, if the store made it, after what it still does. */
  end(): Promise<void>;
}

/** @param lost is told of a client that lost one of its connections: new statements need another one at once */
export function createClient(options: Options, lost: (client: Client) => void): Client {
  return options.sql ? appClient(options.sql) : ownClient(options, lost);
}

function appClient(sql: Sql): Client {
  const client: Client = { ...functionsOf(sql), replace: () => client, end: async () => {} };
  return client;
}

function ownClient(options: Options, lost: (client: Client) => void, firstHost = 0): Client {
  const sockets = new Sockets(firstHost, () => isEnding || lost(client));
  const { uri, timeout } = options;
  const settings = {
    max: options.maxConnections,
    connect_timeout: Math.max(1, timeout / 1000),
    // Retrying has pauses of its own; the client's grow to 20 s and would outlast the outage.
    backoff: 0,
    // The store sends and reads text only.
    fetch_types: false,
    onnotice: () => {},
    socket: sockets.open,
    ...options.postgres,
  };
  const sql = uri === undefined ? (postgres(settings as object) as Sql) : clientOf(uri, settings);
  const { query, script } = functionsOf(sql);
  let running = 0;
  let isEnding = false;
  const destroyNow = () => {
    sockets.close();
    // A client with several hosts would go on looking for one that answers; `sockets` gives it none any more. It hears of the
    // end of its sockets in the closing phase of the event loop: earlier, it would write to one under TLS, which throws.
    setImmediate(() => setTimeout(() => sql.end({ timeout: 0 }).catch(() => {})));
  };
  const drain = () => sql.end({ timeout: 1 }).then(sockets.close, sockets.close);
  const counted = async <T>(answer: Promise<T>): Promise<T> => {
    running++;
    try {
      const result = await answer;
      sockets.settle();
      return result;
    } finally {
      if (--running === 0 && isEnding) void drain();
    }
  };
  const client: Client = {
    query: (text, values) => counted(query(text, values)),
    script: (text) => counted(script(text)),
    replace: (when) => {
      isEnding = true;
      sockets.refuse();
      if (when === 'immediate') destroyNow();
      else if (running === 0) void drain();
      return ownClient(options, lost, sockets.host);
    },
    end: async () => {
      isEnding = true;
      await sql.end({ timeout: Math.max(1, timeout / 1000) });
      sockets.close();
    },
  };
  return client;
}

/** @throws TypeError without the address: the URL parser's own quotes it, with its password */
function clientOf(uri: string, settings: object): Sql {
  try {
    return postgres(uri, settings) as Sql;
  } catch (error) {
    if (!(error instanceof URIError) && codeOf(error) !== 'ERR_INVALID_URL') throw error;
    throw new TypeError(
      'PgStore: option `uri`: expected a connection string, such as postgres://user@host/database, got one that is no URL; ' +
        'special characters in a password are written as %40 for @, %25 for %',
    );
  }
}

function functionsOf(sql: Sql): Pick<Client, 'query' | 'script'> {
  return {
    // `prepare` has an effect only where the client allows it; rows as arrays are free of the client's name transforms.
    query: (text, values) => sql.unsafe(text, values, { prepare: true }).values() as unknown as Promise<Row[]>,
    script: (text) => sql.unsafe(text).simple(),
  };
}

interface Address {
  readonly host: string[];
  readonly port: number[];
  readonly path?: string | false;
}

/**
 * Opens the client's sockets and keeps hold of them: the client itself cannot drop a socket whose other end is silent.
 * With several hosts it goes to the next one whenever a connection to the current one has ended.
 */
class Sockets {
  readonly #open = new Set<HostSocket>();
  readonly #lost: () => unknown;
  #state: 'looking' | 'settled' | 'refusing' | 'closed' = 'looking';
  #host: number;
  /** Sockets in a row that ended soon after they were opened. */
  #misses = 0;
  /** All hosts that the client was given, and the list that it looks at itself. */
  #hosts: readonly string[] = [];
  #seen: string[] = [];

  /**
   * @param host the one to try first, counted on and on over all of them
   * @param lost is told of each socket that ends once statements have been answered
   */
  constructor(host: number, lost: () => unknown) {
    this.#host = host;
    this.#lost = lost;
  }

  get host(): number {
    return this.#host;
  }

  /** Postgres.js calls this with its parsed options where it would open a socket of its own. */
  readonly open = async ({ host, port, path }: Address): Promise<net.Socket> => {
    if (this.#seen !== host) [this.#seen, this.#hosts] = [host, [...host]];
    const hosts = this.#hosts;
    // The client tries the next host at once, for ever: with none of them fit that would be a busy loop. It has to have its
    // listeners on the socket before that may fail, so never in this tick.
    await (this.#misses >= hosts.length ? sleep(100, undefined, { ref: false }) : undefined);
    if (this.#state === 'closed') throw givenUp();
    const current = this.#host;
    const opened = performance.now();
    const socket = new HostSocket(() => {
      this.#open.delete(socket);
      this.#misses = performance.now() - opened < 1000 ? this.#misses + 1 : 0;
      if (this.#host === current) this.#host++;
      if (this.#state === 'settled') this.#lost();
    });
    if (this.#state === 'refusing') {
      this.#showOneHost();
      // Not thrown: only with the end of a socket does the client go on to the next statement that waits for one.
      setImmediate(() => socket.destroy(givenUp()));
      return socket;
    }
    this.#open.add(socket);
    if (path) return socket.connect(path);
    const n = current % hosts.length;
    const address = { host: hosts[n] ?? 'localhost', port: port[n] ?? 5432 };
    return Object.assign(socket.connect(address), address);
  };

  /**
   * A statement was answered, so the first of the hosts that are fit is found, and the next end of a socket is a loss.
   */
  settle(): void {
    if (this.#state !== 'looking') return;
    this.#state = 'settled';
    this.#showOneHost();
  }

  /** From now on each socket that is opened fails at once. */
  refuse(): void {
    this.#state = 'refusing';
  }

  readonly close = (): void => {
    this.#state = 'closed';
    for (const socket of this.#open) socket.reset();
  };

  /**
   * While Postgres.js 3.4 sees a second host, it takes a connection that breaks under its first statement for one that did
   * not come about, and never answers the statement.
   */
  #showOneHost(): void {
    this.#seen.splice(1);
  }
}

function givenUp(): PgStoreError {
  return new PgStoreError('the connection was given up', 'CONNECTION_ENDED');
}

/** Says when it ends. Not by a listener: the client removes those when it puts TLS on the socket. */
class HostSocket extends net.Socket {
  readonly #ended: () => void;

  constructor(ended: () => void) {
    super();
    this.#ended = ended;
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#ended();
    super._destroy(error, callback);
  }

  /** Takes back what was not delivered: once the network is there again, no statement may arrive that was given up. */
  reset(): void {
    // A socket that is being ended takes no reset (libuv: EINVAL), and Node.js would drain it open.
    if (this.connecting || this.remoteAddress === undefined || this.writableEnded) this.destroy();
    else this.resetAndDestroy();
  }
}
