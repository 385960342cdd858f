/** Folders in which nobody else can write. */

import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { guardFolder } from './guard.js';
import { isRoot } from './server-user.js';

/**
 * As root, the server runs as another user, who has to pass through the folder to its data. That user may neither list
 * the folder nor write in it: a symbolic link in the place of the log would make root write elsewhere.
 */
const MODE = isRoot() ? 0o711 : 0o700;

/** A new folder that is removed when this process ends, at the latest. */
export function temporaryFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'express-pg-store-'));
  guardFolder(folder);
  fs.chmodSync(folder, MODE);
  return folder;
}

/** Creates a folder that is kept, where it is missing; throws if somebody else can write in one that is there. */
export function privateFolder(folder: string): void {
  fs.mkdirSync(folder, { recursive: true, mode: MODE });
  const { uid, mode } = fs.statSync(folder);
  if (uid !== process.getuid?.()) throw new Error(`The folder ${folder} belongs to another user: use one of your own.`);
  if ((mode & 0o022) !== 0) throw new Error(`Others can write in ${folder}: first run chmod go-w '${folder}'`);
}

/**
 * By `rm`, which does not follow a symbolic link that somebody puts into the folder meanwhile. Node.js' own `rm` does,
 * between its look at a name and its removal of what that name holds.
 */
export async function removeFolder(folder: string): Promise<void> {
  await promisify(execFile)('rm', ['-rf', '--', folder], { cwd: '/' });
}
