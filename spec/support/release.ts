/**
 * Keeps schema.sql and rows as a release writes them, one row for each kind of options, for the specs of later
 * releases. `npm run release:version` runs it. Before 1.0 there is only `unreleased`, which is made anew when the table
 * changes:
 *
 *     npx tsx spec/support/release.ts unreleased
 */

import fs from 'node:fs';
import path from 'node:path';
import type { PgStoreOptions } from '../../lib/index.js';
import { closeStores, freshTable, openStore, sqlClient, stopPostgres } from './postgres.js';
import { plain } from './sessions.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
/** The folder of the rows that the next release would write. */
export const UNRELEASED = 'unreleased';
export const RELEASES = path.join(ROOT, 'spec/releases');

/** A row as a release wrote it, with the store's options and the session that it contains. */
export interface KeptRow {
  readonly options: PgStoreOptions;
  readonly sid: string;
  readonly session: Record<string, unknown>;
  readonly row: {
    sid: string;
    data: string;
    cookie: string;
    cookie_expires: number | null;
    user_id: string;
    version: number;
  };
}

const SECRET = 'a secret of at least sixteen characters';
const KEY = '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f';
const WAYS: PgStoreOptions[] = [
  {},
  { prefix: 'app:' },
  { secret: SECRET },
  { hashIds: true },
  { secret: SECRET, hashIds: true },
  { encryptionKey: KEY },
  { prefix: 'app:', secret: SECRET, hashIds: true, encryptionKey: KEY },
];

async function rows(): Promise<KeptRow[]> {
  const sql = await sqlClient();
  const kept: KeptRow[] = [];
  for (const options of WAYS) {
    const table = freshTable();
    const store = await openStore({ table, ...options });
    const sid = `sid-${WAYS.indexOf(options)}`;
    const session = { passport: { user: 'ann' }, text: 'Zoë "\\" 😀', nested: { list: [1, null, true], n: 0.1 } };
    await store.set(sid, plain(session));
    const [row] = await sql<KeptRow['row'][]>`
      select sid, data::text, cookie::text, cookie_expires, user_id, version from ${sql(table)}`;
    if (row) kept.push({ options, sid, session, row });
  }
  return kept;
}

async function keep(): Promise<void> {
  const { version } = JSON.parse(fs.readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
  const [name = version] = process.argv.slice(2);
  const folder = path.join(RELEASES, name);
  try {
    // This fails if the release exists already, because the rows of a release must not change.
    fs.mkdirSync(folder, { recursive: name === UNRELEASED });
    fs.copyFileSync(path.join(ROOT, 'docs/schema.sql'), path.join(folder, 'schema.sql'));
    fs.writeFileSync(path.join(folder, 'rows.json'), `${JSON.stringify(await rows(), null, 2)}\n`);
  } finally {
    await closeStores();
    await stopPostgres();
  }
}

if (process.argv[1] === import.meta.filename) void keep();
