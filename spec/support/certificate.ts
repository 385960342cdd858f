/** A certificate for a PostgreSQL server of one's own. */

import fs from 'node:fs';
import path from 'node:path';
import { generate } from 'selfsigned';
import type { PostgresServer } from '../../example/postgres-server.js';

/** @param algorithm the hash that it is signed with */
export function certificate(algorithm = 'sha256'): ReturnType<typeof generate> {
  return generate([{ name: 'commonName', value: 'localhost' }], { keySize: 2048, algorithm });
}

/** Puts a certificate where the server finds it; returns it: it is its own authority. */
export async function writeCertificate({ dataDir }: PostgresServer, algorithm?: string): Promise<string> {
  const { private: key, cert } = await certificate(algorithm);
  const { uid, gid } = fs.statSync(dataDir);
  for (const [name, text] of Object.entries({ 'server.crt': cert, 'server.key': key })) {
    const file = path.join(dataDir, name);
    fs.writeFileSync(file, text, { mode: 0o600 });
    fs.chownSync(file, uid, gid);
  }
  return cert;
}
