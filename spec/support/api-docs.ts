/**
 * Writes the API reference from the docstrings to docs/api. TypeDoc needs TypeScript's own JavaScript API, which TypeScript 7
 * does not have: so it comes with an older TypeScript beside it.
 *
 *     npx tsx spec/support/api-docs.ts
 */

import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { installApart } from './built-package.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

const typedoc = installApart('typedoc', '0.28.20', 'typescript@5.9.3');
const { status } = spawnSync(process.execPath, [path.join(typedoc, 'bin/typedoc'), ...process.argv.slice(2)], {
  cwd: ROOT,
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
