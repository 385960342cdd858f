/** Builds the PgStore that is measured. It is compiled as for npm, because code that `tsx` transpiles runs slower. */

import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** Not `dist`, which may be built during a run. It is inside the project, so that the dependencies are found. */
const outDir = path.join(root, 'node_modules', '.cache', 'express-pg-store-bench');

export function build(): void {
  const typescript = path.dirname(createRequire(import.meta.url).resolve('typescript/package.json'));
  execFileSync(process.execPath, [path.join(typescript, 'bin', 'tsc'), '-p', root, '--outDir', outDir], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
}

/** Imports a module of the build. @param name its path in lib/, without an extension */
export function builtModule<T>(name: string): Promise<T> {
  return import(pathToFileURL(path.join(outDir, `${name}.js`)).href) as Promise<T>;
}
