/** Measures the WAL of requests that only read their session, with express-session's option `rolling`. */

import type { Sql } from 'postgres';
import type { PeerName, Servers } from '../stores/peers.js';
import { App, type LoadGenerator } from './apps.js';

/** @returns the bytes of WAL for each request */
export async function walPerRequest(
  name: PeerName,
  servers: Servers,
  sql: Sql,
  generator: LoadGenerator,
  requests: number,
): Promise<number> {
  const app = await App.start(name, servers);
  const load = { port: app.port, path: '/rolling', connections: 100, requests };
  // After a checkpoint, the first change of each page writes the whole page to the WAL. The first pass over all
  // sessions causes these writes, so the second one is measured without them.
  await generator.run(load);
  const position = async () => (await sql`select pg_current_wal_lsn()::text as lsn`)[0].lsn as string;
  const before = await position();
  await generator.run(load);
  const [{ bytes }] = await sql`select pg_wal_lsn_diff(pg_current_wal_lsn(), ${before}::pg_lsn)::float8 as bytes`;
  await app.stop();
  return bytes / requests;
}
