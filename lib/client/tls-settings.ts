/** Translates libpq's parameters about TLS, such as `sslmode`, to options of `node:tls`. */

import { X509Certificate } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import tls from 'node:tls';
import { codeOf } from '../errors.js';
import type { ParameterName, Parameters } from './parameters.js';

export interface TlsSettings {
  /** Whether TLS is used: never, if the server offers it, or always. */
  readonly mode: 'disable' | 'prefer' | 'require';
  /** Whether TLS begins at once, without asking the server whether it offers it (`sslnegotiation=direct`). */
  readonly isDirect: boolean;
  /** Whether the server is told the name of the host (Server Name Indication). */
  readonly sendsHostName: boolean;
  /** Options of `tls.connect`. */
  readonly options: tls.ConnectionOptions;
}

/** The values of libpq's `sslmode`, and the value `no-verify` of node-postgres. */
const MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full', 'no-verify'] as const;
type Mode = (typeof MODES)[number];

const VERSIONS = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const;

/** The settings about TLS in option `postgres`, which take precedence over parameters. */
interface TlsOptions {
  /** A value of `sslmode`, `true` for `verify-full`, `false` for `disable`, or options of `tls.connect`. */
  readonly ssl?: unknown;
  readonly sslnegotiation?: unknown;
}

/**
 * The TLS settings of the store's own connections.
 *
 * @throws TypeError that names the parameter, the environment variable or the option which cannot be honoured
 */
export function tlsSettings(parameters: Parameters, given: TlsOptions): TlsSettings {
  const negotiation = given.sslnegotiation ?? parameters.oneOf('sslnegotiation', ['postgres', 'direct']);
  const isDirect = negotiation === 'direct';
  const mode = modeOf(parameters, given.ssl);
  if (isDirect && !requiresTls(mode)) {
    throw new TypeError(
      `PgStore: ${parameters.source('sslnegotiation')}: \`direct\` needs \`sslmode\` \`require\` or stricter`,
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
    // A certificate that cannot be used is an error of the constructor, not of a connection later.
    tls.createSecureContext(options);
  } catch (error) {
    const [source, reason] = [sourcesOf(parameters, given), (error as Error).message];
    throw new TypeError(`PgStore: ${source}: the certificates for TLS cannot be used: ${reason}`, { cause: error });
  }
  return { mode: requiresTls(mode) ? 'require' : 'prefer', isDirect, sendsHostName, options };
}

/** The parameters and the option that certificates, keys and versions come from, as error messages say it. */
function sourcesOf(parameters: Parameters, given: TlsOptions): string {
  const names = ['sslcert', 'sslkey', 'sslpassword', 'sslcrl', 'sslrootcert'] as const;
  const sources = names.filter((name) => parameters.get(name) !== undefined).map((name) => parameters.source(name));
  if (given.ssl && typeof given.ssl === 'object') sources.push('option `postgres.ssl`');
  return sources.join(', ') || 'the files in ~/.postgresql';
}

/** Whether a connection without TLS is out of the question. */
function requiresTls(mode: Mode): boolean {
  return !/^(disable|allow|prefer)$/.test(mode);
}

/** How a connection is protected: as option `postgres.ssl` says, else as the parameters say. */
function modeOf(parameters: Parameters, ssl: unknown): Mode {
  if (ssl !== undefined && ssl !== null) return modeOfOption(ssl);
  // libpq allows the authorities of the system only with `verify-full`. Here they are those that Node.js knows.
  if (parameters.get('sslrootcert') === 'system') return 'verify-full';
  const mode = parameters.oneOf('sslmode', MODES);
  const ofOtherClients = modeOfOtherClients(parameters);
  if (mode && !requiresTls(mode) && ofOtherClients && requiresTls(ofOtherClients)) {
    throw new TypeError(`PgStore: ${parameters.source('ssl')} asks for TLS, but \`sslmode\` does not require it`);
  }
  if (mode) return mode;
  if (ofOtherClients) return ofOtherClients;
  // An app that gives certificates or versions for TLS wants TLS, even without `sslmode`. If it gives certificates of
  // authorities, the server is checked against them.
  const isGiven = (name: ParameterName) => parameters.get(name) !== undefined;
  if (isGiven('sslrootcert') || isGiven('sslcrl')) return 'verify-full';
  const asks = (['sslcert', 'sslkey', 'ssl_min_protocol_version', 'ssl_max_protocol_version'] as const).some(isGiven);
  const isRequired = parameters.get('channel_binding') === 'require' || parameters.get('sslnegotiation') === 'direct';
  return asks || isRequired ? 'require' : 'disable';
}

/** The mode that option `postgres.ssl` stands for. */
function modeOfOption(ssl: unknown): Mode {
  if (ssl === true || typeof ssl === 'object') return 'verify-full';
  if (ssl === false) return 'disable';
  const mode = MODES.find((name) => name === ssl);
  if (mode) return mode;
  throw new TypeError(`PgStore: option \`postgres.ssl\`: expected a boolean, an object or ${MODES.join(', ')}`);
}

/**
 * The mode that parameter `ssl` of other clients stands for. In node-postgres, Postgres.js and JDBC, `ssl=true` checks
 * the server's certificate.
 */
function modeOfOtherClients(parameters: Parameters): Mode | undefined {
  const ssl = parameters.get('ssl');
  if (ssl === undefined) return undefined;
  const mode = MODES.find((name) => name === ssl);
  if (mode) return mode;
  return parameters.boolean('ssl') ? 'verify-full' : 'disable';
}

/** The options of `tls.connect` for a mode other than `disable`. */
function optionsOf(parameters: Parameters, mode: Mode): tls.ConnectionOptions {
  const rootFile = parameters.get('sslrootcert') ?? defaultFile('root.crt');
  const hasRoot = rootFile !== undefined && rootFile !== 'system';
  const revoked = parameters.get('sslcrl');
  // As in libpq, `require` checks the server's certificate if there is a file with authorities.
  const verifies = /^verify/.test(mode) || (mode === 'require' && (hasRoot || revoked !== undefined));
  const passphrase = parameters.get('sslpassword');
  return {
    ...(hasRoot ? { ca: readAuthorities(parameters, rootFile) } : {}),
    ...(revoked === undefined ? {} : { crl: readFile(parameters, 'sslcrl', revoked) }),
    ...clientCertificate(parameters),
    ...(passphrase === undefined ? {} : { passphrase }),
    ...versions(parameters),
    rejectUnauthorized: verifies,
    // Only `verify-full` compares the certificate's name with the host's.
    ...(mode === 'verify-full' ? {} : { checkServerIdentity: () => undefined }),
  };
}

/** The certificate with which the client authenticates itself, and its key. */
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

/** The path of a file in libpq's folder `.postgresql` in the home folder, if the file exists. */
function defaultFile(name: string): string | undefined {
  const file = path.join(os.homedir(), '.postgresql', name);
  return fs.existsSync(file) ? file : undefined;
}

/** The certificates of authorities. Node.js would ignore those that it cannot parse. */
function readAuthorities(parameters: Parameters, file: string): Buffer {
  const bytes = readFile(parameters, 'sslrootcert', file);
  try {
    new X509Certificate(bytes);
    return bytes;
  } catch (error) {
    throw new TypeError(`PgStore: ${parameters.source('sslrootcert')}: the file contains no certificate`, {
      cause: error,
    });
  }
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
  // Node.js takes a file in another form for one without certificates.
  if (bytes.includes('-----BEGIN ')) return bytes;
  throw new TypeError(`PgStore: ${parameters.source(name)}: the certificates for TLS are not in PEM form`);
}
