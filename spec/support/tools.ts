/**
 * The packages that only the specs in spec/tools need: bundlers, test runners, compilers, frameworks and runtimes. They
 * have a lock file of their own, so that `npm ci` at the root stays small.
 */

import fs from 'node:fs';
import path from 'node:path';
import type { Context } from 'mocha';

export const TOOLS = path.resolve(import.meta.dirname, '../tools');
export const INSTALL_TOOLS = 'npm ci --prefix spec/tools';

export function areToolsInstalled(): boolean {
  return fs.existsSync(path.join(TOOLS, 'node_modules/.package-lock.json'));
}

/** For `before`: skips the specs if the tools are not installed. In CI it fails instead. */
export function skipWithoutTools(this: Context): void {
  if (areToolsInstalled()) return;
  if (process.env.CI) throw new Error(`CI must install the tools: ${INSTALL_TOOLS}`);
  console.log(`    pending: run \`${INSTALL_TOOLS}\` first`);
  this.skip();
}

/** The path of a tool's file, as in `toolFile('jest', 'bin/jest.js')`. */
export function toolFile(name: string, file: string): string {
  return path.join(TOOLS, 'node_modules', name, file);
}

const SITE_TOOLS = path.resolve(import.meta.dirname, '../../tools');

/**
 * The path of a file in tools/node_modules; tools/ has a lock file of its own. If it is missing, the spec is skipped.
 */
export function installedTool(context: Context, file: string): string {
  const found = path.join(SITE_TOOLS, 'node_modules', file);
  if (!fs.existsSync(found)) {
    console.log('    pending: tools/ is not installed (npm ci --prefix tools)');
    context.skip();
  }
  return found;
}
