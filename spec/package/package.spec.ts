/** What npm publishes works for those who install it. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { run } from '../support/child.js';
import { temporaryFolder } from '../support/folders.js';
import { freshTable, postgresUri } from '../support/postgres.js';

const root = path.join(import.meta.dirname, '../..');
const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
const manifest = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));

async function succeed(command: string, args: string[], cwd: string, env: NodeJS.ProcessEnv = {}): Promise<string> {
  const { code, stdout, stderr } = await run(command, args, { cwd, env: { NPM_CONFIG_LOGLEVEL: 'error', ...env } });
  assert.equal(code, 0, `${command} ${args.join(' ')}\n${stdout}${stderr}`);
  return stdout;
}

/** Packs a copy: `npm pack` builds, and others may be using the repository's `dist`. */
async function pack(): Promise<{ tarball: string; files: string[]; unpackedSize: number }> {
  const copy = path.join(temporaryFolder(), 'package');
  const without = new Set(['.git', '.data', 'coverage', 'dist', 'node_modules', 'site', 'spec', 'tmp', 'tools']);
  fs.cpSync(root, copy, {
    recursive: true,
    filter: (file) => !without.has(path.relative(root, file)) && !file.endsWith('.tgz'),
  });
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(copy, 'node_modules'), 'junction');
  const [packed] = Object.values<any>(JSON.parse(await succeed(npm, ['pack', '--json'], copy)));
  const names = packed.files.map((file: { path: string }) => file.path);
  return { tarball: path.join(copy, packed.filename), files: names, unpackedSize: packed.unpackedSize };
}

/** One use of the store, for the end of a program in either module system. */
const use = `
  const store = new PgStore({ uri: process.env.URI, table: process.env.TABLE });
  const app = session({ store, secret: 's', resave: false, saveUninitialized: false });
  store.set('a', { n: 1, cookie: {} })
    .then(() => store.get('a'))
    .then(({ n }) => console.log(typeof app, n, PgStoreError.name))
    .then(() => store.close());
`;

describe('package', () => {
  let files: string[];
  let unpackedSize: number;
  let folder: string;
  let env: NodeJS.ProcessEnv;

  before(async () => {
    const packed = await pack();
    files = packed.files;
    unpackedSize = packed.unpackedSize;
    folder = temporaryFolder();
    fs.writeFileSync(path.join(folder, 'package.json'), '{ "private": true }');
    const { version } = JSON.parse(
      fs.readFileSync(path.join(root, 'node_modules/express-session/package.json'), 'utf8'),
    );
    const packages = [packed.tarball, `express-session@${version}`];
    await succeed(npm, ['install', '--prefer-offline', '--no-audit', '--no-fund', ...packages], folder);
    env = { URI: await postgresUri(), TABLE: freshTable() };
  });

  it('holds what is needed at run time, types and three pages, and nothing else', () => {
    const isExpected = (file: string) =>
      /^dist\/(esm|cjs)\/([\w-]+\/)*[\w-]+\.d\.ts$/.test(file) || /^dist\/esm\/shared-\w+\.js$/.test(file);
    const others = files.filter((file) => !isExpected(file)).sort();
    assert.deepEqual(others, [
      'CHANGELOG.md',
      'LICENSE',
      'README.md',
      'dist/LICENSE-pg-format',
      'dist/cjs/index.js',
      'dist/cjs/package.json',
      'dist/cli/bin.js',
      'dist/esm/index.js',
      'package.json',
    ]);
    // No source map, and no comment that leads to one.
    for (const file of files.filter((name) => name.endsWith('.js'))) {
      const text = fs.readFileSync(path.join(folder, 'node_modules', manifest.name, file), 'utf8');
      assert.doesNotMatch(text, /sourceMappingURL/, file);
    }
  });

  it('takes less than 600 kB', () => {
    assert(unpackedSize > 100_000);
    assert(unpackedSize < 600_000, `${unpackedSize} bytes`);
  });

  it('has the same types in both builds', () => {
    const typesOf = (build: string) => {
      const dist = path.join(folder, 'node_modules', manifest.name, 'dist', build);
      const names = fs
        .readdirSync(dist, { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.d.ts'));
      return Object.fromEntries(names.sort().map((name) => [name, fs.readFileSync(path.join(dist, name), 'utf8')]));
    };
    assert(typesOf('esm')['index.d.ts']?.includes('PgStore'));
    assert.deepEqual(typesOf('esm'), typesOf('cjs'));
  });

  it('keeps the licence of pg-format, whose code is in it', () => {
    const installed = path.join(folder, 'node_modules', manifest.name);
    assert.match(
      fs.readFileSync(path.join(installed, 'dist/LICENSE-pg-format'), 'utf8'),
      /Permission is hereby granted/,
    );
    assert(!fs.existsSync(path.join(folder, 'node_modules/pg-format')));
  });

  it('brings two packages, no more, and runs nothing when installed', () => {
    assert.deepEqual(Object.keys(manifest.dependencies).sort(), ['cookie-signature', 'postgres']);
    assert.deepEqual(manifest.peerDependencies, { '@types/express-session': '>=1.17.1', 'express-session': '>=1.17' });
    assert.deepEqual(manifest.peerDependenciesMeta, { '@types/express-session': { optional: true } });
    const modules = path.join(folder, 'node_modules');
    const lock = JSON.parse(fs.readFileSync(path.join(modules, '.package-lock.json'), 'utf8'));
    assert(lock.packages[`node_modules/${manifest.name}`]);
    for (const [place, { hasInstallScript }] of Object.entries<any>(lock.packages)) assert(!hasInstallScript, place);
    const installed = JSON.parse(fs.readFileSync(path.join(modules, manifest.name, 'package.json'), 'utf8'));
    for (const script of ['preinstall', 'install', 'postinstall', 'prepare'])
      assert(!installed.scripts?.[script], script);
    for (const name of Object.keys(manifest.dependencies)) {
      const { dependencies = {} } = JSON.parse(fs.readFileSync(path.join(modules, name, 'package.json'), 'utf8'));
      assert.deepEqual(dependencies, {}, `${name} brings others`);
    }
  });

  it('works by `import`', async () => {
    fs.writeFileSync(
      path.join(folder, 'app.mjs'),
      `import session from 'express-session';
       import { PgStore, PgStoreError } from 'express-pg-store';
       import Default from 'express-pg-store';
       if (Default !== PgStore) throw new Error('default');
       ${use}`,
    );
    assert.equal(await succeed(process.execPath, ['app.mjs'], folder, env), 'function 1 PgStoreError\n');
  });

  it('works by `require`', async () => {
    fs.writeFileSync(
      path.join(folder, 'app.cjs'),
      `const session = require('express-session');
       const { PgStore, PgStoreError } = require('express-pg-store');
       ${use}`,
    );
    assert.equal(await succeed(process.execPath, ['app.cjs'], folder, env), 'function 1 PgStoreError\n');
  });

  it('has commands that are there', async () => {
    for (const [name, file] of Object.entries<string>(manifest.bin ?? {})) {
      assert(files.includes(file), `${name}: ${file}`);
      const first = fs.readFileSync(path.join(folder, 'node_modules', manifest.name, file), 'utf8').split('\n', 1)[0];
      assert.equal(first, '#!/usr/bin/env node');
      const command = path.join(folder, 'node_modules', manifest.name, file);
      assert.match(await succeed(process.execPath, [command, '--help'], folder), new RegExp(name));
    }
  });
});
