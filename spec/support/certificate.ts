/** Makes self-signed certificates for PostgreSQL servers of specs. */

import { generate } from 'selfsigned';
import type { PostgresServer } from './postgres-server.js';

/** @param algorithm the hash function of the certificate's signature */
export function certificate(algorithm = 'sha256'): ReturnType<typeof generate> {
  return generate([{ name: 'commonName', value: 'localhost' }], { keySize: 2048, algorithm });
}

/** Puts a certificate where the server finds it. @returns the certificate, which is its own authority */
export async function writeCertificate(server: PostgresServer, algorithm?: string): Promise<string> {
  const { private: key, cert } = await certificate(algorithm);
  server.writeFile('server.crt', cert);
  server.writeFile('server.key', key);
  return cert;
}
