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
async function pack(): Promise<{ tarball: string; files: string[] }> {
  const copy = path.join(temporaryFolder(), 'package');
  const without = new Set(['.git', '.data', 'coverage', 'dist', 'node_modules', 'spec', 'tmp']);
  fs.cpSync(root, copy, {
    recursive: true,
    filter: (file) => !without.has(path.relative(root, file)) && !file.endsWith('.tgz'),
  });
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(copy, 'node_modules'), 'junction');
  const [packed] = Object.values<any>(JSON.parse(await succeed(npm, ['pack', '--json'], copy)));
  return { tarball: path.join(copy, packed.filename), files: packed.files.map((file: { path: string }) => file.path) };
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
  let folder: string;
  let env: NodeJS.ProcessEnv;

  before(async () => {
    const packed = await pack();
    files = packed.files;
    folder = temporaryFolder();
    fs.writeFileSync(path.join(folder, 'package.json'), '{ "private": true }');
    const { version } = JSON.parse(
      fs.readFileSync(path.join(root, 'node_modules/express-session/package.json'), 'utf8'),
    );
    const packages = [packed.tarball, `express-session@${version}`];
    await succeed(npm, ['install', '--prefer-offline', '--no-audit', '--no-fund', ...packages], folder);
    env = { URI: await postgresUri(), TABLE: freshTable() };
  });

  it('holds what a user needs, and nothing else', () => {
    const ends = {
      '.ts': ['.js', '.js.map', '.d.ts', '.d.ts.map'],
      '.cts': ['.cjs', '.cjs.map', '.d.cts', '.d.cts.map'],
    };
    const sources = fs
      .readdirSync(path.join(root, 'lib'), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.includes('.'))
      .map((file) => ({ ...path.parse(file), file, name: file.slice(0, -path.extname(file).length) }));
    const expected = [
      ...sources.flatMap(({ name, ext }) => ends[ext as keyof typeof ends].map((end) => `dist/${name}${end}`)),
      ...sources.map(({ file }) => `lib/${file}`),
      ...fs.readdirSync(path.join(root, 'docs')).map((file) => `docs/${file}`),
      ...['CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE', 'README.md', 'SECURITY.md'],
      'bench/results.json',
      'package.json',
    ];
    assert.deepEqual([...files].sort(), expected.sort());
  });

  it('has documentation whose links lead to files that it has', () => {
    const pages = files.filter((file) => file.endsWith('.md'));
    assert(pages.includes('README.md') && pages.includes('docs/reference.md'));
    for (const page of pages) {
      const text = fs.readFileSync(path.join(root, page), 'utf8').replace(/^```.*?^```$/gms, '');
      for (const [, link = ''] of text.matchAll(/\]\(([^)\s#]+)/g)) {
        if (/^[a-z]+:/.test(link)) continue;
        assert(files.includes(path.posix.join(path.posix.dirname(page), link)), `${page}: ${link}`);
      }
    }
  });

  it('has source maps that lead to sources which are there', () => {
    const dist = path.join(folder, 'node_modules', manifest.name, 'dist');
    for (const name of fs
      .readdirSync(dist, { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.map'))) {
      const { sources } = JSON.parse(fs.readFileSync(path.join(dist, name), 'utf8'));
      for (const source of sources)
        assert(fs.existsSync(path.join(dist, path.dirname(name), source)), `${name}: ${source}`);
    }
  });

  it('brings three packages, no more, and runs nothing when installed', () => {
    assert.deepEqual(Object.keys(manifest.dependencies).sort(), ['cookie-signature', 'pg-format', 'postgres']);
    assert.deepEqual(manifest.peerDependencies, { '@types/express-session': '>=1.17', 'express-session': '>=1.17' });
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

  for (const skipLibCheck of [true, false]) {
    it(`has types, ${skipLibCheck ? 'with' : 'without'} \`skipLibCheck\``, async () => {
      const types = path.join(folder, 'node_modules', '@types');
      if (!fs.existsSync(types)) fs.symlinkSync(path.join(root, 'node_modules', '@types'), types, 'junction');
      fs.writeFileSync(
        path.join(folder, 'app.mts'),
        `import session, { type SessionData } from 'express-session';
         import postgres from 'postgres';
         import DefaultStore, {
           type ListedSession, type Merge, PgStore, PgStoreError, type PgStoreEvents, type PgStoreOptions, type UserSession,
         } from 'express-pg-store';

         declare module 'express-session' {
           interface SessionData { views: number }
         }
         const merge: Merge = (_base, ours, _theirs) => ours;
         const options: PgStoreOptions = { table: 'sessions', secret: ['new', 'old'], autodelete: false, retry: { attempts: 2 }, merge };
         const store = new PgStore({ ...options, ttl: (data) => data.views, user: (data) => data.views });
         const other: session.Store = new DefaultStore({ sql: postgres({ transform: postgres.camel }) });
         session({ store, secret: 's' });
         const found: Promise<SessionData | null> = store.get('a');
         const nothing: void = store.get('a', (error, data) => error ?? data?.views.toFixed());
         const events: PgStoreEvents['autodelete'] = [1];
         store.on('autodelete', (rows, error) => rows.toFixed() + error?.message);
         async function list(): Promise<[ListedSession[], UserSession[], string[], number]> {
           for await (const { id, views } of store.sessions()) console.log(id, views.toFixed());
           return [await store.all(), await store.sessionsOf(7), await store.ids(), await store.length()];
         }
         await using closing = store;
         try {
           await list();
         } catch (error) {
           if (error instanceof PgStoreError) console.log(error.code.length);
         }
         // @ts-expect-error: no such option
         new PgStore({ tabel: 'sessions' });
         // @ts-expect-error: a number of seconds, not a text
         new PgStore({ ttl: '60' });
         // @ts-expect-error: a session ID is missing
         await store.destroy();
         export { closing, events, found, nothing, other };`,
      );
      const settings = {
        compilerOptions: {
          module: 'nodenext',
          target: 'es2023',
          lib: ['es2024', 'esnext.disposable'],
          types: ['node'],
          strict: true,
          noEmit: true,
          skipLibCheck,
        },
        files: ['app.mts'],
      };
      fs.writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify(settings));
      await succeed(process.execPath, [path.join(root, 'node_modules', 'typescript', 'bin', 'tsc')], folder);
    });
  }
});
