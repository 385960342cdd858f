/** A certificate for a PostgreSQL server of one's own. */

import { generate } from 'selfsigned';
import type { PostgresServer } from './postgres-server.js';

export function certificate(): ReturnType<typeof generate> {
  return generate([{ name: 'commonName', value: 'localhost' }], { keySize: 2048 });
}

/** Puts a certificate where the server finds it; returns it: it is its own authority. */
export async function writeCertificate(server: PostgresServer): Promise<string> {
  const { private: key, cert } = await certificate();
  server.writeFile('server.crt', cert);
  server.writeFile('server.key', key);
  return cert;
}
