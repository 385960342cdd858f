/** A program with the package in it, bundled by each of these tools, runs in a folder without node_modules. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type BuiltPackage, buildPackageBesideTools } from '../support/built-package.js';
import { run } from '../support/child.js';
import { freshTable, postgresUri } from '../support/postgres.js';
import { skipWithoutTools, toolFile } from '../support/tools.js';

/** The table's name needs quotes that only pg-format's list of reserved words knows of. */
const MAIN = `
async function main() {
  const { URI: uri, SCHEMA: schema } = process.env;
  const store = new PgStore({ uri, schema, table: 'user', secret: 'a secret of sixteen', hashIds: true, autodelete: false });
  session({ store, secret: 's', resave: false, saveUninitialized: false });
  await store.ready();
  await store.set('a', { cookie: new session.Cookie(), n: 1 });
  console.log('read', (await store.get('a')).n);
  await store.close();
  const error = await store.get('a').catch((error) => error);
  console.log(error instanceof PgStoreError, error.code);
}
main();
`;
const IMPORTS = `import session from 'express-session';
import { PgStore, PgStoreError } from 'express-pg-store';
`;
const REQUIRES = `const session = require('express-session');
const { PgStore, PgStoreError } = require('express-pg-store');
`;

/** What esbuild's documentation has for CommonJS packages (express-session is one) in an ES module. */
const BANNER = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);";

const FILES: Record<string, string> = {
  'app.mjs': IMPORTS + MAIN,
  'app.cjs': REQUIRES + MAIN,
  'esbuild.mjs': `import { build } from 'esbuild';
const [entry, format, file, minify] = process.argv.slice(2);
const banner = format === 'esm' ? { js: "${BANNER}" } : {};
await build({ entryPoints: [entry], outfile: file, bundle: true, platform: 'node', format, minify: minify === 'minify', banner });`,
  'rollup.config.mjs': `import commonjs from '@rollup/plugin-commonjs';
import json from '@rollup/plugin-json';
import { nodeResolve } from '@rollup/plugin-node-resolve';
export default {
  input: 'app.mjs',
  plugins: [nodeResolve({ preferBuiltins: true, exportConditions: ['node'] }), commonjs(), json()],
};`,
  'vite.config.mjs': `export default {
  logLevel: 'warn',
  ssr: { noExternal: true },
  build: { ssr: 'app.mjs', rollupOptions: { output: { entryFileNames: 'app.mjs' } } },
};`,
  'webpack.mjs': `import webpack from 'webpack';
const [entry, filename, out] = process.argv.slice(2);
const optimization = { minimize: false };
webpack({ mode: 'production', target: 'node', entry, optimization, output: { path: out, filename } }, (error, stats) => {
  if (!error && !stats.hasErrors()) return;
  console.error(error ?? stats.toString());
  process.exitCode = 1;
});`,
  'tsup.config.mjs': `export default {
  entry: { app: 'app.mjs' },
  noExternal: [/./],
  banner: process.env.TSUP_FORMAT === 'esm' ? { js: "${BANNER}" } : {},
  format: process.env.TSUP_FORMAT,
  outExtension: ({ format }) => ({ js: format === 'esm' ? '.mjs' : '.cjs' }),
  silent: true,
};`,
};

interface Bundler {
  /** The arguments of Node.js that write the bundle to a folder. */
  readonly args: (out: string) => string[];
  readonly file: string;
  readonly env?: NodeJS.ProcessEnv;
}

const BUNDLERS: Record<string, Bundler> = {
  'esbuild, ES module': { args: (out) => ['esbuild.mjs', 'app.mjs', 'esm', `${out}/app.mjs`], file: 'app.mjs' },
  'esbuild, ES module, minified': {
    args: (out) => ['esbuild.mjs', 'app.mjs', 'esm', `${out}/app.mjs`, 'minify'],
    file: 'app.mjs',
  },
  'esbuild, CommonJS': { args: (out) => ['esbuild.mjs', 'app.mjs', 'cjs', `${out}/app.cjs`], file: 'app.cjs' },
  'esbuild, CommonJS by `require`': {
    args: (out) => ['esbuild.mjs', 'app.cjs', 'cjs', `${out}/app.cjs`],
    file: 'app.cjs',
  },
  rollup: {
    args: (out) => [toolFile('rollup', 'dist/bin/rollup'), '-c', '--silent', '--file', path.join(out, 'app.mjs')],
    file: 'app.mjs',
  },
  webpack: { args: (out) => ['webpack.mjs', './app.mjs', 'app.cjs', out], file: 'app.cjs' },
  'webpack, by `require`': { args: (out) => ['webpack.mjs', './app.cjs', 'app.cjs', out], file: 'app.cjs' },
  ncc: {
    args: (out) => [
      toolFile('@vercel/ncc', 'dist/ncc/cli.js'),
      'build',
      'app.cjs',
      '--quiet',
      '--no-cache',
      '--out',
      out,
    ],
    file: 'index.cjs',
  },
  'Vite, `build --ssr` with `noExternal`': {
    args: (out) => [toolFile('vite', 'bin/vite.js'), 'build', '--emptyOutDir', '--outDir', out],
    file: 'app.mjs',
  },
  'tsup, ES module': {
    args: (out) => [toolFile('tsup', 'dist/cli-default.js'), '--out-dir', out],
    file: 'app.mjs',
    env: { TSUP_FORMAT: 'esm' },
  },
  'tsup, CommonJS': {
    args: (out) => [toolFile('tsup', 'dist/cli-default.js'), '--out-dir', out],
    file: 'app.cjs',
    env: { TSUP_FORMAT: 'cjs' },
  },
};

describe('bundles', () => {
  const folders: string[] = [];
  let built: BuiltPackage;

  before(function () {
    skipWithoutTools.call(this);
    built = buildPackageBesideTools();
    for (const [name, text] of Object.entries(FILES)) fs.writeFileSync(path.join(built.folder, name), text);
  });

  after(() => {
    built?.remove();
    for (const folder of folders) fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  });

  for (const [name, { args, file, env }] of Object.entries(BUNDLERS)) {
    it(`by ${name}`, async () => {
      const out = fs.mkdtempSync(path.join(os.tmpdir(), 'express-pg-store-bundle-'));
      folders.push(out);
      const bundling = await run(process.execPath, args(out), { cwd: built.folder, ...(env ? { env } : {}) });
      assert.equal(bundling.code, 0, bundling.stdout + bundling.stderr);
      const { code, stdout, stderr } = await run(process.execPath, [path.join(out, file)], {
        cwd: out,
        env: { URI: await postgresUri(), SCHEMA: freshTable(), NODE_OPTIONS: '' },
      });
      assert.deepEqual({ code, stdout, stderr }, { code: 0, stdout: 'read 1\ntrue CLOSED\n', stderr: '' });
    }).timeout(60_000);
  }
});
