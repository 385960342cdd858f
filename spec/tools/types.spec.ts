/** The package, as npm packs it, fits into other people's TypeScript, from 5.4 to the newest. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type BuiltPackage, buildPackageBesideTools } from '../support/built-package.js';
import { type Ended, run } from '../support/child.js';
import { skipWithoutTools, toolFile } from '../support/tools.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** What an app says to the store, with every type that the package exports. */
const BODY = `
declare module 'express-session' {
  interface SessionData { views: number }
}
export const options: PgStoreOptions = { uri: 'postgres://localhost/app', retry: { attempts: 3 } };
export const store: session.Store = new PgStore(options);
export const app: RequestHandler = session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false });

export async function use(store: PgStore): Promise<void> {
  store.on('conflict', (handle, tries) => handle.length + tries);
  store.on('retry', (call, attempt, error: Error) => [call, attempt, error.message]);
  const loaded: SessionData | null = await store.get('sid');
  if (loaded) await store.set('sid', { ...loaded, views: loaded.views + 1 });
  store.destroy('sid', (error) => console.error(error));
  const sessions: UserSession[] = await store.sessionsOf('ann');
  const listed: ListedSession[] = await store.all();
  console.log(sessions[0]?.handle, listed[0]?.id, await store.destroySessionsOf(7, { except: 'sid' }));
  for await (const { id, views } of store.sessions()) console.log(id, views.toFixed());
  const event: keyof PgStoreEvents = 'dropped';
  const merge: Merge = (_base, ours) => ours;
  const retry: Partial<RetryOptions> = { delay: 1 };
  new PgStore({ merge, retry, table: event, sql: postgres({ transform: postgres.camel }) });
  try {
    await store.touch('sid', {} as SessionData);
  } catch (error) {
    if (error instanceof PgStoreError) console.log(error.code.length);
  }
  // @ts-expect-error: no such option
  new PgStore({ tabel: 'sessions' });
  // @ts-expect-error: a session ID is a text
  await store.get(7);
  // @ts-expect-error: a session ID is missing
  await store.destroy();
}
`;

const TYPES = 'ListedSession, Merge, PgStoreEvents, PgStoreOptions, RetryOptions, UserSession';

/** For compilers whose module kind tells the two module systems apart; with the types of Express 5. */
const PROGRAMS: Record<string, string> = {
  'module.mts': `import type { RequestHandler } from 'express';
import session, { type SessionData } from 'express-session';
import postgres from 'postgres';
import DefaultStore, { PgStore, PgStoreError } from 'express-pg-store';
import type { ${TYPES} } from 'express-pg-store';
export const isTheSame: typeof PgStore = DefaultStore;
${BODY}`,
  'common.cts': `import session = require('express-session');
import type { RequestHandler } from 'express';
import type { ${TYPES} } from 'express-pg-store';
import postgres = require('postgres');
import store = require('express-pg-store');
import PgStore = store.PgStore;
import PgStoreError = store.PgStoreError;
type SessionData = session.SessionData;
${BODY.replace('export const store:', 'export const kept:').replace('session({ store,', 'session({ store: kept,')}`,
};

const COMPILERS: Record<string, { file: string; modules: string[] }> = {
  '5.4': { file: toolFile('typescript54', 'bin/tsc'), modules: ['node16', 'nodenext', 'bundler'] },
  '5.9': { file: toolFile('typescript', 'bin/tsc'), modules: ['node18'] },
  '6.0': { file: toolFile('typescript6', 'bin/tsc'), modules: ['nodenext', 'bundler'] },
  '7.0': {
    file: path.join(ROOT, 'node_modules/typescript/bin/tsc'),
    modules: ['node16', 'node18', 'node20', 'nodenext', 'bundler'],
  },
};

describe('types', () => {
  const folders: string[] = [];
  let built: BuiltPackage;

  before(function () {
    skipWithoutTools.call(this);
    built = buildPackageBesideTools();
    for (const [name, text] of Object.entries(PROGRAMS)) fs.writeFileSync(path.join(built.folder, name), text);
  });

  after(() => {
    built?.remove();
    for (const folder of folders) fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  });

  /** Compiles programs in a folder, and returns what the compiler says. */
  function compile(compiler: string, folder: string, settings: object, files: string[]): Promise<Ended> {
    const compilerOptions = {
      target: 'es2022',
      lib: ['es2022'],
      types: ['node'],
      typeRoots: [path.join(ROOT, 'node_modules/@types')],
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      noEmit: true,
      ...settings,
    };
    const config = path.join(folder, 'tsconfig.json');
    fs.writeFileSync(config, JSON.stringify({ compilerOptions, files }));
    return run(process.execPath, [compiler, '-p', config, '--pretty', 'false'], { cwd: folder });
  }

  for (const [version, { file, modules }] of Object.entries(COMPILERS)) {
    it(`compile with TypeScript ${version} without skipLibCheck: ${modules.join(', ')}`, async () => {
      for (const module of modules) {
        // A bundler has one module system: `import … = require()` is not for it.
        const isBundled = module === 'bundler';
        const settings = isBundled ? { module: 'esnext', moduleResolution: module } : { module };
        const files = isBundled ? ['module.mts'] : Object.keys(PROGRAMS);
        const { code, stdout } = await compile(file, built.folder, settings, files);
        assert.deepEqual({ module, code, stdout }, { module, code: 0, stdout: '' });
      }
    }).timeout(300_000);
  }

  it("compile where express-session's types are installed, else the app is told to install them", async () => {
    const modules = path.join(built.folder, 'node_modules');
    const tsc = COMPILERS['7.0']?.file as string;
    const app = "import { PgStore } from 'express-pg-store';\nexport const store = new PgStore({ ttl: 60 });\n";
    // Outside the project, whose @types the compiler would find.
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'express-pg-store-types-'));
    folders.push(folder);
    fs.writeFileSync(path.join(folder, 'app.mts'), app);
    const copy = (from: string, name: string) =>
      fs.cpSync(path.join(from, name), path.join(folder, 'node_modules', name), { recursive: true });
    copy(modules, 'express-pg-store');
    for (const name of ['express-session', 'postgres', '@types/node', 'undici-types']) {
      copy(path.join(ROOT, 'node_modules'), name);
    }
    const settings = { module: 'nodenext', typeRoots: [path.join(folder, 'node_modules/@types')] };

    const without = await compile(tsc, folder, settings, ['app.mts']);
    assert.notEqual(without.code, 0);
    assert.match(without.stdout, /npm i --save-dev @types\/express-session/);
    for (const line of without.stdout.split('\n').filter((text) => text.includes('error TS'))) {
      assert.match(line, /TS7016.*'express-session'/);
    }

    for (const name of fs.readdirSync(path.join(ROOT, 'node_modules/@types'))) {
      copy(path.join(ROOT, 'node_modules'), `@types/${name}`);
    }
    assert.equal((await compile(tsc, folder, settings, ['app.mts'])).stdout, '');
  }).timeout(120_000);

  it('belong to the code (attw)', async () => {
    const attw = toolFile('@arethetypeswrong/cli', 'dist/index.js');
    const { stdout } = await run(process.execPath, [attw, built.tarball, '--format', 'json'], { cwd: built.folder });
    assert.deepEqual(JSON.parse(stdout).problems, {});
  }).timeout(120_000);

  for (const [type, program] of Object.entries({
    module: "import { PgStore } from 'express-pg-store';\nexport const store = new PgStore();\n",
    commonjs: "const { PgStore } = require('express-pg-store');\nexports.store = new PgStore();\n",
  })) {
    it(`satisfy eslint-plugin-import's no-unresolved and named (${type})`, async () => {
      const folder = fs.mkdtempSync(path.join(built.folder, 'eslint-'));
      fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ type }));
      fs.writeFileSync(path.join(folder, 'app.js'), program);
      fs.writeFileSync(path.join(folder, 'wrong.js'), program.replace('express-pg-store', 'express-pg-stor'));
      fs.writeFileSync(
        path.join(folder, 'eslint.config.mjs'),
        `import plugin from 'eslint-plugin-import';
         export default [{
           files: ['*.js'],
           languageOptions: { sourceType: '${type}', ecmaVersion: 2022 },
           plugins: { import: plugin },
           rules: { 'import/no-unresolved': ['error', { commonjs: true }], 'import/named': 'error' },
         }];`,
      );
      const eslint = toolFile('eslint', 'bin/eslint.js');
      const { code, stdout, stderr } = await run(process.execPath, [eslint, 'app.js'], { cwd: folder });
      assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: '', stderr: '' });
      const wrong = await run(process.execPath, [eslint, 'wrong.js'], { cwd: folder });
      assert.match(wrong.stdout, /import\/no-unresolved/);
    }).timeout(60_000);
  }
});
