/** The options of `new PgStore(options)`: their meanings, defaults, and the values that each one accepts. */

import type { SessionData } from 'express-session';
import type { Sql } from 'postgres';
import type { RetryOptions } from './calls/retry.js';
import { LONGEST_TIMER_MS } from './calls/timers.js';
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
  isNumber,
  isPositive,
  isSecrets,
  isText,
  isWhole,
} from './option-check.js';
import type { Merge } from './session/merge.js';
import { type MergeRules, parseRules } from './session/merge-rules.js';

/**
 * The methods that option `previous` needs. Each one takes a callback, as express-session's README specifies in
 * "Session Store Implementation".
 */
export interface PreviousStore {
  get(sid: string, callback: (error?: any, session?: any) => void): unknown;
  destroy(sid: string, callback: (error?: any) => void): unknown;
  /**
   * Needed by `takeOver()` without `sids`. It answers with an object whose keys are session IDs, or with an array of
   * sessions that each have an `id`.
   */
  all?(callback: (error?: any, sessions?: any) => void): unknown;
  /** Needed by `clear()`. */
  clear?(callback: (error?: any) => void): unknown;
}

/** Options of `takeOver()`. */
export interface TakeOverOptions {
  /**
   * IDs of the sessions to take over, for a store that cannot list its sessions: an array, or an async iterable that
   * yields them, such as a generator over the rows of a query. Default: every session that the store's method `all`
   * lists.
   */
  sids?: readonly string[] | AsyncIterable<string>;
  /**
   * Is called after each page of sessions: with the number of those that have been processed, whether or not they were
   * taken over, and with the number of all, which is `undefined` if `sids` is an async iterable.
   */
  onProgress?: (done: number, total: number | undefined) => void;
}

/** Options of `new PgStore(options)`. All are optional. */
export interface PgStoreOptions {
  /**
   * Connection string of the form `postgres://user:password@host:port/database`, with the parameters that libpq
   * defines; a parameter that the store cannot honour is refused by its name. Several hosts are tried in turn until one
   * accepts writes. Default: the environment variable `DATABASE_URL`. Settings that the connection string lacks come
   * from libpq's `PG*` environment variables and its password file.
   */
  uri?: string;
  /**
   * A Postgres.js client that the app already has. The store never ends it. It excludes `uri`, `pool`, and settings in
   * `postgres`.
   */
  sql?: Sql<any>;
  /**
   * A node-postgres `Pool` that the app already has. Each statement checks out one of its connections, and the store
   * never ends the pool. It excludes `uri` and `sql`, and every setting in `postgres` except `prepare`.
   */
  pool?: NodePostgresPool;
  /**
   * Postgres.js options for the store's own connections, such as `ssl`, or `prepare: false` for PgBouncer. They take
   * precedence over the connection string. Default `{}`.
   */
  postgres?: Record<string, unknown>;
  /** Name of the table, any legal identifier. Default `'sessions'`. */
  table?: string;
  /** Name of the schema that contains the table, any legal identifier. Default `'public'`. */
  schema?: string;
  /** Whether the store creates a missing schema and a missing table. With `false` it runs no DDL. Default `true`. */
  createTable?: boolean;
  /**
   * The number of shards into which the table is divided, 1 to 32,767, so that a distributed PostgreSQL such as Citus
   * can place them on several servers. It is fixed when the table is created: with another number, calls fail with
   * `SHARDS_MISMATCH`. Default: the table has no shards.
   */
  shards?: number;
  /**
   * A namespace within the table: every row key of this store begins with it. Only `autodelete` concerns the rows of
   * all prefixes. Default `''`.
   */
  prefix?: string;
  /**
   * Signs the session IDs in the table, so that rows which were inserted without it are not sessions. To rotate it,
   * pass an array: the first secret signs, and all of them are accepted. Default: IDs are not signed.
   */
  secret?: string | readonly string[];
  /**
   * Whether the table holds only a hash of each session ID: SHA-256, or HMAC-SHA-256 with a key derived from `secret`.
   * Default `false`.
   */
  hashIds?: boolean;
  /**
   * Encrypts the sessions' data with AES-256-GCM. It has at least 16 characters; 32 random bytes in base64 are best. To
   * rotate it, pass an array: the first key encrypts, and all of them decrypt. Default: data are not encrypted.
   */
  encryptionKey?: string | readonly string[];
  /**
   * For the time in which `encryptionKey` is introduced or removed. With `true`, rows that are not encrypted are read
   * too; with `'write'`, rows are also written without encryption. Default `false`.
   */
  allowPlaintext?: boolean | 'write';
  /**
   * Lifetime, in seconds, of a session whose cookie has no expiry; or a function that returns it, and gets the session
   * as `get` would return it. Default 86,400 (a day).
   */
  ttl?: number | ((session: SessionData) => number);
  /** Whether a new session whose cookie has no `maxAge` gets the `ttl` as its `maxAge`. Default `false`. */
  permanent?: boolean;
  /**
   * Absolute timeout in seconds (OWASP, Session Management Cheat Sheet): a session expires that long after its
   * creation, however active it is. Default: none.
   */
  maxLifetime?: number;
  /**
   * A touch is not written if the stored expiry differs from the new one by less than so many seconds, and by less than
   * a tenth of the session's lifetime. With 0, every touch is written. A touch with an object that no `get` of this
   * store loaded is always written, because the store does not know the stored expiry. Default 60.
   */
  touchAfter?: number;
  /**
   * Seconds between two deletions of expired rows. Each store varies this once, by up to a quarter, so that processes
   * do not delete at the same moments. With `false` it never deletes them. Default 900.
   */
  autodelete?: number | false;
  /**
   * Seconds between two checks of the sessions that `watch` watches, at least 0.1. A session's end in another process
   * is noticed at most that late. Each store shortens this once, by up to a quarter. Default 5.
   */
  watchInterval?: number;
  /**
   * The largest number of connections that the store opens. With option `shards` it is also the largest number of
   * statements at a time, on a client of the app's too. Default 10.
   */
  maxConnections?: number;
  /**
   * How statements that failed with a transient error are retried; `delay` is in milliseconds and doubles with each
   * attempt. Default `{ attempts: 6, delay: 100 }`.
   */
  retry?: Partial<RetryOptions>;
  /**
   * Milliseconds after which a call that has no answer fails with `TIMEOUT`. Its statement is cancelled on the server
   * up to half a second earlier, except on a client in option `sql`. Default 10,000.
   */
  timeout?: number;
  /**
   * How the changes of several requests to one session are merged. By default this is a three-way merge of objects, key
   * by key at any depth; if both sides changed the same value, the later save counts. Rules by path decide otherwise
   * for some values: `{ visits: 'sum', flash: 'append', 'stats.seen': 'max' }`. A function replaces the merge.
   */
  merge?: Merge | MergeRules;
  /**
   * Returns the user to whom a session belongs, at most 2,000 bytes in UTF-8, or `undefined` for a session of nobody.
   * It gets the session as it is stored. Default: Passport's `session.passport.user` if that is a string or a number.
   */
  user?: (session: SessionData) => string | number | undefined;
  /**
   * The store that the app used before; any express-session store will do. A session that has no row is taken over from
   * it at its first request. Calls that destroy a session destroy it in both stores, in the previous one first. The
   * store never closes it. Default: none.
   */
  previous?: PreviousStore;
}

/** Options that have no default and may stay `undefined`. */
type Unset = 'uri' | 'sql' | 'pool' | 'maxLifetime' | 'merge' | 'user' | 'previous' | 'shards';

/**
 * The options, checked and completed with their defaults. `secret` and `encryptionKey` have become arrays, newest
 * first, which are empty if the option was not given.
 */
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
    // A single `Client` has `connect` too, but only a `Client` has `escapeLiteral`.
    (value: any) => typeof value?.connect === 'function' && !('escapeLiteral' in value),
  ),
  postgres: anObject,
  table: anIdentifier,
  schema: anIdentifier,
  createTable: aBoolean,
  shards: expectation('a whole number from 1 to 32,767', (value) => isWhole(value, 32_767)),
  prefix: expectation('a string without NUL characters and half surrogate pairs', isText),
  secret: expectation('a string or an array of strings, none empty', (value) => isSecrets(value, 1)),
  hashIds: aBoolean,
  encryptionKey: expectation('a string of at least 16 characters, or an array of such strings', (value) =>
    isSecrets(value, 16),
  ),
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

const acceptAnything: Check = () => undefined;

const aHost = expectation(
  'a host or an array of hosts',
  (value) => value === null || [value].flat().every((host) => typeof host === 'string'),
);
const aTime = expectation(
  'a number of seconds, 0 or more, or a function that returns one',
  (value) =>
    value === null || typeof value === 'function' || (/^(number|string)$/.test(typeof value) && Number(value) >= 0),
);

/**
 * The names that option `postgres` may have. Postgres.js ignores unknown names, so a misspelt `ssl` would silently
 * connect without TLS. The values that have no check here are checked by `parseSettings`, or by Postgres.js. As there,
 * `null` counts as not given.
 */
const POSTGRES_CHECKS: Record<string, Check> = {
  ...Object.fromEntries(
    `host hostname port path database db user username password pass ssl sslnegotiation idle_timeout connect_timeout
    max_lifetime max_pipeline backoff keep_alive prepare no_prepare debug fetch_types publications target_session_attrs
    connection types transform socket onnotice onnotify onclose onparameter`
      .split(/\s+/)
      .map((name) => [name, acceptAnything]),
  ),
  host: aHost,
  hostname: aHost,
  path: expectation('the file of a Unix socket', (value) => value === null || typeof value === 'string'),
  socket: expectation('a function', (value) => value === null || typeof value === 'function'),
  connect_timeout: aTime,
  idle_timeout: aTime,
  max_lifetime: aTime,
  max: expectation('option `maxConnections` in its place', () => false),
};

const RETRY_CHECKS: Record<keyof RetryOptions, Check> = {
  attempts: aCount,
  delay: expectation('a number of milliseconds, 0 or more', (value) => isNumber(value, 0)),
};

/**
 * Checks each option, and that those which were given fit together.
 *
 * @returns the options whose value is not `undefined`
 * @throws TypeError that names the option
 */
function checkOptions(options: PgStoreOptions): PgStoreOptions {
  check('', CHECKS, options);
  const given = defined(options);
  if (given.retry) check('retry.', RETRY_CHECKS, given.retry);
  if (given.postgres) check('postgres.', POSTGRES_CHECKS, given.postgres);
  checkMerge(given.merge);
  const clients = (['uri', 'sql', 'pool'] as const).filter((name) => given[name] !== undefined);
  if (clients.length > 1) throw new TypeError(`PgStore: options \`${clients.join('` and `')}\` exclude each other`);
  refuseUnused(given);
  if (given.allowPlaintext && !given.encryptionKey) {
    throw new TypeError('PgStore: option `allowPlaintext` goes with option `encryptionKey`');
  }
  return given;
}

/** @throws TypeError for a setting in `postgres` that the app's own client does not take over */
function refuseUnused({ sql, pool, postgres = {} }: PgStoreOptions): void {
  if (!sql && !pool) return;
  const unused = Object.keys(postgres).find((name) => postgres[name] !== undefined && !(pool && name === 'prepare'));
  if (!unused) return;
  throw new TypeError(`PgStore: option \`postgres.${unused}\` has no effect with option \`${sql ? 'sql' : 'pool'}\``);
}

/**
 * Checks the app's options and completes them with their defaults.
 *
 * @throws TypeError that names the option, and says what was expected and of what kind the given value is
 */
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

/** @throws TypeError that names the path of the rule that is wrong */
function checkMerge(merge: PgStoreOptions['merge']): void {
  if (merge === undefined || typeof merge === 'function') return;
  try {
    parseRules(merge);
  } catch (error) {
    throw new TypeError(`PgStore: option \`merge\`: ${(error as Error).message}`);
  }
}

/** The options whose value is not `undefined`, so that they do not override defaults. */
function defined<T extends object>(given: T): T {
  return ownProperties(Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as T);
}

/** A copy without a prototype, so that an option which was not given is not read from a polluted `Object.prototype`. */
function ownProperties<T extends object>(options: T): T {
  return Object.assign(Object.create(null), options);
}
