/** Reads libpq's password file: the one that PGPASSFILE names, or else `.pgpass` in the home folder. */

import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { codeOf } from '../errors.js';

/** The connection whose password is looked for. */
export interface PasswordQuery {
  /** The host as it was given, but `localhost` for a Unix socket in its default folder. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
}

/** The path of the password file. @param given the path in PGPASSFILE or parameter `passfile` */
export function passwordFile(given: string | undefined): string {
  if (given !== undefined) return given;
  const { APPDATA } = process.env;
  if (process.platform === 'win32' && APPDATA) return path.join(APPDATA, 'postgresql', 'pgpass.conf');
  return path.join(os.homedir(), '.pgpass');
}

/**
 * The password in the first line of the file that matches; `undefined` if there is none. As in libpq, the file is
 * ignored if it is missing, if it is not a plain file, or if other users may read it.
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
    const matches = wanted.every((value, n) => fields[n] === '*' || unescaped(fields[n] ?? '') === value);
    if (matches && fields.length >= 5) return unescaped(fields[4] ?? '');
  }
  return undefined;
}

/** The fields of a line, which colons separate. A colon or backslash after a backslash is a part of the field. */
function fieldsOf(line: string): string[] {
  return [...line.matchAll(/((?:\\.|[^\\:])*)(?::|$)/g)].map(([, field = '']) => field);
}

function unescaped(field: string): string {
  return field.replace(/\\(.)/g, '$1');
}
