/** Checks options, and makes the message of the error about a wrong one. */

/** Returns a description of what was expected, or `undefined` if the value is valid. */
export type Check = (value: unknown) => string | undefined;

/** A check that describes its expectation with a text, such as "true or false". */
export const expectation =
  (expected: string, isFine: (value: unknown) => boolean): Check =>
  (value) =>
    isFine(value) ? undefined : expected;

/** Whether the value is a string that PostgreSQL's type `text` can hold. */
export const isText = (value: unknown): value is string =>
  typeof value === 'string' && value.isWellFormed() && !value.includes('\0');
export const isNumber = (value: unknown, least: number, most = Number.MAX_SAFE_INTEGER) =>
  typeof value === 'number' && value >= least && value <= most;
export const isPositive = (value: unknown, most: number) => isNumber(value, 0, most) && value !== 0;
export const isWhole = (value: unknown, most?: number) => isNumber(value, 1, most) && Number.isInteger(value);
const isSecret = (value: unknown, leastLength: number) => typeof value === 'string' && value.length >= leastLength;
/** Whether the value is a secret of at least so many characters, or an array of one or more of these. */
export const isSecrets = (value: unknown, leastLength: number) =>
  isSecret(value, leastLength) ||
  (Array.isArray(value) && value.length > 0 && value.every((secret) => isSecret(secret, leastLength)));

export const aBoolean = expectation('true or false', (value) => typeof value === 'boolean');
export const aCount = expectation('a whole number, 1 or more', (value) => isWhole(value));
export const aFunction = expectation('a function', (value) => typeof value === 'function');
export const anObject = expectation(
  'an object',
  (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
);
export const anIdentifier = expectation(
  'an identifier of 1 to 63 bytes',
  (value) => isText(value) && value !== '' && Buffer.byteLength(value) <= 63,
);

/**
 * Options whose numbers and booleans an error message quotes. It quotes no other value, because an app may have put a
 * secret into the wrong option, such as a key into `allowPlaintext` or a connection string into `prefix`.
 */
const SHOWN = new Set(
  `createTable shards hashIds ttl permanent maxLifetime touchAfter autodelete watchInterval maxConnections
  timeout attempts delay`.split(/\s+/),
);

/** Names of other stores' options, and the option that does the same here. NAME stands for the name that was given. */
const OF_OTHER_STORES = [
  ['conString connectionString mongoUrl', '`uri`'],
  ['conObject mongoOptions', '`uri` and `postgres`'],
  ['host port database username password ssl', '`postgres: { NAME }`'],
  ['client pgPromise knex', '`pool` (node-postgres) or `sql` (Postgres.js)'],
  ['max', '`maxConnections`'],
  ['tableName collectionName', '`table`'],
  ['schemaName dbName', '`schema`'],
  ['createTableIfMissing', '`createTable`'],
  ['disableTouch', '`touchAfter`'],
  ['disableTTL', '`ttl`'],
  ['pruneSessionInterval pruneSessionRandomizedInterval cleanupInterval autoRemove autoRemoveInterval', '`autodelete`'],
  ['errorLog onDbCleanupError', 'the events `autodelete`, `retry` and `unreadable`'],
  ['crypto cryptoAdapter', '`encryptionKey`'],
  ['serializer serialize', '`toJSON` of the values'],
] as const;

/**
 * Checks an object of options.
 *
 * @param path goes before the names of options in messages: `''`, or the option that holds the object and a dot
 * @throws TypeError for an unknown or a wrong option
 */
export function check(path: string, checks: Record<string, Check>, given: object): void {
  const complaint = anObject(given);
  if (complaint) throw new TypeError(`PgStore: expected ${complaint} of options, got ${show('options', given)}`);
  for (const [name, value] of Object.entries(given)) {
    const complain = Object.hasOwn(checks, name) ? checks[name] : undefined;
    if (!complain)
      throw new TypeError(`PgStore: unknown option \`${path}${name}\`${hint(path, name, Object.keys(checks))}`);
    const expected = value === undefined ? undefined : complain(value);
    if (expected)
      throw new TypeError(`PgStore: option \`${path}${name}\`: expected ${expected}, got ${show(name, value)}`);
  }
}

/** Describes a value by its type, or quotes it if the option is one of `SHOWN`. */
function show(name: string, value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty array' : 'an array';
  if (typeof value === 'string') return value === '' ? 'an empty string' : `a string of ${value.length} characters`;
  const isShown = SHOWN.has(name) && (typeof value === 'number' || typeof value === 'boolean');
  return isShown ? String(value) : typeof value;
}

/** The end of the message about an unknown option: the option that the app probably meant, if there is one. */
function hint(path: string, name: string, known: string[]): string {
  const [, here] = OF_OTHER_STORES.find(([names]) => names.split(' ').includes(name)) ?? [];
  if (here && path === '') return `; here it is ${here.replace('NAME', name)}`;
  const near = known.find((candidate) => isMisspelling(name.toLowerCase(), candidate.toLowerCase()));
  return near ? `; did you mean \`${path}${near}\`?` : '';
}

/**
 * Whether one name is probably a misspelling of the other: they differ in one place, by at most two letters, and at
 * least half of the longer one's letters are the same.
 */
function isMisspelling(a: string, b: string): boolean {
  const shorter = Math.min(a.length, b.length);
  const longer = Math.max(a.length, b.length);
  let same = 0;
  while (same < shorter && a[same] === b[same]) same++;
  for (let end = 1; same < shorter && a.at(-end) === b.at(-end); end++) same++;
  return longer - same <= 2 && same >= longer / 2;
}
