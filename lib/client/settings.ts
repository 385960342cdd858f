/** The settings of the store's own connections, from option `uri`, option `postgres` and environment variables. */

import net from 'node:net';
import os from 'node:os';
import { LONGEST_TIMER_MS } from '../calls/timers.js';
import type { Options } from '../options.js';
import { Parameters } from './parameters.js';
import { type PasswordQuery, passwordFile, passwordFromFile } from './password-file.js';
import { type TlsSettings, tlsSettings } from './tls-settings.js';
import type { Host } from './transport.js';

/** The authentication methods that the store supports, under libpq's names in `require_auth`. */
export type AuthMethod = 'none' | 'password' | 'md5' | 'scram-sha-256';
const AUTH_METHODS: readonly AuthMethod[] = ['none', 'password', 'md5', 'scram-sha-256'];

/**
 * SQL conditions that are true on a host which is not as `target_session_attrs` asks. Since a store writes, it supports
 * only these two values.
 */
export const UNFIT_HOST = {
  'read-write': `pg_catalog.current_setting('transaction_read_only') = 'on'`,
  primary: 'pg_catalog.pg_is_in_recovery()',
} as const;

export interface Settings {
  readonly hosts: readonly Host[];
  readonly database: string;
  readonly user: string;
  /** Returns the password for a host, or a promise of it. It is called for each connection. */
  readonly password: (host: Host) => unknown;
  readonly tls: TlsSettings;
  /** The authentication methods that are allowed. */
  readonly authMethods: ReadonlySet<AuthMethod>;
  readonly channelBinding: 'disable' | 'prefer' | 'require';
  /** Settings of the server, which are sent when a connection starts. */
  readonly serverSettings: Readonly<Record<string, string>>;
  /** What a host must be to be used (`target_session_attrs`); `undefined`: every host is used. */
  readonly target: keyof typeof UNFIT_HOST | undefined;
  /** Option `postgres.socket`: opens the sockets instead of the store. */
  readonly socket: ((settings: object) => net.Socket | Promise<net.Socket>) | undefined;
  /** Milliseconds within which a connection to a host must be ready for statements. */
  readonly connectTimeout: number;
  /**
   * Milliseconds after which the server ends a statement. The store cancels its statements earlier; this ends those
   * whose process has died or lost its connection.
   */
  readonly statementTimeout: number;
  readonly maxConnections: number;
  /** Milliseconds until the first TCP keep-alive packet of an idle connection; 0: none is sent. */
  readonly keepAlive: number;
  /** Options that are passed on to Postgres.js. */
  readonly client: Readonly<Record<string, unknown>>;
}

const DEFAULT_PORT = 5432;
const DEFAULT_KEEP_ALIVE_SECONDS = 60;

/**
 * Combines the settings of all sources. Option `postgres` takes precedence over the connection string, and that over
 * environment variables.
 *
 * @throws TypeError that names the option, the parameter or the environment variable that cannot be honoured
 */
export function parseSettings(options: Options, env: NodeJS.ProcessEnv = process.env): Settings {
  const { uri, timeout, maxConnections } = options;
  const given = options.postgres as GivenOptions;
  const parameters = new Parameters(uri, env);
  const hosts = hostsOf(parameters, given);
  const user = textOf('user', given.user || given.username || parameters.get('user') || systemUser());
  const database = textOf('database', given.database || given.db || parameters.get('dbname') || user);
  const tls = tlsSettings(parameters, given);
  const channelBinding = parameters.oneOf('channel_binding', ['disable', 'prefer', 'require']) ?? 'prefer';
  if (channelBinding === 'require' && tls.mode === 'disable') {
    throw new TypeError(`PgStore: ${parameters.source('channel_binding')}: \`require\` needs TLS`);
  }
  const seconds = given.connect_timeout ?? parameters.seconds('connect_timeout') ?? 0;
  return {
    hosts,
    database,
    user,
    password: passwordOf(parameters, given, database, user),
    tls,
    authMethods: authMethods(parameters),
    channelBinding,
    serverSettings: serverSettings(parameters, given),
    target: targetOf(parameters, given, hosts),
    socket: given.socket,
    connectTimeout: Math.min(Number(seconds) * 1000 || timeout, timeout / hosts.length),
    statementTimeout: Math.ceil(timeout),
    maxConnections,
    keepAlive: keepAliveOf(parameters, given),
    client: clientOptions(parameters, given),
  };
}

/** The options of Postgres.js that the store reads itself. */
interface GivenOptions {
  readonly host?: string | readonly string[];
  readonly hostname?: string | readonly string[];
  readonly port?: unknown;
  readonly path?: string;
  readonly database?: unknown;
  readonly db?: unknown;
  readonly user?: unknown;
  readonly username?: unknown;
  readonly password?: unknown;
  readonly pass?: unknown;
  readonly ssl?: unknown;
  readonly sslnegotiation?: unknown;
  readonly connect_timeout?: number;
  readonly keep_alive?: number | boolean | null;
  readonly target_session_attrs?: string;
  readonly connection?: Readonly<Record<string, unknown>>;
  readonly socket?: (settings: object) => net.Socket | Promise<net.Socket>;
  readonly [name: string]: unknown;
}

/** The hosts to try, in their order, or in a random one with `load_balance_hosts=random`. */
function hostsOf(parameters: Parameters, given: GivenOptions): Host[] {
  if (given.path) return [hostAt(given.path)];
  const hosts = namedHosts(parameters, given);
  return parameters.oneOf('load_balance_hosts', ['disable', 'random']) === 'random' ? shuffled(hosts) : hosts;
}

/** The host of a Unix socket's file, whose name ends in the port. */
function hostAt(path: string): Host {
  const port = Number(/\.s\.PGSQL\.(\d+)$/.exec(path)?.[1] ?? DEFAULT_PORT);
  return { given: path, name: 'localhost', address: 'localhost', port, path };
}

/** The hosts whose names, addresses and ports are given in several lists. @throws TypeError for unequal lengths */
function namedHosts(parameters: Parameters, given: GivenOptions): Host[] {
  const givenHosts = [given.host, given.hostname].find(isGiven);
  const addresses = givenHosts === undefined ? (parameters.get('hostaddr')?.split(',') ?? []) : [];
  const names = givenHosts === undefined ? listOf(parameters.get('host')) : [givenHosts].flat().flatMap(listOf);
  const { length } = names.length > 0 ? names : addresses;
  if (names.length > 0 && addresses.length > 0 && names.length !== addresses.length) {
    throw parameters.error('hostaddr', 'as many addresses as hosts');
  }
  if (addresses.some((address) => address !== '' && net.isIP(address) === 0)) {
    throw parameters.error('hostaddr', 'IP addresses');
  }
  // In libpq this is a Unix socket in Linux's abstract namespace, which Node.js 20 cannot reach.
  if (names.some((name) => name.startsWith('@'))) throw parameters.error('host', 'a name, an address or a folder');
  // The option `host` of Postgres.js may contain ports, as in `host:port`.
  const withPorts = givenHosts === undefined ? [] : names.map(splitPort);
  const ports = portsOf(parameters, given, Math.max(1, length));
  return Array.from({ length: Math.max(1, length) }, (_, n) => {
    const name = (withPorts.at(n)?.name ?? names.at(n)) || addresses.at(n) || 'localhost';
    const port = withPorts.at(n)?.port ?? ports.at(n) ?? DEFAULT_PORT;
    const path = name.startsWith('/') && !addresses.at(n) ? `${name}/.s.PGSQL.${port}` : undefined;
    return { given: name, name: path ? 'localhost' : name, address: addresses.at(n) || name, port, path };
  });
}

/** Whether a value of option `postgres` counts: an empty one leaves it to the connection string and the environment. */
function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null && value !== '' && !(Array.isArray(value) && value.length === 0);
}

function listOf(text: string | undefined): string[] {
  return text === undefined ? [] : text.split(',');
}

function splitPort(text: string): { name: string; port: number | undefined } {
  const [, name = text, port] = /^([^:]+):(\d+)$/.exec(text) ?? [];
  return { name, port: port === undefined ? undefined : Number(port) };
}

/** A port for each of so many hosts. @throws TypeError for a text that is not a port, or too few or too many ports */
function portsOf(parameters: Parameters, given: GivenOptions, hosts: number): number[] {
  const wrong = () =>
    !isGiven(given.port)
      ? parameters.error('port', 'a number from 1 to 65,535')
      : new TypeError('PgStore: option `postgres.port`: expected a number from 1 to 65,535, or an array of these');
  const texts = isGiven(given.port) ? [given.port].flat().map(String) : listOf(parameters.get('port'));
  const ports = texts.map((text) => {
    const port = text === '' ? DEFAULT_PORT : Number(text);
    if (!Number.isInteger(port) || port < 1 || port > 65_535) throw wrong();
    return port;
  });
  if (ports.length > 1 && ports.length !== hosts && !isGiven(given.port)) {
    throw parameters.error('port', 'as many ports as hosts, or one');
  }
  return Array.from({ length: hosts }, (_, n) => ports.at(n) ?? ports.at(0) ?? DEFAULT_PORT);
}

function shuffled<T>(list: readonly T[]): T[] {
  return list
    .map((value) => ({ value, order: Math.random() }))
    .sort((a, b) => a.order - b.order)
    .map(({ value }) => value);
}

function textOf(name: string, value: unknown): string {
  if (typeof value === 'string' && value !== '' && !value.includes('\0')) return value;
  throw new TypeError(
    `PgStore: option \`postgres.${name}\`: expected a non-empty string without NUL characters, got ${typeof value}`,
  );
}

function systemUser(): string {
  try {
    return os.userInfo().username;
  } catch {
    throw new TypeError(
      'PgStore: expected a user in option `uri`, option `postgres.user` or PGUSER, because the system names none',
    );
  }
}

/** The default folders of Unix sockets in builds of PostgreSQL. In a password file, their host is `localhost`. */
const SOCKET_FOLDERS: ReadonlySet<string> = new Set(['/tmp', '/var/run/postgresql', '/run/postgresql']);

/** Finds the password in option `postgres`, the connection string, the environment, or else the password file. */
function passwordOf(
  parameters: Parameters,
  given: GivenOptions,
  database: string,
  user: string,
): (host: Host) => unknown {
  const password = [given.pass, given.password].find(isGiven) ?? parameters.get('password');
  if (typeof password === 'function') return () => password();
  if (password !== undefined) {
    if (typeof password === 'string') return () => password;
    throw new TypeError(
      `PgStore: option \`postgres.password\`: expected a string or a function that returns one, got ${typeof password}`,
    );
  }
  const file = passwordFile(parameters.get('passfile'));
  return async ({ given, port }) => {
    const query: PasswordQuery = { host: SOCKET_FOLDERS.has(given) ? 'localhost' : given, port, database, user };
    return (await passwordFromFile(file, query)) ?? '';
  };
}

/**
 * The methods that parameter `require_auth` allows: the listed ones, or all others if each one is listed with an
 * exclamation mark (PostgreSQL: Parameter Key Words).
 */
function authMethods(parameters: Parameters): ReadonlySet<AuthMethod> {
  const names = parameters.get('require_auth')?.split(',');
  if (!names) return new Set(AUTH_METHODS);
  const unsupported = ['gss', 'sspi', 'oauth'];
  const listed = names.map((name) => name.trim().replace(/^!/, ''));
  const negated = names.filter((name) => name.trim().startsWith('!')).length;
  const isKnown = listed.every((name) => [...AUTH_METHODS, ...unsupported].includes(name));
  const allowed = AUTH_METHODS.filter((method) => listed.includes(method) !== negated > 0);
  if (!isKnown || (negated > 0 && negated < names.length) || allowed.length === 0) {
    throw parameters.error('require_auth', `${AUTH_METHODS.join(', ')}, or each of them with an exclamation mark`);
  }
  return new Set(allowed);
}

function serverSettings(parameters: Parameters, given: GivenOptions): Record<string, string> {
  const options = parameters.get('options');
  const name = parameters.get('application_name') ?? parameters.get('fallback_application_name') ?? 'express-pg-store';
  const settings = {
    application_name: name,
    ...(options === undefined ? {} : { options }),
    ...parameters.serverSettings,
    ...given.connection,
  };
  const texts = Object.entries(settings).filter(([, value]) => value !== undefined && value !== null && value !== '');
  for (const [setting, value] of texts) {
    if (`${setting}${value}`.includes('\0')) {
      throw new TypeError('PgStore: option `postgres.connection`: expected settings without NUL characters');
    }
  }
  return Object.fromEntries(texts.map(([setting, value]) => [setting, String(value)]));
}

/** What a host must be. Among several hosts it is one that accepts writes, even if the app has not asked for that. */
function targetOf(parameters: Parameters, given: GivenOptions, hosts: readonly Host[]): Settings['target'] {
  const expected = 'read-write or primary, because a store writes';
  const target = given.target_session_attrs ?? parameters.get('target_session_attrs');
  if (target === undefined || target === null) return hosts.length > 1 ? 'read-write' : undefined;
  if (target === 'any' || target === 'read-write') return 'read-write';
  if (target === 'primary') return target;
  if (given.target_session_attrs === undefined) throw parameters.error('target_session_attrs', expected);
  throw new TypeError(`PgStore: option \`postgres.target_session_attrs\`: expected ${expected}`);
}

/** The delay of the first keep-alive packet in milliseconds; 0: none is sent. */
function keepAliveOf(parameters: Parameters, given: GivenOptions): number {
  if (parameters.boolean('keepalives') === false) return 0;
  const seconds = parameters.seconds('keepalives_idle') || parameters.seconds('keep_alive');
  return 1000 * Number(given.keep_alive ?? seconds ?? DEFAULT_KEEP_ALIVE_SECONDS);
}

/** Options that are not passed on to Postgres.js: the store reads them itself, or sets them. */
const NOT_FOR_THE_CLIENT = new Set(
  `host hostname port path database db user username password pass ssl sslnegotiation connect_timeout keep_alive
  target_session_attrs connection socket types transform publications fetch_types backoff no_prepare onnotify`.split(
    /\s+/,
  ),
);

function clientOptions(parameters: Parameters, given: GivenOptions): Record<string, unknown> {
  const isPooled = parameters.boolean('pgbouncer') === true;
  const prepare = given.prepare ?? (given.no_prepare ? false : (parameters.boolean('prepare') ?? !isPooled));
  const ofTheApp = Object.entries(given).filter(
    ([name, value]) => !NOT_FOR_THE_CLIENT.has(name) && value !== undefined,
  );
  const options = {
    idle_timeout: parameters.seconds('idle_timeout') ?? null,
    ...(parameters.get('max_lifetime') === undefined ? {} : { max_lifetime: parameters.seconds('max_lifetime') }),
    // Without this function Postgres.js prints the server's notices to the console.
    onnotice: () => {},
    ...Object.fromEntries(ofTheApp),
    prepare: prepare !== false,
  };
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => [name, TIMES.has(name) ? withinTimers(value) : value]),
  );
}

/** Options in seconds after which Postgres.js ends a connection. */
const TIMES: ReadonlySet<string> = new Set(['idle_timeout', 'max_lifetime']);

/** Limits a time to the longest one of a timer. After a longer one, Postgres.js would end a connection at once. */
function withinTimers(seconds: unknown): unknown {
  const longest = Math.floor(LONGEST_TIMER_MS / 1000);
  return Number(seconds) > longest ? longest : seconds;
}
