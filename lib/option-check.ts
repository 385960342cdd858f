/** How options are checked, and what the error about a wrong one says. */

/** Says what was expected, or nothing where the value is fine. */
export type Check = (value: unknown) => string | undefined;

export const expectation =
  (expected: string, isFine: (value: unknown) => boolean): Check =>
  (value) =>
    isFine(value) ? undefined : expected;

export const isText = (value: unknown): value is string =>
  typeof value === 'string' && value.isWellFormed() && !value.includes('\0');
export const isNumber = (value: unknown, least: number, most = Number.MAX_SAFE_INTEGER) =>
  typeof value === 'number' && value >= least && value <= most;
export const isPositive = (value: unknown, most: number) => isNumber(value, 0, most) && value !== 0;
export const isWhole = (value: unknown, most?: number) => isNumber(value, 1, most) && Number.isInteger(value);
const isKey = (value: unknown, length: number) => typeof value === 'string' && value.length >= length;
export const isKeys = (value: unknown, length: number) =>
  isKey(value, length) || (Array.isArray(value) && value.length > 0 && value.every((key) => isKey(key, length)));

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
 * Options whose numbers and booleans an error shows. It shows no other value: a secret may stand in the wrong place,
 * such as a key in `allowPlaintext` or a connection string in `prefix`.
 */
const SHOWN = new Set(
  `createTable shards hashIds ttl permanent maxLifetime touchAfter autodelete watchInterval maxConnections
  timeout attempts delay`.split(/\s+/),
);

/** What options of other stores are here; NAME stands for the option itself. */
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

/** @throws TypeError that names the option, says what was expected and what it got */
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

function show(name: string, value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty array' : 'an array';
  if (typeof value === 'string') return value === '' ? 'an empty string' : `a string of ${value.length} characters`;
  const isShown = SHOWN.has(name) && (typeof value === 'number' || typeof value === 'boolean');
  return isShown ? String(value) : typeof value;
}

function hint(path: string, name: string, known: string[]): string {
  const [, here] = OF_OTHER_STORES.find(([names]) => names.split(' ').includes(name)) ?? [];
  if (here && path === '') return `; here it is ${here.replace('NAME', name)}`;
  const near = known.find((candidate) => isSlip(name.toLowerCase(), candidate.toLowerCase()));
  return near ? `; did you mean \`${path}${near}\`?` : '';
}

/**
 * Whether the names differ in one place of at most two letters, and share at least half of theirs.
 */
function isSlip(a: string, b: string): boolean {
  const [shorter, longer] = [Math.min(a.length, b.length), Math.max(a.length, b.length)];
  let same = 0;
  while (same < shorter && a[same] === b[same]) same++;
  for (let end = 1; same < shorter && a.at(-end) === b.at(-end); end++) same++;
  return longer - same <= 2 && same >= longer / 2;
}
