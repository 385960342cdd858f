/** A polluted `Object.prototype`, left by some other package, changes nothing in what the store does. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { freshTable, postgresUri, sqlClient } from '../support/postgres.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

/**
 * Names with which JavaScript itself does not work any more: promises (`then`), JSON (`toJSON`), property descriptors
 * (`get`, `set`, `value`, …), and names that every object has.
 */
const OF_THE_LANGUAGE = 'then toJSON get set value writable enumerable configurable constructor __proto__ length';
/** Names that Node.js 20 reads from objects of its own: sockets, streams, and their events. */
const OF_NODE = 'connect destroy handle read ready removeListener write';
/** Postgres.js 3.4 reads these from its queries and its option `transform`. */
const OF_POSTGRES_JS = 'parameters row';
/** express-session's `Cookie` reads these from `Object.prototype` itself, and cannot send them. */
const OF_EXPRESS_SESSION = 'domain priority sameSite';
const EXCEPT = `${OF_THE_LANGUAGE} ${OF_NODE} ${OF_POSTGRES_JS} ${OF_EXPRESS_SESSION}`.split(' ');

const OF_SESSIONS =
  `cookie expires maxAge originalMaxAge path secure httpOnly partitioned passport user id req except limit sids
  onProgress host hostname 0 1 2 3 -1 undefined null DATABASE_URL PGHOST PGUSER`.split(/\s+/);

/**
 * The names of all options, fields and methods in lib/, as its interfaces and classes declare them, and of a session's.
 */
function names(): string[] {
  const folder = path.join(ROOT, 'lib');
  const files = fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  const sources = files.map((file) => fs.readFileSync(path.join(folder, file), 'utf8'));
  const declared = sources.flatMap((source) => [...source.matchAll(/^ +(?:readonly )?(\w+)\??[:(]/gm)]);
  const all = new Set([...declared.map(([, name]) => name as string), ...OF_SESSIONS]);
  return [...all].filter((name) => !EXCEPT.includes(name)).sort();
}

describe('a polluted Object.prototype', () => {
  let uri: string;
  let table: string;

  before(async () => {
    uri = await postgresUri();
    table = freshTable();
  });
  after(async () => {
    await (await sqlClient()).unsafe(`drop table if exists ${table}`);
  });

  it('has names to be tried', () => {
    for (const name of ['merge', 'user', 'previous', 'except', 'cookie', 'shard', 'deadline', '0']) {
      assert(names().includes(name), name);
    }
  });

  it('changes nothing, and ends no process: each option, field and index', async () => {
    const file = path.join(ROOT, 'spec/support/polluted-process.ts');
    const child = await promisify(execFile)(process.execPath, ['--import', 'tsx', file, uri, table, names().join()]);
    const { expected, wrong } = JSON.parse(child.stdout);
    assert.deepEqual(expected.slice(0, 2), [[{ a: 0 }, { b: 1 }, { c: 2 }, null, 'bare'], { a: 0, one: 1, other: 2 }]);
    assert.deepEqual(wrong, {});
    assert.equal(child.stderr, '');
  });
});
