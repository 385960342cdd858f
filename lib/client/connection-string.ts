/** Splits a PostgreSQL connection URI into connection parameters, by the rules of libpq ("Connection URIs"). */

/**
 * A URI's credentials, hosts, database and query. The credentials end at the first `@`, which must come before any `/`.
 */
const URI = /^postgres(?:ql)?:\/\/(?:([^@/]*)@)?([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/is;

/** One of the hosts: an IPv6 address in brackets, or a name or another address, each with an optional port. */
const HOST = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(.*))?$/s;

/** Parameters whose values may contain an `@` that is not encoded. */
const WITH_AT: ReadonlySet<string> = new Set(['user', 'password', 'application_name']);

/**
 * The decoded parameters of a connection URI under libpq's names: `host`, `port`, `user`, `password`, `dbname`, and
 * those after `?`. Several hosts, and their ports, are joined by commas.
 *
 * @throws TypeError that quotes nothing of the URI: if it cannot be parsed, any part may be the password
 */
export function parseConnectionString(uri: string): Map<string, string> {
  const [, credentials = '', hosts = '', path, query = ''] = URI.exec(uri) ?? refuse();
  const database = path ?? '';
  // An `@` or `?` in the wrong place belongs to a password whose special characters were not encoded. The rest of that
  // password would be taken for the name of a host, a database or a parameter, and would appear in error messages.
  if (credentials.includes('?') || hosts.includes('@') || database.includes('@')) refuse();
  // After a wrong separator, a request for TLS would be taken for a part of a name or of another parameter's value.
  if (/[&;?]\s*ssl/i.test(decode(database)) || /[;?]\s*ssl/i.test(query)) {
    throw new TypeError(
      'PgStore: option `uri`: expected parameters such as `sslmode` after a single `?`, with `&` between them',
    );
  }
  const parameters = new Map<string, string>();
  const add = (name: string, text: string) => {
    if (text !== '') parameters.set(name, decode(text));
  };
  const colon = credentials.indexOf(':');
  add('user', colon < 0 ? credentials : credentials.slice(0, colon));
  add('password', colon < 0 ? '' : credentials.slice(colon + 1));
  const hostParts = hosts.split(',').map((host) => HOST.exec(host) ?? refuse());
  const names = hostParts.map(([, address, name]) => decode(address ?? name ?? ''));
  // No host name contains a space or a control character. The folder of a Unix socket may; it begins with a slash.
  if (names.some((name) => /^[^/]*[\s\p{Cc}]/u.test(name))) refuse();
  const ports = hostParts.map(([, , , port]) => port ?? '');
  if (names.some((name) => name !== '')) parameters.set('host', names.join());
  if (ports.some((port) => port !== '')) add('port', ports.join());
  add('dbname', database);
  for (const [name, value] of queryParameters(query)) parameters.set(name, value);
  return parameters;
}

function queryParameters(query: string): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const part of query.split('&').filter((text) => text !== '')) {
    const equals = part.indexOf('=');
    if (equals < 1) refuse();
    const name = decode(part.slice(0, equals));
    // In any other parameter it shows that this is the rest of a password.
    if (part.includes('@') && !WITH_AT.has(name)) refuse();
    if (parameters.has(name)) throw new TypeError(`PgStore: option \`uri\`: parameter \`${name}\` is given twice`);
    parameters.set(name, decode(part.slice(equals + 1)));
  }
  return parameters;
}

/** Decodes percent-encoding. A `+` stays a plus sign, unlike in the query of a web page's form. */
function decode(text: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(text);
  } catch {
    return refuse();
  }
  return decoded.includes('\0') ? refuse() : decoded;
}

function refuse(): never {
  throw new TypeError(
    'PgStore: option `uri`: expected a connection string, such as postgres://user@host/database, got something else; ' +
      'special characters, above all in a password, are written as %40 for @, %2F for /, %3F for ?, %25 for %',
  );
}
