/**
 * `npm run build`: writes the package's two complete builds, an ES module and CommonJS, and its command line to dist/.
 *
 * TypeScript compiles lib/, and esbuild bundles the result. Dependencies are not bundled, except pg-format: it loads a
 * file by `__dirname`, which no bundler follows, so an app that bundles pg-format would fail at start.
 */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import * as esbuild from 'esbuild';

const root = import.meta.dirname;
const { values } = parseArgs({ options: { outdir: { type: 'string', default: path.join(root, 'dist') } } });
const dist = path.resolve(values.outdir);
const compiled = path.join(dist, 'compiled');
const types = path.join(dist, 'types');
const manifest = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));

fs.rmSync(dist, { recursive: true, force: true });
compile();
await bundle();
writeTypes();
fs.copyFileSync(path.join(root, 'node_modules/pg-format/LICENSE'), path.join(dist, 'LICENSE-pg-format'));
for (const folder of [compiled, types]) fs.rmSync(folder, { recursive: true });

/** Compiles lib/: code without comments, and types with comments, which editors show. */
function compile() {
  const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
  const code = ['--removeComments', '--declaration', 'false', '--outDir', compiled];
  const declarations = ['--emitDeclarationOnly', '--outDir', types];
  for (const settings of [code, declarations]) {
    const args = [tsc, '-p', root, '--sourceMap', 'false', '--declarationMap', 'false', ...settings];
    execFileSync(process.execPath, args, { stdio: 'inherit' });
  }
}

async function bundle() {
  /** @type {esbuild.BuildOptions} */
  const options = {
    outdir: dist,
    bundle: true,
    platform: 'node',
    target: 'node20.19',
    external: Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies }),
    plugins: [{ name: 'pg-format', setup: followReservedWords }],
  };
  const index = path.join(compiled, 'index.js');
  await esbuild.build({
    ...options,
    format: 'esm',
    entryPoints: { 'esm/index': index, 'cli/bin': path.join(compiled, 'cli/bin.js') },
    // The code that the command line and the module share is put into a third file.
    splitting: true,
    chunkNames: 'esm/shared-[hash]',
  });
  await esbuild.build({ ...options, format: 'cjs', entryPoints: { 'cjs/index': index } });
  fs.writeFileSync(path.join(dist, 'cjs/package.json'), '{ "type": "commonjs" }\n');
}

/** A plugin of esbuild: makes pg-format load its list of reserved words in a way that esbuild can follow. */
function followReservedWords(build) {
  build.onLoad({ filter: /pg-format[\\/]lib[\\/]index\.js$/ }, ({ path: file }) => {
    const before = fs.readFileSync(file, 'utf8');
    const contents = before.replace("require(__dirname + '/reserved.js')", "require('./reserved.js')");
    if (contents === before) throw new Error(`${file}: expected it to load reserved.js by __dirname`);
    return { contents };
  });
}

/** Writes the same types for both builds; the nearest package.json says which module system they describe. */
function writeTypes() {
  for (const file of publicTypes('index.d.ts')) {
    for (const build of ['esm', 'cjs']) fs.cpSync(path.join(types, file), path.join(dist, build, file));
  }
}

/** A file of types, and all files that it imports, directly or through others. */
function publicTypes(file, found = new Set()) {
  if (found.has(file)) return found;
  found.add(file);
  const text = fs.readFileSync(path.join(types, file), 'utf8');
  for (const [, specifier] of text.matchAll(/\b(?:from|import\() ?'(\.[^']+)\.js'/g)) {
    publicTypes(path.posix.join(path.posix.dirname(file), `${specifier}.d.ts`), found);
  }
  return found;
}
