/** The password file of libpq: PGPASSFILE, or `.pgpass` in the home folder. */

import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { codeOf } from '../errors.js';

/** What a line of the file is compared with. */
export interface PasswordQuery {
  /** `localhost` for a socket in the default folder, else what the app has given as host. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
}

/** @param given the file that PGPASSFILE or parameter `passfile` names */
export function passwordFile(given: string | undefined): string {
  if (given !== undefined) return given;
  const { APPDATA } = process.env;
  if (process.platform === 'win32' && APPDATA) return path.join(APPDATA, 'postgresql', 'pgpass.conf');
  return path.join(os.homedir(), '.pgpass');
}

/**
 * The password in the first line that fits, or nothing. As libpq does, it leaves out a missing file, one that is not
 * a plain file, and one that others may read.
 */
export async function passwordFromFile(file: string, query: PasswordQuery): Promise<string | undefined> {
  let text: string;
  try {
    const stats = await fs.stat(file);
    // A pipe would be read until somebody writes into it, in one of the few threads that the process has for files.
    if (!stats.isFile()) return undefined;
    if (process.platform !== 'win32' && (stats.mode & 0o077) !== 0) return undefined;
    text = await fs.readFile(file, 'utf8');
  } catch (error) {
    if (/^(ENOENT|ENOTDIR|EACCES|EPERM|EISDIR)$/.test(codeOf(error))) return undefined;
    throw error;
  }
  const wanted = [query.host, String(query.port), query.database, query.user];
  for (const line of text.split(/\r?\n/).filter((line) => !line.startsWith('#'))) {
    const fields = fieldsOf(line);
    const fits = wanted.every((value, n) => fields[n] === '*' || unescaped(fields[n] ?? '') === value);
    if (fits && fields.length >= 5) return unescaped(fields[4] ?? '');
  }
  return undefined;
}

/** The fields between colons; a backslash before a colon or a backslash makes that a part of the field. */
function fieldsOf(line: string): string[] {
  return [...line.matchAll(/((?:\\.|[^\\:])*)(?::|$)/g)].map(([, field = '']) => field);
}

function unescaped(field: string): string {
  return field.replace(/\\(.)/g, '$1');
}
