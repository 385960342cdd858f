/** The project's own files. */

import fs from 'node:fs';
import path from 'node:path';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** Folders whose files are not the project's. Other specs create and remove such folders meanwhile. */
const FOREIGN: ReadonlySet<string> = new Set(['node_modules', 'tmp']);

/** The paths of all files below a folder of the project, from that folder, with slashes. */
export function filesBelow(folder: string): string[] {
  return fs
    .readdirSync(path.join(ROOT, folder), { withFileTypes: true })
    .flatMap((entry) => {
      if (!entry.isDirectory()) return [entry.name];
      if (FOREIGN.has(entry.name)) return [];
      return filesBelow(`${folder}/${entry.name}`).map((file) => `${entry.name}/${file}`);
    })
    .sort();
}
