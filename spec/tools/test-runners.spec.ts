/** Apps that use the package can be tested with Jest 29 and 30, Vitest and node:test, as these come. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { type BuiltPackage, buildPackageBesideTools } from '../support/built-package.js';
import { run } from '../support/child.js';
import { freshTable, postgresUri } from '../support/postgres.js';
import { skipWithoutTools, toolFile } from '../support/tools.js';

/** An app's tests: `test`, `session`, `PgStore` and `PgStoreError` are there. */
const TESTS = `
const { URI: uri, TABLE: table } = process.env;
const options = { uri, table, autodelete: false, secret: 'a secret of sixteen', hashIds: true, encryptionKey: '00'.repeat(32) };

test('a session is stored, read in another request and changed by two requests at once', async () => {
  const store = new PgStore(options);
  await store.set('a', { cookie: new session.Cookie(), n: 1 });
  const load = () => new Promise((resolve, reject) => {
    store.load('a', (error, loaded) => (error ? reject(error) : resolve(loaded)));
  });
  const [one, other] = [await load(), await load()];
  one.one = true;
  other.other = true;
  await Promise.all([store.set('a', one), store.set('a', other)]);
  const { n, one: first, other: second } = await store.get('a');
  if (n !== 1 || !first || !second) throw new Error('lost');
  await store.close();
});

test('errors keep their class and code', async () => {
  const refused = new PgStore({ uri: 'postgres://nobody@127.0.0.1:1/none', autodelete: false, timeout: 500 });
  const error = await refused.get('a').catch((error) => error);
  if (!(error instanceof PgStoreError) || !/^(ECONNREFUSED|TIMEOUT)$/.test(error.code)) throw error;
  if (!error.message.startsWith('PgStore.get: ')) throw error;
  await refused.close();
  const noSocket = new PgStore({ uri: 'postgres://nobody@%2Fnone/none', autodelete: false, retry: { attempts: 1 } });
  const noFile = await noSocket.get('a').catch((error) => error);
  if (noFile.code !== 'ECONNREFUSED' || !/^PgStore.get: connect ENOENT/.test(noFile.message)) throw noFile;
  await noSocket.close();
  const missing = new PgStore({ ...options, table: 'does_not_exist', createTable: false });
  const undefinedTable = await missing.get('a').catch((error) => error);
  if (undefinedTable.code !== '42P01') throw undefinedTable;
  await missing.close();
});

test('an app with MemoryStore', () => {
  const app = session({ store: new session.MemoryStore(), secret: 's', resave: false, saveUninitialized: false });
  if (typeof app !== 'function') throw new Error('no app');
});
`;

const IMPORTS = `import session from 'express-session';
import { PgStore, PgStoreError } from 'express-pg-store';
`;
const REQUIRES = `const session = require('express-session');
const { PgStore, PgStoreError } = require('express-pg-store');
`;

/** Names and texts of the app's files, by folder. */
const FOLDERS: Record<string, Record<string, string>> = {
  commonjs: { 'package.json': '{}', 'app.test.js': REQUIRES + TESTS },
  module: { 'package.json': '{ "type": "module" }', 'app.test.js': IMPORTS + TESTS },
  vitest: {
    'package.json': '{ "type": "module" }',
    'app.test.js': `import { test } from 'vitest';\n${IMPORTS}${TESTS}`,
  },
  'node-commonjs': { 'app.test.cjs': `const { test } = require('node:test');\n${REQUIRES}${TESTS}` },
  'node-module': { 'app.test.mjs': `import { test } from 'node:test';\n${IMPORTS}${TESTS}` },
};

describe('test runners', () => {
  let built: BuiltPackage;

  before(function () {
    skipWithoutTools.call(this);
    built = buildPackageBesideTools();
    for (const [folder, files] of Object.entries(FOLDERS)) {
      fs.mkdirSync(path.join(built.folder, folder));
      for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(built.folder, folder, name), text);
    }
  });

  after(() => built?.remove());

  async function passes(folder: string, args: string[]): Promise<void> {
    // What the runner of this spec sets is not for the runner that is started here.
    const env = {
      URI: await postgresUri(),
      TABLE: freshTable(),
      NODE_OPTIONS: '',
      NODE_TEST_CONTEXT: undefined,
      NO_COLOR: '1',
    };
    const { code, stdout, stderr } = await run(process.execPath, args, { cwd: path.join(built.folder, folder), env });
    assert.equal(code, 0, `${stdout}${stderr}`);
    assert.match(stdout + stderr, /Tests:\s+3 passed, 3 total|Tests\s+3 passed \(3\)|pass 3\b/);
  }

  for (const [version, name] of Object.entries({ 29: 'jest29', 30: 'jest' })) {
    const jest = toolFile(name, 'bin/jest.js');

    it(`Jest ${version}, as it comes`, () =>
      passes('commonjs', [jest, '--ci', '--config', '{ "rootDir": "." }'])).timeout(120_000);

    it(`Jest ${version}, ES modules with their flag`, () =>
      passes('module', [
        '--experimental-vm-modules',
        jest,
        '--ci',
        '--config',
        '{ "rootDir": ".", "transform": {} }',
      ])).timeout(120_000);
  }

  it('Vitest', () => passes('vitest', [toolFile('vitest', 'vitest.mjs'), 'run', '--root', '.'])).timeout(120_000);

  it('node:test, with `import` and `require`', async () => {
    await passes('node-module', ['--test', '--test-reporter=tap', 'app.test.mjs']);
    await passes('node-commonjs', ['--test', '--test-reporter=tap', 'app.test.cjs']);
  }).timeout(120_000);
});
