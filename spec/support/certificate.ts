/** A certificate for a PostgreSQL server of one's own. */

import { generate } from 'selfsigned';
import type { PostgresServer } from './postgres-server.js';

/** @param algorithm the hash that it is signed with */
export function certificate(algorithm = 'sha256'): ReturnType<typeof generate> {
  return generate([{ name: 'commonName', value: 'localhost' }], { keySize: 2048, algorithm });
}

/** Puts a certificate where the server finds it; returns it: it is its own authority. */
export async function writeCertificate(server: PostgresServer, algorithm?: string): Promise<string> {
  const { private: key, cert } = await certificate(algorithm);
  server.writeFile('server.crt', cert);
  server.writeFile('server.key', key);
  return cert;
}
