/** The user that servers run as. */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';

export interface ServerUser {
  readonly uid?: number;
  readonly gid?: number;
}

/**
 * PostgreSQL and PgBouncer refuse to run as root. Then they run as `postgres` or, where that user is missing, as
 * `nobody`; for everybody else as who runs this process, which is what an empty object means to `spawn`.
 */
export function serverUser(): ServerUser {
  if (!isRoot()) return {};
  for (const name of ['postgres', 'nobody']) {
    try {
      const id = (flag: string) => Number(execFileSync('id', [flag, name], { stdio: ['ignore', 'pipe', 'ignore'] }));
      return { uid: id('-u'), gid: id('-g') };
    } catch {
      // That user does not exist.
    }
  }
  throw new Error('PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`');
}

export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/** Gives a file or folder to the user that servers run as. In its parent nobody else may write. */
export function giveToServerUser(path: string): void {
  const { uid, gid } = serverUser();
  if (uid !== undefined && gid !== undefined) fs.lchownSync(path, uid, gid);
}
