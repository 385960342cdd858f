/** The connection parameters of libpq, read from the connection string and from environment variables. */

import { parseConnectionString } from './connection-string.js';

/** The parameters of libpq that the store honours or refuses, and their environment variables. */
const VARIABLES = {
  host: 'PGHOST',
  hostaddr: 'PGHOSTADDR',
  port: 'PGPORT',
  dbname: 'PGDATABASE',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  passfile: 'PGPASSFILE',
  require_auth: 'PGREQUIREAUTH',
  channel_binding: 'PGCHANNELBINDING',
  connect_timeout: 'PGCONNECT_TIMEOUT',
  options: 'PGOPTIONS',
  application_name: 'PGAPPNAME',
  fallback_application_name: undefined,
  keepalives: undefined,
  keepalives_idle: undefined,
  sslmode: 'PGSSLMODE',
  sslnegotiation: 'PGSSLNEGOTIATION',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  sslpassword: undefined,
  sslcertmode: 'PGSSLCERTMODE',
  sslrootcert: 'PGSSLROOTCERT',
  sslcrl: 'PGSSLCRL',
  sslsni: 'PGSSLSNI',
  ssl_min_protocol_version: 'PGSSLMINPROTOCOLVERSION',
  ssl_max_protocol_version: 'PGSSLMAXPROTOCOLVERSION',
  requirepeer: 'PGREQUIREPEER',
  gssencmode: 'PGGSSENCMODE',
  target_session_attrs: 'PGTARGETSESSIONATTRS',
  load_balance_hosts: 'PGLOADBALANCEHOSTS',
  min_protocol_version: 'PGMINPROTOCOLVERSION',
  service: 'PGSERVICE',
  replication: undefined,
} as const;

/** Parameters of other clients that the store honours. */
const OF_OTHER_CLIENTS = [
  // node-postgres, JDBC
  'ssl',
  // Postgres.js
  'prepare',
  'idle_timeout',
  'max_lifetime',
  'keep_alive',
  // Prisma
  'pgbouncer',
] as const;

export type ParameterName = keyof typeof VARIABLES | (typeof OF_OTHER_CLIENTS)[number];

const KNOWN: ReadonlySet<string> = new Set([...Object.keys(VARIABLES), ...OF_OTHER_CLIENTS]);

/**
 * Parameters of libpq and of other clients that are ignored, because they decide neither to which server a connection
 * goes nor how it is protected.
 */
const IGNORED: ReadonlySet<string> = new Set(
  `client_encoding gssdelegation gsslib keepalives_count keepalives_interval krbsrvname max_protocol_version sslcompression
  tcp_user_timeout
  connection_limit max_connection_lifetime max_idle_connection_lifetime pool_timeout schema single_use_connections
  socket_timeout statement_cache_size
  supa workaround
  uselibpqcompat
  backoff debug fetch_types max max_pipeline publications
  checkout_timeout encoding pool reaping_frequency
  pool_max_conn_idle_time pool_max_conn_lifetime pool_max_conns pool_min_conns
  adaptiveFetch adaptiveFetchMaximum adaptiveFetchMinimum allowEncodingChanges ApplicationName assumeMinServerVersion
  autosave binaryTransfer binaryTransferDisable binaryTransferEnable cancelSignalTimeout cleanupSavepoints
  connectTimeout currentSchema databaseMetadataCacheFields databaseMetadataCacheFieldsMiB defaultRowFetchSize
  disableColumnSanitiser escapeSyntaxCallMode groupStartupParameters gssResponseTimeout hideUnprivilegedObjects
  hostRecheckSeconds loggerFile loggerLevel loginTimeout logServerErrorDetail logUnclosedConnections maxResultBuffer
  maxSendBufferSize preferQueryMode prepareThreshold preparedStatementCacheQueries preparedStatementCacheSizeMiB
  protocolVersion quoteReturningIdentifiers readOnlyMode reWriteBatchedInserts receiveBufferSize sendBufferSize
  socketTimeout sslResponseTimeout stringtype tcpKeepAlive tcpNoDelay unknownLength xmlFactoryFactory`.split(/\s+/),
);

/** Unknown parameters that probably ask for protection. They are refused: ignoring them could expose the connection. */
const UNKNOWN_PROTECTION = /ssl|tls|encrypt|^secur|^verif|^trust|^cert|^gss|^krb|^oauth|^scram_|^authentication/i;

/** Unknown parameters that probably choose the server or the database. Without them, another one would be used. */
const UNKNOWN_PLACE =
  /socket|unix_sock|cloudsql|^path$|^host|^server$|^servicefile$|^database$|^targetServerType$|^pg(host|port|dbname)/i;

/** Parameters that are refused without a value, as in libpq: it may be that of a request for protection. */
const NEVER_EMPTY: ReadonlySet<string> = new Set(['sslmode', 'ssl', 'channel_binding']);

interface Parameter {
  readonly value: string;
  /** Where the value comes from, as error messages say it. */
  readonly source: string;
}

/** Parameters from the connection string; those that it lacks come from environment variables. */
export class Parameters {
  /**
   * Parameters of the connection string that are not libpq's, such as `search_path`: settings of the server, to which
   * they are sent.
   */
  readonly serverSettings: Readonly<Record<string, string>>;
  readonly #given = new Map<string, Parameter>();

  /** @throws TypeError for a malformed connection string, and for a parameter or variable that cannot be honoured */
  constructor(uri: string | undefined, env: NodeJS.ProcessEnv) {
    const ofUri = uri === undefined ? new Map<string, string>() : parseConnectionString(uri);
    refuseUnknownVariables(env);
    for (const [name, variable] of Object.entries(VARIABLES)) {
      const value = variable && env[variable];
      if (value) this.#given.set(name, { value, source: `environment variable \`${variable}\`` });
    }
    // The two say the same thing, so the variable does not count beside the connection string.
    if (ofUri.has('ssl')) this.#given.delete('sslmode');
    this.serverSettings = Object.fromEntries([...ofUri].filter(([name, value]) => !this.#take(name, value)));
    this.#refuseUnsupportedValues();
  }

  /**
   * Takes a parameter of the connection string.
   *
   * @returns whether it is known; otherwise it is a setting of the server
   * @throws TypeError for a name that cannot be honoured
   */
  #take(name: string, value: string): boolean {
    const source = `parameter \`${name}\` of option \`uri\``;
    if (value === '' && NEVER_EMPTY.has(name)) throw new TypeError(`PgStore: ${source} has no value`);
    if (IGNORED.has(name)) return true;
    if (!KNOWN.has(name)) {
      checkSetting(name, source);
      return false;
    }
    if (value !== '') this.#given.set(name, { value, source });
    return true;
  }

  /** The parameter's text; `undefined` if it is not given, or is empty. */
  get(name: ParameterName): string | undefined {
    return this.#given.get(name)?.value;
  }

  /** The parameter's text, which must be one of `allowed`. @throws TypeError for any other text */
  oneOf<T extends string>(name: ParameterName, allowed: readonly T[]): T | undefined {
    const value = this.get(name);
    if (value === undefined || allowed.includes(value as T)) return value as T | undefined;
    throw this.error(name, allowed.join(', '));
  }

  /** The parameter as a number of seconds. @throws TypeError for a text that is not a number */
  seconds(name: ParameterName): number | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    // libpq treats a negative time as 0.
    if (!/^-?\d+(\.\d+)?$/.test(value)) throw this.error(name, 'a number of seconds');
    return Math.max(0, Number(value));
  }

  /** The parameter as a boolean. @throws TypeError for any other text */
  boolean(name: ParameterName): boolean | undefined {
    const value = this.get(name)?.toLowerCase();
    if (value === undefined) return undefined;
    if (/^(1|true|on|yes)$/.test(value)) return true;
    if (/^(0|false|off|no)$/.test(value)) return false;
    throw this.error(name, '1 or 0');
  }

  /**
   * The error about a parameter with a wrong value. It does not quote the value, which may be part of a password that
   * was not encoded.
   */
  error(name: ParameterName, expected: string): TypeError {
    return new TypeError(`PgStore: ${this.source(name)}: expected ${expected}, got something else`);
  }

  /** Where the parameter comes from, as error messages say it. */
  source(name: ParameterName): string {
    return this.#given.get(name)?.source ?? `parameter \`${name}\``;
  }

  /** @throws TypeError for parameters, and values of parameters, that ask for something which the store cannot do */
  #refuseUnsupportedValues(): void {
    this.oneOf('gssencmode', ['disable', 'prefer']);
    this.oneOf('sslcertmode', ['disable', 'allow']);
    this.oneOf('min_protocol_version', ['3.0']);
    if (this.get('replication') !== undefined && this.boolean('replication')) {
      throw this.error('replication', 'false (a store needs no replication connection)');
    }
    for (const name of ['requirepeer', 'service'] as const) {
      if (this.get(name) !== undefined) throw new TypeError(`PgStore: ${this.source(name)} is not supported`);
    }
  }
}

/**
 * Checks the name of a setting of the server. An unknown setting is refused by the server.
 *
 * @throws TypeError for a name that is probably a parameter of libpq in another spelling, asks for protection, or
 * chooses the server
 */
function checkSetting(name: string, source: string): void {
  const similar = [...KNOWN].find((known) => simplified(known) === simplified(name));
  if (similar) throw new TypeError(`PgStore: ${source} is unknown; did you mean \`${similar}\`?`);
  if (UNKNOWN_PROTECTION.test(name) || UNKNOWN_PLACE.test(name)) {
    throw new TypeError(`PgStore: ${source} is not supported`);
  }
}

function simplified(name: string): string {
  return name.toLowerCase().replace(/[-_]/g, '');
}

/** Refuses unknown variables about TLS, because a misspelt one would otherwise be ignored, and TLS with it. */
function refuseUnknownVariables(env: NodeJS.ProcessEnv): void {
  const known: ReadonlySet<string | undefined> = new Set([...Object.values(VARIABLES), 'PGSSLCOMPRESSION']);
  for (const [name, value] of Object.entries(env)) {
    if (value && /^PG_?(SSL|REQUIRE_?SSL)/.test(name) && !known.has(name)) {
      throw new TypeError(`PgStore: environment variable \`${name}\` is unknown; did you mean \`PGSSLMODE\`?`);
    }
  }
}
