/** A polluted `Object.prototype`, left by some other package, changes nothing in what the store does. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { freshTable, postgresUri, sqlClient } from '../support/postgres.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

/**
 * Names with which JavaScript itself does not work any more: promises (`then`), JSON (`toJSON`), property descriptors
 * (`get`, `set`, `value`, …), and names that every object has.
 */
const OF_THE_LANGUAGE = 'then toJSON get set value writable enumerable configurable constructor __proto__ length';
/** Names that Node.js 20 reads from objects of its own: sockets, streams, and their events. */
const OF_NODE = 'connect destroy handle read ready removeListener';
/** Postgres.js 3.4 reads it from its queries. */
const OF_POSTGRES_JS = 'parameters';
/** express-session's `Cookie` reads these from `Object.prototype` itself, and cannot send them. */
const OF_EXPRESS_SESSION = 'domain priority sameSite';
const EXCEPT = `${OF_THE_LANGUAGE} ${OF_NODE} ${OF_POSTGRES_JS} ${OF_EXPRESS_SESSION}`.split(' ');

const OF_SESSIONS =
  `cookie expires maxAge originalMaxAge path secure httpOnly partitioned passport user id req except limit sids
  onProgress host hostname 0 1 2 3 -1 undefined null DATABASE_URL PGHOST PGUSER`.split(/\s+/);

/** The names of all options, fields and methods in lib/, as its interfaces and classes declare them, and of a session's. */
function names(): string[] {
  const folder = path.join(ROOT, 'lib');
  const files = fs.readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  const sources = files.map((file) => fs.readFileSync(path.join(folder, file), 'utf8'));
  const declared = sources.flatMap((source) => [...source.matchAll(/^ +(?:readonly )?(\w+)\??[:(]/gm)]);
  const all = new Set([...declared.map(([, name]) => name as string), ...OF_SESSIONS]);
  return [...all].filter((name) => !EXCEPT.includes(name)).sort();
}

interface Line {
  readonly expected?: unknown[];
  readonly name?: string;
  readonly found?: unknown;
}

/** What a process tells that is polluted with one name after the other. */
async function pollute(uri: string, table: string, kind: string): Promise<Line[]> {
  const file = path.join(ROOT, 'spec/support/polluted-process.ts');
  const args = ['--import', 'tsx', file, uri, table, kind, names().join()];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let err = '';
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (err += data));
  await new Promise((resolve) => child.once('close', resolve));
  const lines = out.trim().split('\n');
  assert.equal(err, '', lines.at(-1));
  return lines.map((line) => JSON.parse(line));
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

  for (const kind of ['text', 'number', 'true', 'function', 'object']) {
    it(`changes nothing, and ends no process: each option, field and index (${kind})`, async () => {
      const [{ expected } = {}, ...lines] = await pollute(uri, table, kind);
      assert.deepEqual(expected?.slice(0, 2), [
        [{ a: 0 }, { b: 1 }, { c: 2 }, null, 'bare'],
        { a: 0, one: 1, other: 2 },
      ]);
      const answers = lines.filter((line) => 'found' in line);
      assert.equal(answers.length, names().length);
      assert.deepEqual(
        Object.fromEntries(
          answers
            .filter(({ found }) => JSON.stringify(found) !== JSON.stringify(expected))
            .map(({ name, found }) => [name, found]),
        ),
        {},
      );
    }).timeout(120_000);
  }
});
