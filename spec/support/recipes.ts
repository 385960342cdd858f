/** Runs code that the documentation shows, as a module that imports this package's source. */

import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { documented } from './docs.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** The folder is below the root, so that the code finds the root's packages. Git ignores it. */
const FOLDER = path.join(ROOT, 'tmp');

/** Writes the documented code that contains the given text to a file, which exists while `work` runs. */
export async function withRecipe<T>(
  page: string,
  text: string,
  work: (file: string) => Promise<T>,
  more = '',
): Promise<T> {
  fs.mkdirSync(FOLDER, { recursive: true });
  const file = path.join(FOLDER, `recipe-${randomBytes(6).toString('hex')}.ts`);
  const source = pathToFileURL(path.join(ROOT, 'lib/index.ts')).href;
  fs.writeFileSync(file, (documented(page, 'ts', text) + more).replaceAll("'express-pg-store'", `'${source}'`));
  try {
    return await work(file);
  } finally {
    fs.rmSync(file);
  }
}

/** The exports of the documented code. */
export function recipe(page: string, text: string): Promise<any> {
  return withRecipe(page, text, (file) => import(pathToFileURL(file).href));
}
