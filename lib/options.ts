/** The options: what they mean, what they may be, and their defaults. */

import type { SessionData } from 'express-session';
import type { Sql } from 'postgres';
import type { RetryOptions } from './calls/retry.js';
import type { NodePostgresPool } from './client/node-postgres.js';
import {
  aBoolean,
  aCount,
  aFunction,
  anIdentifier,
  anObject,
  type Check,
  check,
  expectation,
  isKeys,
  isNumber,
  isPositive,
  isText,
  isWhole,
} from './option-check.js';
import type { Merge } from './session/merge.js';
import { type MergeRules, parseRules } from './session/merge-rules.js';

/**
 * What option `previous` needs of a store. Each method calls back, as express-session's README has
 * it.
 */
export interface PreviousStore {
  get(sid: string, callback: (error?: any, session?: any) => void): unknown;
  destroy(sid: string, callback: (error?: any) => void): unknown;
  /** For `takeOver()`: its sessions by session ID, or an array of sessions with their `id`. */
  all?(callback: (error?: any, sessions?: any) => void): unknown;
  /** For `clear()`. */
  clear?(callback: (error?: any) => void): unknown;
}

/** Options of `takeOver()`. */
export interface TakeOverOptions {
  /**
   * IDs of the sessions to take over, for a store that cannot list its own: an array, or an async iterable such as the
   * rows of a query. Default: all that the store's method `all` lists.
   */
  sids?: readonly string[] | AsyncIterable<string>;
  /** Gets how many sessions are done, and how many there are, where that is known. */
  onProgress?: (done: number, total: number | undefined) => void;
}

/** Options of `new PgStore(options)`. All are optional. */
export interface PgStoreOptions {
  /**
   * Connection string: `postgres://user:password@host:port/database`, with the parameters of libpq, each honoured or
   * refused by name. Several hosts are tried in turn until one takes writes. Default: the environment variable
   * `DATABASE_URL`. What neither says comes from the `PG*` variables and the password file.
   */
  uri?: string;
  /**
   * A `postgres` client that the app already has. The store never ends it. Not together with `uri`.
   */
  sql?: Sql<any>;
  /**
   * A node-postgres `Pool` that the app already has. Each statement checks out one of its
   * connections; the store never ends it. Not together with `uri` or `sql`; of option `postgres`,
   * only `prepare` goes with it.
   */
  pool?: NodePostgresPool;
  /**
   * Postgres.js options of the store's own connections, such as `ssl`, or `prepare: false` for PgBouncer. They go
   * before the connection string.
   */
  postgres?: Record<string, unknown>;
  /** Name of the table, any legal identifier. Default `sessions`. */
  table?: string;
  /** Name of the schema, any legal identifier. Default `public`. */
  schema?: string;
  /**
   * Create the schema and the table where they are missing. Default `true`; `false`: never any DDL.
   */
  createTable?: boolean;
  /**
   * Divides the table into so many shards, 1 to 32,767, that a distributed PostgreSQL such as Citus
   * can place on several servers. Fixed when the table is created: another number, or none, is an
   * error. Default: none.
   */
  shards?: number;
  /**
   * Goes before each row key: a namespace in one table. `all`, `length`, `ids` and `clear` see only
   * their own. Default `''`.
   */
  prefix?: string;
  /**
   * Signs the session IDs in the table. An array for rotation, newest first. Default: not signed.
   */
  secret?: string | readonly string[];
  /**
   * Keep only a hash of the session ID in the table: SHA-256, or HMAC-SHA-256 with `secret`.
   * Default `false`.
   */
  hashIds?: boolean;
  /**
   * Encrypts the sessions' data. At least 16 characters; 32 random bytes are best. An array for
   * rotation, newest first.
   */
  encryptionKey?: string | readonly string[];
  /**
   * With `encryptionKey`, while it is being introduced: also read rows that are not encrypted.
   * `'write'`: write them as well. Default `false`.
   */
  allowPlaintext?: boolean | 'write';
  /**
   * Seconds that a row lives whose cookie has no expiry, or a function that says so; it gets the
   * session as `get` would, at the moment of the call. Default 86,400 (a day).
   */
  ttl?: number | ((session: SessionData) => number);
  /** Give a new session whose cookie has no `maxAge` the `ttl` as its `maxAge`. Default `false`. */
  permanent?: boolean;
  /**
   * Absolute timeout (OWASP): seconds from its creation after which a session expires, however
   * active it is. Default: none.
   */
  maxLifetime?: number;
  /**
   * Seconds by which a stored expiry may lag behind before a touch writes it; at most a tenth of
   * the session's lifetime. Default 60; 0: each touch writes. So does a touch with an object that
   * no `get` of this store loaded: how old its row is nobody knows.
   */
  touchAfter?: number;
  /**
   * Seconds between deletions of expired rows, varied by up to a quarter once per process. Default
   * 900; `false`: never.
   */
  autodelete?: number | false;
  /**
   * Seconds between two checks of the sessions that `watch` watches, varied by up to a quarter, but
   * never longer: so late it is noticed at most that a session has ended. At least 0.1. Default 5.
   */
  watchInterval?: number;
  /** Most connections that the store opens. Default 10. */
  maxConnections?: number;
  /**
   * How transient errors are retried. Default `{ attempts: 6, delay: 100 }` (milliseconds),
   * doubling.
   */
  retry?: Partial<RetryOptions>;
  /**
   * Milliseconds after which a call without an answer fails with `TIMEOUT`; its statement is cancelled on the server
   * shortly before, by at most half a second, unless option `sql` gives the client. Default 10,000.
   */
  timeout?: number;
  /**
   * Merges a session that several requests changed. Default: a three-way merge, key by key at any
   * depth, in which the later save counts where both changed the same value. Rules by path say
   * otherwise for some values: `{ visits: 'sum', flash: 'append', 'stats.seen': 'max' }`. A
   * function merges the data as a whole.
   */
  merge?: Merge | MergeRules;
  /**
   * Whose session it is: at most 2,000 bytes. The function gets the session as it is stored.
   * Default: Passport's `session.passport.user`, where that is a string or a number.
   */
  user?: (session: SessionData) => string | number | undefined;
  /**
   * The store that the app used before, any express-session store: a session without a row is taken
   * over from it at its first request, and what destroys a session destroys it in both, there
   * first. The store never closes it. Default: none.
   */
  previous?: PreviousStore;
}

/** Options that may stay unset. */
type Unset = 'uri' | 'sql' | 'pool' | 'maxLifetime' | 'merge' | 'user' | 'previous' | 'shards';

/** The options, checked and complete. */
export type Options = Readonly<
  Required<Omit<PgStoreOptions, Unset | 'secret' | 'encryptionKey' | 'retry'>> & {
    [Name in Unset]?: PgStoreOptions[Name] | undefined;
  } & { secrets: readonly string[]; encryptionKeys: readonly string[]; retry: RetryOptions }
>;

const DEFAULTS: Options = {
  postgres: {},
  table: 'sessions',
  schema: 'public',
  createTable: true,
  prefix: '',
  secrets: [],
  hashIds: false,
  encryptionKeys: [],
  allowPlaintext: false,
  ttl: 86_400,
  permanent: false,
  touchAfter: 60,
  autodelete: 900,
  watchInterval: 5,
  maxConnections: 10,
  retry: { attempts: 6, delay: 100 },
  timeout: 10_000,
};

/** setTimeout and setInterval count to 2^31 - 1 milliseconds and take what is longer as 1. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

const CHECKS: Record<keyof PgStoreOptions, Check> = {
  uri: expectation(
    'a connection string, such as postgres://user@host/database',
    (value) => isText(value) && value !== '',
  ),
  sql: expectation(
    'a client created by the package `postgres` (a node-postgres pool is option `pool`)',
    (value) => typeof value === 'function' && typeof (value as { unsafe?: unknown }).unsafe === 'function',
  ),
  pool: expectation(
    'a pool of node-postgres, created by `new Pool()`',
    // A single `Client` has `connect` too, and these.
    (value: any) => typeof value?.connect === 'function' && !('escapeLiteral' in value),
  ),
  postgres: anObject,
  table: anIdentifier,
  schema: anIdentifier,
  createTable: aBoolean,
  shards: expectation('a whole number from 1 to 32,767', (value) => isWhole(value, 32_767)),
  prefix: expectation('a string without NUL characters and half surrogate pairs', isText),
  secret: expectation('a string or an array of strings, none empty', (value) => isKeys(value, 1)),
  hashIds: aBoolean,
  encryptionKey: expectation('a string of at least 16 characters, or an array of such', (value) => isKeys(value, 16)),
  allowPlaintext: expectation("true, false or 'write'", (value) => typeof value === 'boolean' || value === 'write'),
  ttl: expectation(
    'a number of seconds above 0, or a function that returns one',
    (value) => typeof value === 'function' || isPositive(value, 1e11),
  ),
  permanent: aBoolean,
  maxLifetime: expectation('a number of seconds above 0', (value) => isPositive(value, 1e11)),
  touchAfter: expectation('a number of seconds, 0 or more', (value) => isNumber(value, 0)),
  autodelete: expectation(
    'a number of seconds above 0 (at most 1,700,000), or false',
    (value) => value === false || isPositive(value, 1_700_000),
  ),
  watchInterval: expectation('a number of seconds, 0.1 or more (at most 2,000,000)', (value) =>
    isNumber(value, 0.1, 2_000_000),
  ),
  maxConnections: aCount,
  retry: anObject,
  timeout: expectation('a number of milliseconds above 0 (at most 2,147,483,647)', (value) =>
    isPositive(value, LONGEST_TIMER_MS),
  ),
  merge: expectation(
    'a function, or rules by path',
    (value) => typeof value === 'function' || anObject(value) === undefined,
  ),
  user: aFunction,
  previous: expectation('an express-session store, with `get` and `destroy`', (value) => {
    const { get, destroy } = (value ?? {}) as Partial<PreviousStore>;
    return typeof get === 'function' && typeof destroy === 'function';
  }),
};

const anything: Check = () => undefined;
/** Postgres.js ignores other names, and with a misspelt `ssl` it goes on without TLS. */
const POSTGRES_CHECKS: Record<string, Check> = {
  ...Object.fromEntries(
    `host hostname port path database db user username password pass ssl sslnegotiation idle_timeout connect_timeout
    max_lifetime max_pipeline backoff keep_alive prepare no_prepare debug fetch_types publications target_session_attrs
    connection types transform socket onnotice onnotify onclose onparameter`
      .split(/\s+/)
      .map((name) => [name, anything]),
  ),
  max: expectation('option `maxConnections` in its place', () => false),
};

const RETRY_CHECKS: Record<keyof RetryOptions, Check> = {
  attempts: aCount,
  delay: expectation('a number of milliseconds, 0 or more', (value) => isNumber(value, 0)),
};

/** @returns those that are given */
function checkOptions(options: PgStoreOptions): PgStoreOptions {
  check('', CHECKS, options);
  const given = defined(options);
  if (given.retry) check('retry.', RETRY_CHECKS, given.retry);
  if (given.postgres) check('postgres.', POSTGRES_CHECKS, given.postgres);
  checkMerge(given.merge);
  const clients = (['uri', 'sql', 'pool'] as const).filter((name) => given[name] !== undefined);
  if (clients.length > 1) throw new TypeError(`PgStore: options \`${clients.join('` and `')}\` exclude each other`);
  const unused = given.pool && Object.keys(given.postgres ?? {}).find((name) => name !== 'prepare');
  if (unused) throw new TypeError(`PgStore: option \`postgres.${unused}\` has no effect with option \`pool\``);
  if (given.allowPlaintext && !given.encryptionKey) {
    throw new TypeError('PgStore: option `allowPlaintext` goes with option `encryptionKey`');
  }
  return given;
}

/** @throws TypeError that names the option, says what was expected and what it got */
export function parseOptions(options: PgStoreOptions = {}, env: NodeJS.ProcessEnv = process.env): Options {
  const given = checkOptions(options);
  const { secret, encryptionKey, ...others } = given;
  const databaseUrl = Object.hasOwn(env, 'DATABASE_URL') ? env.DATABASE_URL : undefined;
  return ownProperties({
    ...DEFAULTS,
    ...others,
    postgres: ownProperties(given.postgres ?? {}),
    uri: given.sql || given.pool ? undefined : (given.uri ?? (databaseUrl || undefined)),
    secrets: [secret ?? []].flat(),
    encryptionKeys: [encryptionKey ?? []].flat(),
    retry: { ...DEFAULTS.retry, ...defined(given.retry ?? {}) },
  });
}

/** @throws TypeError that names the path of a rule that is wrong */
function checkMerge(merge: PgStoreOptions['merge']): void {
  if (merge === undefined || typeof merge === 'function') return;
  try {
    parseRules(merge);
  } catch (error) {
    throw new TypeError(`PgStore: option \`merge\`: ${(error as Error).message}`);
  }
}

/** The options that are given. */
function defined<T extends object>(given: T): T {
  return ownProperties(Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as T);
}

/** A copy without a prototype: an option that is not given must not be read from a polluted `Object.prototype`. */
function ownProperties<T extends object>(options: T): T {
  return Object.assign(Object.create(null), options);
}
