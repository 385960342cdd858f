/** libpq's connection parameters, as the connection string and the environment give them. */

import { parseConnectionString } from './connection-string.js';

/** The parameters of libpq that have a meaning here, and the environment variables that give them. */
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

/** Parameters that other clients have, and that mean something here. */
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

/** Parameters that say nothing about where a connection goes or how it is protected. */
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
  ApplicationName assumeMinServerVersion autosave binaryTransfer cancelSignalTimeout cleanupSavepoints connectTimeout
  currentSchema defaultRowFetchSize hostRecheckSeconds loginTimeout logUnclosedConnections maxResultBuffer
  prepareThreshold preparedStatementCacheQueries preparedStatementCacheSizeMiB reWriteBatchedInserts receiveBufferSize
  sendBufferSize socketTimeout stringtype tcpKeepAlive`.split(/\s+/),
);

/** Names that ask for protection, or that choose the server, in a way which is not known here. */
const UNKNOWN_PROTECTION =
  /ssl|tls|encrypt|^secur|^verif|^trust|^cert|^gss|^krb|^oauth|^scram_|^servicefile$|^database$|^targetServerType$/i;

interface Parameter {
  readonly value: string;
  /** Names the parameter in messages. */
  readonly source: string;
}

/** What the connection string says, and where it says nothing, the environment. */
export class Parameters {
  /** Settings of the server, such as `search_path`: other parameters of the connection string. */
  readonly serverSettings: Readonly<Record<string, string>>;
  readonly #given = new Map<string, Parameter>();

  /** @throws TypeError for a connection string that is none, or a parameter or variable that cannot be honoured */
  constructor(uri: string | undefined, env: NodeJS.ProcessEnv) {
    const serverSettings: Record<string, string> = {};
    for (const [name, variable] of Object.entries(VARIABLES)) {
      const value = variable && env[variable];
      if (value) this.#given.set(name, { value, source: `environment variable \`${variable}\`` });
    }
    refuseUnknownVariables(env);
    for (const [name, value] of uri === undefined ? [] : parseConnectionString(uri)) {
      const source = `parameter \`${name}\` of option \`uri\``;
      if (KNOWN.has(name)) this.#given.set(name, { value, source });
      else if (!IGNORED.has(name)) serverSettings[checkedSetting(name, source)] = value;
    }
    this.serverSettings = serverSettings;
    this.#refuseWhatCannotBeGiven();
  }

  /** The parameter's text; an empty one counts as not given, as with libpq. */
  get(name: ParameterName): string | undefined {
    return this.#given.get(name)?.value || undefined;
  }

  /**
   * One of the texts in `allowed`, or nothing where the parameter is not given. @throws TypeError for any other text
   */
  oneOf<T extends string>(name: ParameterName, allowed: readonly T[]): T | undefined {
    const value = this.get(name);
    if (value === undefined || allowed.includes(value as T)) return value as T | undefined;
    throw this.error(name, allowed.join(', '));
  }

  /** Seconds, or nothing where the parameter is not given. @throws TypeError for anything but a number of 0 or more */
  seconds(name: ParameterName): number | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    // libpq takes a negative time as none.
    if (!/^-?\d+(\.\d+)?$/.test(value)) throw this.error(name, 'a number of seconds');
    return Math.max(0, Number(value));
  }

  boolean(name: ParameterName): boolean | undefined {
    const value = this.get(name)?.toLowerCase();
    if (value === undefined) return undefined;
    if (/^(1|true|on|yes)$/.test(value)) return true;
    if (/^(0|false|off|no)$/.test(value)) return false;
    throw this.error(name, '1 or 0');
  }

  /** Says what was expected; not what was given, because that may be a part of a misread password. */
  error(name: ParameterName, expected: string): TypeError {
    return new TypeError(`PgStore: ${this.source(name)}: expected ${expected}, got something else`);
  }

  source(name: ParameterName): string {
    return this.#given.get(name)?.source ?? `parameter \`${name}\``;
  }

  #refuseWhatCannotBeGiven(): void {
    this.oneOf('gssencmode', ['disable', 'prefer']);
    this.oneOf('sslcertmode', ['disable', 'allow']);
    this.oneOf('min_protocol_version', ['3.0']);
    if (this.get('replication') !== undefined && this.boolean('replication')) {
      throw this.error('replication', 'no replication connection');
    }
    for (const name of ['requirepeer', 'service'] as const) {
      if (this.get(name) !== undefined) throw new TypeError(`PgStore: ${this.source(name)} is not supported`);
    }
  }
}

/** @returns the name of a setting of the server; a wrong one is refused by the server itself */
function checkedSetting(name: string, source: string): string {
  const likeThat = [...KNOWN].find((known) => simplified(known) === simplified(name));
  if (likeThat) throw new TypeError(`PgStore: ${source} is unknown; is it \`${likeThat}\`?`);
  if (UNKNOWN_PROTECTION.test(name)) throw new TypeError(`PgStore: ${source} is not supported`);
  return name;
}

function simplified(name: string): string {
  return name.toLowerCase().replace(/[-_]/g, '');
}

/** A misspelt request for TLS must not be dropped. */
function refuseUnknownVariables(env: NodeJS.ProcessEnv): void {
  const known: ReadonlySet<string | undefined> = new Set([...Object.values(VARIABLES), 'PGSSLCOMPRESSION']);
  for (const [name, value] of Object.entries(env)) {
    if (value && /^PG_?(SSL|REQUIRE_?SSL)/.test(name) && !known.has(name)) {
      throw new TypeError(`PgStore: environment variable \`${name}\` is not supported; is it \`PGSSLMODE\`?`);
    }
  }
}
