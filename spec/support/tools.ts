/** The tools of the folder tools/, which has a lock file of its own. */

import fs from 'node:fs';
import path from 'node:path';
import type { Context } from 'mocha';

const TOOLS = path.resolve(import.meta.dirname, '../../tools');

/** The file of an installed tool. Without it the spec is pending, and the reason is printed. */
export function installedTool(context: Context, file: string): string {
  const found = path.join(TOOLS, 'node_modules', file);
  if (!fs.existsSync(found)) {
    console.log('    pending: tools/ is not installed (npm ci --prefix tools)');
    context.skip();
  }
  return found;
}
