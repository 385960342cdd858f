/**
 * `npm run build`: writes the package's two complete builds, an ES module and CommonJS, and its command line to dist/.
 *
 * esbuild bundles the files of lib/, and TypeScript writes the types. The dependencies stay outside, except pg-format: it
 * loads a file by `__dirname`, which no bundler follows, so an app that is bundled with it fails at start.
 */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import * as esbuild from 'esbuild';

const root = import.meta.dirname;
const { values } = parseArgs({ options: { outdir: { type: 'string', default: path.join(root, 'dist') } } });
const dist = path.resolve(values.outdir);
const manifest = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));

/** Makes pg-format load its list of reserved words in a way that esbuild follows. */
const pgFormat = {
  name: 'pg-format',
  setup(build) {
    build.onLoad({ filter: /pg-format[\\/]lib[\\/]index\.js$/ }, ({ path: file }) => {
      const before = fs.readFileSync(file, 'utf8');
      const contents = before.replace("require(__dirname + '/reserved.js')", "require('./reserved.js')");
      if (contents === before) throw new Error(`${file} loads its reserved words in another way than before`);
      return { contents };
    });
  },
};

/** @type {esbuild.BuildOptions} */
const options = {
  absWorkingDir: root,
  outdir: dist,
  bundle: true,
  platform: 'node',
  target: 'node20.19',
  external: Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies }),
  plugins: [pgFormat],
};

fs.rmSync(dist, { recursive: true, force: true });
await Promise.all([
  esbuild.build({
    ...options,
    format: 'esm',
    entryPoints: { 'esm/index': 'lib/index.ts', 'cli/bin': 'lib/cli/bin.ts' },
    // The command line and the module share their code in a third file.
    splitting: true,
    chunkNames: 'esm/shared-[hash]',
  }),
  esbuild.build({ ...options, format: 'cjs', entryPoints: { 'cjs/index': 'lib/index.ts' } }),
]);

const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
const esm = path.join(dist, 'esm');
execFileSync(process.execPath, [tsc, '-p', path.join(root, 'tsconfig.build.json'), '--outDir', esm], {
  stdio: 'inherit',
});

// TypeScript takes the same text as the types of CommonJS, because the nearest package.json says so.
const cjs = path.join(dist, 'cjs');
fs.cpSync(esm, cjs, { recursive: true, filter: (file) => !file.endsWith('.js') });
fs.writeFileSync(path.join(cjs, 'package.json'), '{ "type": "commonjs" }\n');

fs.copyFileSync(path.join(root, 'node_modules/pg-format/LICENSE'), path.join(dist, 'LICENSE-pg-format'));
