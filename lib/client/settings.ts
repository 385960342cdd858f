/**
 * The settings of the store's own connections: option `uri`, option `postgres` and the environment,
 * parsed by Postgres.js.
 */

import fs from 'node:fs';
import type net from 'node:net';
import tls from 'node:tls';
import postgres, { type Sql } from 'postgres';
import { codeOf } from '../errors.js';
import type { Options } from '../options.js';

export type Settings = Omit<postgres.ParsedOptions, 'pass' | 'path'> & {
  readonly pass: string | (() => string | Promise<string>);
  readonly path: string | false;
  readonly sslnegotiation: unknown;
  readonly socket?: (settings: object) => net.Socket | Promise<net.Socket>;
  /** Milliseconds, as `statementTimeout`. */
  readonly connectTimeout: number;
  /** The server ends a statement a little before the store gives it up. */
  readonly statementTimeout: number;
};

/** By `target_session_attrs`, what makes a host unfit. A store writes: it takes no others. */
export const UNFIT_HOST = {
  'read-write': `pg_catalog.current_setting('transaction_read_only') = 'on'`,
  primary: 'pg_catalog.pg_is_in_recovery()',
} as Record<string, string>;

/**
 * Parameters in the URIs of libpq, Prisma and hosting services, for the client: a server would
 * refuse the connection.
 */
const FOREIGN =
  /^(channel_binding|connection_limit|gss\w+|keepalives\w*|krbsrvname|passfile|pgbouncer|pool_timeout|require_auth|schema|socket_timeout|ssl\w+|statement_cache_size|supa|uselibpqcompat|workaround)$/;

/** @throws TypeError that names the option, or what Node.js says of a certificate */
export function parseSettings({ uri, postgres: given, maxConnections, timeout }: Options): Settings {
  const { host: hosts, port: ports = process.env.PGPORT || 5432 } = given;
  // Postgres.js takes a list of hosts only with a list of ports.
  const port = Array.isArray(hosts) && { port: hosts.map((_, n) => [ports].flat()[n] ?? [ports].flat()[0]) };
  const options = { max: maxConnections, onnotice: () => {}, ...given, ...port } as object;
  const parsed = (uri === undefined ? postgres(options) : clientOf(uri, options)).options as unknown as Settings;
  const { host, target_session_attrs: attributes, connect_timeout: seconds } = parsed;
  if (attributes && !UNFIT_HOST[attributes]) {
    throw new TypeError(`PgStore: target_session_attrs: expected read-write or primary, got ${attributes}`);
  }
  const parameters = Object.entries(parsed.connection);
  const foreign = Object.fromEntries(parameters.filter(([name]) => FOREIGN.test(name))) as Record<string, string>;
  const file = (name: string) => foreign[name] && fs.readFileSync(foreign[name]);
  const isFile = foreign.sslrootcert && foreign.sslrootcert !== 'system';
  const ssl = isFile ? { ca: file('sslrootcert'), cert: file('sslcert'), key: file('sslkey') } : parsed.ssl;
  // Later, in the client, its error would end the process.
  if (typeof ssl === 'object') tls.createSecureContext(ssl);
  return {
    ...parsed,
    ssl,
    prepare: parsed.prepare && foreign.pgbouncer !== 'true',
    connection: Object.fromEntries(parameters.filter(([name]) => !FOREIGN.test(name))),
    connectTimeout: Math.min(seconds * 1000 || timeout, timeout / host.length),
    statementTimeout: Math.ceil(timeout - Math.min(timeout / 10, 500)),
  };
}

/** @throws TypeError without the address: the URL parser's own quotes it, with its password */
function clientOf(uri: string, settings: object): Sql {
  try {
    if (!/^postgres(ql)?:\/\//i.test(uri)) throw new URIError();
    return postgres(uri, settings) as Sql;
  } catch (error) {
    if (!(error instanceof URIError) && codeOf(error) !== 'ERR_INVALID_URL') throw error;
    throw new TypeError(
      'PgStore: option `uri`: expected a connection string, such as postgres://user@host/database, got something else; ' +
        'special characters in a password are written as %40 for @, %25 for %',
    );
  }
}
