/** Creates and removes folders in which no other user can write. */

import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { guardFolder } from './guard.js';
import { isRoot } from './server-user.js';

/**
 * If this process runs as root, the server runs as another user, who has to pass through the folder to its data. That
 * user must not be able to write in the folder: with a symbolic link instead of the log it could make root write
 * elsewhere.
 */
const MODE = isRoot() ? 0o711 : 0o700;

/** Creates a folder that is removed at the latest when this process ends. */
export function temporaryFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'express-pg-store-'));
  guardFolder(folder);
  fs.chmodSync(folder, MODE);
  return folder;
}

/** Creates a folder that is kept, unless it exists. @throws an error if other users can write in an existing folder */
export function privateFolder(folder: string): void {
  fs.mkdirSync(folder, { recursive: true, mode: MODE });
  const { uid, mode } = fs.statSync(folder);
  if (uid !== process.getuid?.()) throw new Error(`The folder ${folder} belongs to another user: use one of your own.`);
  if ((mode & 0o022) !== 0) throw new Error(`Others can write in ${folder}: first run chmod go-w '${folder}'`);
}

/**
 * Removes a folder with the command `rm`, which does not follow a symbolic link that somebody puts into the folder at
 * the same time. Node.js's own `rm` does, between its check of a name and the removal.
 */
export async function removeFolder(folder: string): Promise<void> {
  await promisify(execFile)('rm', ['-rf', '--', folder], { cwd: '/' });
}
