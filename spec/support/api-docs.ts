/**
 * Writes the API reference, docs/api.md, from the docstrings. TypeDoc needs TypeScript's own
 * JavaScript API, which TypeScript 7 does not have: so it comes with an older TypeScript beside it.
 *
 *     npm run docs:api
 */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { apart, installApart } from './built-package.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** The reference as one Markdown page. */
export function apiReference(): string {
  const out = apart('api');
  try {
    const typedoc = installApart('typedoc', '0.28.20', 'typescript@5.9.3', 'typedoc-plugin-markdown@4.14.1');
    const args = [
      path.join(typedoc, 'bin/typedoc'),
      '--plugin',
      path.join(typedoc, '../typedoc-plugin-markdown/dist/index.js'),
    ];
    execFileSync(process.execPath, [...args, '--out', out], { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
    return withoutInternals(fs.readFileSync(path.join(out, 'README.md'), 'utf8'));
  } finally {
    fs.rmSync(out, { recursive: true, force: true, maxRetries: 3 });
  }
}

/** `TypedStore` only gives express-session's `Store` typed events: readers are told of that one. */
function withoutInternals(page: string): string {
  return page
    .replace(/^#+ (Overrides|Inherited from)\n\n`TypedStore\..*`\n\n/gm, '')
    .replace('- `TypedStore`', "- express-session's `Store`");
}

if (process.argv[1] === import.meta.filename) fs.writeFileSync(path.join(ROOT, 'docs/api.md'), apiReference());
