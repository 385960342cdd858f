/** The package, as npm packs it, fits into other people's TypeScript. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { temporaryFolder } from '../../example/postgres-server.js';
import { type BuiltPackage, buildPackage, installApart } from '../support/built-package.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** What an app says to the store, with every type that the package exports. */
const BODY = `
export const options: PgStoreOptions = { uri: 'postgres://localhost/app', retry: { attempts: 3 } };
export const store: session.Store = new PgStore(options);
export const app: RequestHandler = session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false });

export async function use(store: PgStore): Promise<void> {
  store.on('conflict', (handle, tries) => handle.length + tries);
  store.on('retry', (call, attempt, error: Error) => [call, attempt, error.message]);
  const loaded: SessionData | null = await store.get('sid');
  if (loaded) await store.set('sid', loaded);
  store.destroy('sid', (error) => console.error(error));
  const sessions: UserSession[] = await store.sessionsOf('ann');
  const listed: ListedSession[] = await store.all();
  console.log(sessions[0]?.handle, listed[0]?.id, await store.destroySessionsOf(7, { except: 'sid' }));
  const event: keyof PgStoreEvents = 'dropped';
  const merge: Merge = (_base, ours) => ours;
  const retry: Partial<RetryOptions> = { delay: 1 };
  new PgStore({ merge, retry, table: event });
  try {
    await store.touch('sid', {} as SessionData);
  } catch (error) {
    if (error instanceof PgStoreError) console.log(error.code);
  }
  // @ts-expect-error
  new PgStore({ tabel: 'sessions' });
  // @ts-expect-error
  await store.get(7);
}
`;

const TYPES = 'ListedSession, Merge, PgStoreEvents, PgStoreOptions, RetryOptions, UserSession';

const PROGRAMS: Record<string, string> = {
  'module.mts': `import type { RequestHandler } from 'express';
import session, { type SessionData } from 'express-session';
import { PgStore, PgStoreError } from 'express-pg-store';
import type { ${TYPES} } from 'express-pg-store';
${BODY}`,
  'common.cts': `import session = require('express-session');
import type { RequestHandler } from 'express' with { 'resolution-mode': 'import' };
import type { ${TYPES} } from 'express-pg-store';
import store = require('express-pg-store');
import PgStore = store.PgStore;
import PgStoreError = store.PgStoreError;
type SessionData = session.SessionData;
${BODY.replace('export const store:', 'export const kept:').replace('session({ store,', 'session({ store: kept,')}`,
};

describe('consumers', () => {
  let built: BuiltPackage;

  before(() => {
    built = buildPackage();
    for (const [name, text] of Object.entries(PROGRAMS)) fs.writeFileSync(path.join(built.folder, name), text);
  });

  after(() => built?.remove());

  const compilers: Record<string, () => string> = {
    'TypeScript 5.9': () => installApart('typescript', '5.9.3'),
    'TypeScript 7': () => path.join(ROOT, 'node_modules/typescript'),
  };

  for (const [name, installed] of Object.entries(compilers)) {
    it(`compile with ${name}, as ES module and as CommonJS, with and without skipLibCheck`, async () => {
      const tsc = path.join(installed(), 'bin/tsc');
      for (const [module, skipLibCheck] of [
        ['nodenext', true],
        ['nodenext', false],
        ['node16', true],
      ] as const) {
        const compilerOptions = {
          module,
          target: 'es2023',
          strict: true,
          exactOptionalPropertyTypes: true,
          noEmit: true,
          skipLibCheck,
          types: ['node'],
        };
        const config = path.join(built.folder, 'tsconfig.json');
        fs.writeFileSync(config, JSON.stringify({ compilerOptions, files: Object.keys(PROGRAMS) }));
        const { failed, output } = await run(process.execPath, [tsc, '-p', config], built.folder);
        assert.equal(output, '', `${module}, skipLibCheck: ${skipLibCheck}`);
        assert(!failed);
      }
    }).timeout(300_000);
  }

  it("compile without skipLibCheck where express-session's types are installed, else are told to install them", async () => {
    const folder = fs.mkdtempSync(path.join(temporaryFolder(), 'consumer-'));
    const copy = (name: string) =>
      fs.cpSync(path.join(ROOT, 'node_modules', name), path.join(folder, 'node_modules', name), { recursive: true });
    // Copies: from a link, the compiler would find the project's own @types.
    fs.cpSync(path.join(built.folder, 'node_modules'), path.join(folder, 'node_modules'), { recursive: true });
    for (const name of ['express-session', 'postgres', '@types/node', 'undici-types']) copy(name);
    fs.writeFileSync(
      path.join(folder, 'app.mts'),
      "import { PgStore } from 'express-pg-store';\nexport const store = new PgStore({ ttl: 60 });\n",
    );
    const compilerOptions = { module: 'nodenext', target: 'es2023', strict: true, noEmit: true, skipLibCheck: false };
    const config = { compilerOptions: { ...compilerOptions, types: ['node'] }, files: ['app.mts'] };
    fs.writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify(config));
    const tsc = path.join(ROOT, 'node_modules/typescript/bin/tsc');

    const without = await run(process.execPath, [tsc, '-p', folder], folder);
    assert(without.failed);
    assert.match(without.output, /npm i --save-dev @types\/express-session/);
    for (const line of without.output.split('\n').filter((text) => text.includes('error TS'))) {
      assert.match(line, /TS7016.*'express-session'/);
    }

    for (const name of fs.readdirSync(path.join(ROOT, 'node_modules/@types'))) copy(`@types/${name}`);
    assert.deepEqual(await run(process.execPath, [tsc, '-p', folder], folder), { failed: false, output: '' });
  }).timeout(120_000);

  it('get the types that belong to the code (attw)', async () => {
    const attw = path.join(ROOT, 'node_modules/@arethetypeswrong/cli/dist/index.js');
    const args = [attw, built.tarball, '--format', 'json'];
    const { output } = await run(process.execPath, args, built.folder);
    const { problems } = JSON.parse(output) as { problems: Record<string, unknown[]> };
    assert.deepEqual(problems, {});
  }).timeout(120_000);
});

async function run(command: string, args: string[], cwd: string): Promise<{ failed: boolean; output: string }> {
  try {
    const { stdout } = await promisify(execFile)(command, args, { cwd, maxBuffer: 1e8 });
    return { failed: false, output: stdout };
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    return { failed: true, output: stdout || stderr };
  }
}
