/**
 * Splits a connection URI of PostgreSQL into connection parameters, as libpq does ("Connection URIs" in its manual).
 */

/** Credentials, hosts, database and parameters. Credentials end at the first `@` that comes before any `/`. */
const URI = /^postgres(?:ql)?:\/\/(?:([^@/]*)@)?([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/is;

/** One of the hosts: an address of IPv6 in brackets, or anything else, and a port. */
const HOST = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(.*))?$/s;

/**
 * The parameters of a connection URI by libpq's names (`host`, `port`, `user`, `password`, `dbname` and those after
 * `?`), decoded. Several hosts are one text with commas, and so are their ports.
 *
 * @throws TypeError that shows nothing of the text, because a password may be in any part of one that is not understood
 */
export function parseConnectionString(uri: string): Map<string, string> {
  const [, credentials = '', hosts = '', path, query = ''] = URI.exec(uri) ?? refuse();
  const database = path ?? '';
  // What looks like two sets of credentials, or like a query before them, is a password with unencoded characters: its
  // end would be taken for the name of a host, and appear in messages.
  if (credentials.includes('?') || hosts.includes('@') || database.includes('@')) refuse();
  if (path === undefined && credentials === '' && query.includes('@')) refuse();
  const parameters = new Map<string, string>();
  const add = (name: string, text: string) => {
    if (text !== '') parameters.set(name, decode(text));
  };
  const colon = credentials.indexOf(':');
  add('user', colon < 0 ? credentials : credentials.slice(0, colon));
  add('password', colon < 0 ? '' : credentials.slice(colon + 1));
  const places = hosts.split(',').map((host) => HOST.exec(host) ?? refuse());
  const names = places.map(([, address, name]) => decode(address ?? name ?? ''));
  // A space or a control character is in no name of a host; a folder of Unix sockets may have any.
  if (names.some((name) => /^[^/]*[\s\p{Cc}]/u.test(name))) refuse();
  const ports = places.map(([, , , port]) => port ?? '');
  // Nor is a port anything but digits; in what was taken for parameters, the rest of a password would give names.
  if (query.includes('@') && ports.some((port) => !/^\d*$/.test(port))) refuse();
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
    if (parameters.has(name)) throw new TypeError(`PgStore: option \`uri\`: parameter \`${name}\` is given twice`);
    parameters.set(name, decode(part.slice(equals + 1)));
  }
  return parameters;
}

/** Unlike in forms of web pages, a `+` is a plus sign. */
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
      'special characters in a password are written as %40 for @, %2F for /, %3F for ?, %25 for %',
  );
}
