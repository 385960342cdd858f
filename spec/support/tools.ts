/** The tools of the folder tools/, which has a lock file of its own. */

import fs from 'node:fs';
import path from 'node:path';
import type { Context } from 'mocha';

const TOOLS = path.resolve(import.meta.dirname, '../../tools');

/** The file of an installed tool. Without it the spec is pending, and its title says why. */
export function installedTool(context: Context, file: string): string {
  const found = path.join(TOOLS, 'node_modules', file);
  if (!fs.existsSync(found)) {
    if (context.test) context.test.title += ' (pending: run `npm ci --prefix tools` first)';
    context.skip();
  }
  return found;
}
