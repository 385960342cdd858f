/** How a connection is encrypted, and what it checks: libpq's `sslmode` and its relatives, in terms of node:tls. */

import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { codeOf } from '../errors.js';
import type { ParameterName, Parameters } from './parameters.js';

export interface TlsSettings {
  /** `prefer`: TLS where the server offers it. */
  readonly mode: 'disable' | 'prefer' | 'require';
  /** TLS from the first byte on, without asking the server whether it offers it (`sslnegotiation=direct`). */
  readonly isDirect: boolean;
  /** Whether the server is told the name of the host (SNI). */
  readonly sendsHostName: boolean;
  /** For tls.connect. */
  readonly options: tls.ConnectionOptions;
}

/** libpq's values of `sslmode`, and node-postgres's `no-verify`. */
const MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full', 'no-verify'] as const;
type Mode = (typeof MODES)[number];

const VERSIONS = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const;

/** Options of the app, which go before parameters. */
export interface TlsOptions {
  /** A value of `sslmode`, `true` for `verify-full`, `false` for `disable`, or options of tls.connect. */
  readonly ssl?: unknown;
  readonly sslnegotiation?: unknown;
}

/** @throws TypeError that names the parameter, the environment variable or the option */
export function tlsSettings(parameters: Parameters, given: TlsOptions): TlsSettings {
  const negotiation = given.sslnegotiation ?? parameters.oneOf('sslnegotiation', ['postgres', 'direct']);
  const isDirect = negotiation === 'direct';
  const mode = modeOf(parameters, given.ssl);
  if (isDirect && !/^(require|verify|no-verify)/.test(mode)) {
    throw new TypeError(
      `PgStore: ${parameters.source('sslnegotiation')}: direct needs \`sslmode\` require or stricter`,
    );
  }
  const sendsHostName = parameters.boolean('sslsni') ?? true;
  if (mode === 'disable') return { mode, isDirect, sendsHostName, options: {} };
  const options = {
    ...optionsOf(parameters, mode),
    ...(typeof given.ssl === 'object' ? given.ssl : {}),
    ...(isDirect ? { ALPNProtocols: ['postgresql'] } : {}),
  };
  try {
    // Later, when a connection is opened, its error would reach no call.
    tls.createSecureContext(options);
  } catch (error) {
    throw new TypeError(`PgStore: the certificates for TLS: ${(error as Error).message}`, { cause: error });
  }
  return { mode: /^(allow|prefer)$/.test(mode) ? 'prefer' : 'require', isDirect, sendsHostName, options };
}

function modeOf(parameters: Parameters, ssl: unknown): Mode {
  if (ssl !== undefined && ssl !== null) return modeOfOption(ssl);
  // libpq demands `verify-full` for the authorities that the system knows; here these are Node.js's.
  if (parameters.get('sslrootcert') === 'system') return 'verify-full';
  const mode = parameters.oneOf('sslmode', MODES) ?? modeOfOtherClients(parameters);
  if (mode) return mode;
  // Who says how to check a server, or what to show it, asks for TLS; without `sslmode` as much of it as can be had.
  const isGiven = (name: ParameterName) => parameters.get(name) !== undefined;
  if (isGiven('sslrootcert') || isGiven('sslcrl')) return 'verify-full';
  const asks = (['sslcert', 'sslkey', 'ssl_min_protocol_version', 'ssl_max_protocol_version'] as const).some(isGiven);
  const isRequired = parameters.get('channel_binding') === 'require' || parameters.get('sslnegotiation') === 'direct';
  return asks || isRequired ? 'require' : 'disable';
}

/** Option `postgres.ssl`. */
function modeOfOption(ssl: unknown): Mode {
  if (ssl === true || typeof ssl === 'object') return 'verify-full';
  if (ssl === false) return 'disable';
  const mode = MODES.find((name) => name === ssl);
  if (mode) return mode;
  throw new TypeError(`PgStore: option \`postgres.ssl\`: expected a boolean, an object or ${MODES.join(', ')}`);
}

/** Parameter `ssl`: with node-postgres, Postgres.js and JDBC, `ssl=true` checks the server's certificate. */
function modeOfOtherClients(parameters: Parameters): Mode | undefined {
  const ssl = parameters.get('ssl');
  if (ssl === undefined) return undefined;
  const mode = MODES.find((name) => name === ssl);
  if (mode) return mode;
  return parameters.boolean('ssl') ? 'verify-full' : 'disable';
}

function optionsOf(parameters: Parameters, mode: Mode): tls.ConnectionOptions {
  const rootFile = parameters.get('sslrootcert') ?? defaultFile('root.crt');
  const hasRoot = rootFile !== undefined && rootFile !== 'system';
  const revoked = parameters.get('sslcrl');
  // As in libpq, a file with authorities makes `require` check against them.
  const verifies = /^verify/.test(mode) || (mode === 'require' && (hasRoot || revoked !== undefined));
  const passphrase = parameters.get('sslpassword');
  return {
    ...(hasRoot ? { ca: readFile(parameters, 'sslrootcert', rootFile) } : {}),
    ...(revoked === undefined ? {} : { crl: readFile(parameters, 'sslcrl', revoked) }),
    ...clientCertificate(parameters),
    ...(passphrase === undefined ? {} : { passphrase }),
    ...versions(parameters),
    rejectUnauthorized: verifies,
    // Only `verify-full` compares the certificate's name with the host's.
    ...(mode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
  };
}

function clientCertificate(parameters: Parameters): tls.ConnectionOptions {
  const certificate = parameters.get('sslcert') ?? defaultFile('postgresql.crt');
  if (parameters.get('sslcertmode') === 'disable') return {};
  if (certificate === undefined) {
    if (parameters.get('sslkey') === undefined) return {};
    throw new TypeError(`PgStore: ${parameters.source('sslkey')} needs \`sslcert\``);
  }
  const key = parameters.get('sslkey') ?? defaultFile('postgresql.key');
  if (key === undefined) throw new TypeError(`PgStore: ${parameters.source('sslcert')} needs \`sslkey\``);
  return { cert: readFile(parameters, 'sslcert', certificate), key: readFile(parameters, 'sslkey', key) };
}

function versions(parameters: Parameters): tls.ConnectionOptions {
  const least = versionOf(parameters, 'ssl_min_protocol_version');
  const most = versionOf(parameters, 'ssl_max_protocol_version');
  if (least && most && VERSIONS.indexOf(least) > VERSIONS.indexOf(most)) {
    throw parameters.error('ssl_max_protocol_version', `${least} or newer`);
  }
  return { ...(least ? { minVersion: least } : {}), ...(most ? { maxVersion: most } : {}) };
}

function versionOf(parameters: Parameters, name: ParameterName): (typeof VERSIONS)[number] | undefined {
  const value = parameters.get(name);
  const version = VERSIONS.find((known) => known.toLowerCase() === value?.toLowerCase());
  if (value !== undefined && !version) throw parameters.error(name, VERSIONS.join(', '));
  return version;
}

/** A file of libpq's folder in the home folder, where it is there. */
function defaultFile(name: string): string | undefined {
  const file = path.join(os.homedir(), '.postgresql', name);
  return fs.existsSync(file) ? file : undefined;
}

function readFile(parameters: Parameters, name: ParameterName, file: string): Buffer {
  let bytes: Buffer;
  try {
    bytes = fs.readFileSync(file);
  } catch (error) {
    throw new TypeError(`PgStore: ${parameters.source(name)}: the file cannot be read (${codeOf(error)})`, {
      cause: error,
    });
  }
  // Node.js takes a file of anything else as one without certificates.
  if (bytes.includes('-----BEGIN ')) return bytes;
  throw new TypeError(`PgStore: ${parameters.source(name)}: the certificates for TLS are not in PEM form`);
}
