/** The built package works on each Node.js that it says it does, as ES module and as CommonJS. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { type BuiltPackage, buildPackage, installApart } from '../support/built-package.js';
import { closeStores, freshTable, openStore, postgresUri } from '../support/postgres.js';
import { skipWithoutTools } from '../support/tools.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

/**
 * The oldest of both lines that package.json's `engines` allows (22.2 cannot load an ES module with
 * `require`), and the newest of later lines.
 */
const VERSIONS = ['20.19.0', '22.2.0', '24.21.0', '26.12.1'];

/**
 * Saves a session, reads it in a second request and destroys it, with whatever `PgStore` and
 * `session` are there.
 */
const ROUND_TRIP = `async function roundTrip(PgStore, session) {
  const store = new PgStore({ table: process.env.SESSIONS_TABLE, autodelete: false });
  const app = session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false });
  const cookie = new session.Cookie({ maxAge: 60000 });
  await store.set('sid', { cookie, node: process.version });
  const loaded = await new Promise((resolve, reject) => {
    store.load('sid', (error, session) => (error ? reject(error) : resolve(session)));
  });
  await store.destroy('sid');
  console.log(JSON.stringify([typeof app, loaded.node, await store.get('sid')]));
  await store.close();
}`;

const PROGRAMS: Record<string, string> = {
  'module.mjs': `import session from 'express-session';
import { PgStore } from 'express-pg-store';
${ROUND_TRIP}
await roundTrip(PgStore, session);`,
  'common.cjs': `const session = require('express-session');
const { PgStore } = require('express-pg-store');
${ROUND_TRIP}
roundTrip(PgStore, session);`,
};

describe('Node.js', () => {
  let built: BuiltPackage;

  before(function () {
    skipWithoutTools.call(this);
    built = buildPackage();
    for (const [name, text] of Object.entries(PROGRAMS)) fs.writeFileSync(path.join(built.folder, name), text);
  });

  after(() => built?.remove());
  afterEach(closeStores);

  it('is tested from the oldest of each line that package.json allows', () => {
    const { engines } = JSON.parse(fs.readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
    assert.equal(`^${VERSIONS[0]} || >=${VERSIONS[1]}`, engines.node);
  });

  for (const version of VERSIONS) {
    it(`${version} loads it with import and require, saves, reads and destroys a session`, async () => {
      const table = freshTable();
      const store = await openStore({ table });
      await store.ready();
      const env = { ...process.env, DATABASE_URL: await postgresUri(), SESSIONS_TABLE: table, NODE_OPTIONS: '' };
      const node = binary(version);
      for (const program of Object.keys(PROGRAMS)) {
        const { stdout, stderr } = await promisify(execFile)(node, [program], { cwd: built.folder, env });
        assert.deepEqual(JSON.parse(stdout), ['function', `v${version}`, null], program);
        assert.doesNotMatch(stderr, /warning|error/i);
      }
    }).timeout(300_000);
  }
});

/** Node.js of that version, from npm. */
function binary(version: string): string {
  const system = process.platform === 'win32' ? 'win' : process.platform;
  const name = `node-${system === 'darwin' && process.arch === 'arm64' ? 'bin-darwin-arm64' : `${system}-${process.arch}`}`;
  return path.join(installApart(name, version), 'bin', system === 'win' ? 'node.exe' : 'node');
}
