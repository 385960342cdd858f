/** The user as whom servers run. */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';

/** Options of `spawn` that choose a user. They are empty for the user of this process. */
export interface ServerUser {
  readonly uid?: number;
  readonly gid?: number;
}

/**
 * The user for servers. PostgreSQL and PgBouncer refuse to run as root, so if this process runs as root, they run as
 * `postgres`, or as `nobody` if that user does not exist. Otherwise they run as the user of this process.
 */
export function serverUser(): ServerUser {
  if (!isRoot()) return {};
  for (const name of ['postgres', 'nobody']) {
    try {
      const id = (flag: string) => Number(execFileSync('id', [flag, name], { stdio: ['ignore', 'pipe', 'ignore'] }));
      return { uid: id('-u'), gid: id('-g') };
    } catch {
      // This user does not exist.
    }
  }
  throw new Error('PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`');
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/**
 * Gives a file or folder to the user as whom servers run. Other users must not be able to write in its parent folder.
 */
export function giveToServerUser(path: string): void {
  const { uid, gid } = serverUser();
  if (uid !== undefined && gid !== undefined) fs.lchownSync(path, uid, gid);
}
