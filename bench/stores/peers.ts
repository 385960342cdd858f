/** The stores that are compared, each set up as its documentation recommends. */

import connectPgSimple from 'connect-pg-simple';
import { RedisStore } from 'connect-redis';
import session, { type SessionData } from 'express-session';
import pg from 'pg';
import { createClient } from 'redis';
import { createClient as createClient5 } from 'redis5';
import type { PgStoreOptions } from '../../lib/index.js';
import { builtModule } from './build.js';
import { PlainStore } from './plain-store.js';

export const PEERS = [
  'MemoryStore',
  'connect-pg-simple',
  'connect-redis (redis 5)',
  'connect-redis (redis 6)',
  'plain postgres',
  'PgStore',
  'PgStore on pg.Pool',
] as const;
export type PeerName = (typeof PEERS)[number];

/** The connection strings of the servers; Redis may be missing. */
export interface Servers {
  readonly postgres: string;
  readonly redis: string | undefined;
}

/** A store that is measured. */
export interface Peer {
  readonly name: string;
  readonly store: session.Store;
  close(): Promise<void>;
}

export type LoadedSession = session.Session & SessionData & Record<string, unknown>;

const REDIS_PREFIX = 'express-pg-store-bench:';

export function peersOn({ redis }: Servers): PeerName[] {
  return PEERS.filter((name) => redis !== undefined || !name.startsWith('connect-redis'));
}

export async function openPeer(name: PeerName, servers: Servers, options: PgStoreOptions = {}): Promise<Peer> {
  switch (name) {
    case 'MemoryStore':
      return { name, store: new session.MemoryStore(), close: async () => {} };
    case 'connect-pg-simple': {
      const pool = new pg.Pool({ connectionString: servers.postgres, max: 10 });
      // The pool emits an error for each idle connection when the server stops.
      pool.on('error', () => {});
      const Store = connectPgSimple(session);
      const store = new Store({ pool, createTableIfMissing: true, pruneSessionInterval: false });
      return { name, store, close: () => pool.end() };
    }
    case 'connect-redis (redis 5)':
    case 'connect-redis (redis 6)': {
      const create = name.includes('5') ? (createClient5 as unknown as typeof createClient) : createClient;
      const client = create({ url: servers.redis as string });
      client.on('error', () => {});
      await client.connect();
      const store = new RedisStore({ client, prefix: REDIS_PREFIX });
      return { name, store, close: () => client.close() };
    }
    case 'plain postgres': {
      const store = new PlainStore(servers.postgres);
      await store.createTable();
      return { name, store, close: () => store.close() };
    }
    case 'PgStore':
      return openPgStore(servers, options);
    case 'PgStore on pg.Pool': {
      const pool = new pg.Pool({ connectionString: servers.postgres, max: 10 });
      pool.on('error', () => {});
      // It has a table of its own, because in a shared one each `set` would meet the other store's changes.
      const { store, close } = await openPgStore(servers, { ...options, pool, table: 'sessions_pool' });
      return { name, store, close: () => close().then(() => pool.end()) };
    }
  }
}

/** Opens a PgStore of the build. @param name how tables name it */
export async function openPgStore(servers: Servers, options: PgStoreOptions, name = 'PgStore'): Promise<Peer> {
  const { PgStore } = await builtModule<typeof import('../../lib/index.js')>('index');
  const store = new PgStore({ ...(options.pool ? {} : { uri: servers.postgres }), autodelete: false, ...options });
  return { name, store, close: () => store.close() };
}

export function save({ store }: Peer, sid: string, data: SessionData): Promise<void> {
  return new Promise((resolve, reject) => store.set(sid, data, (error) => (error ? reject(error) : resolve())));
}

export async function saveAll(peer: Peer, sids: string[], sessionOf: (n: number) => SessionData): Promise<void> {
  await someAtATime(sids, (sid, n) => save(peer, sid, sessionOf(n)));
}

/** Loads a session as express-session does for a request: with `get` and then `createSession`. */
export function load({ store }: Peer, sid: string): Promise<LoadedSession> {
  return new Promise((resolve, reject) => {
    store.get(sid, (error, data) => {
      if (error || !data) return reject(error ?? new Error(`no session ${sid}`));
      resolve(store.createSession({ sessionID: sid, sessionStore: store } as never, data) as LoadedSession);
    });
  });
}

export function loadAll(peer: Peer, sids: string[]): Promise<LoadedSession[]> {
  return someAtATime(sids, (sid) => load(peer, sid));
}

/**
 * Does work for all sessions, a hundred at a time. With all of them at once, clients with a time limit for each command
 * would time out on a slow machine, and V8 would learn from so many waiting calls that their objects live long.
 */
async function someAtATime<T>(sids: string[], work: (sid: string, n: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (let first = 0; first < sids.length; first += 100) {
    const some = sids.slice(first, first + 100);
    results.push(...(await Promise.all(some.map((sid, n) => work(sid, first + n)))));
  }
  return results;
}

export async function clearRedis(url: string): Promise<void> {
  const client = createClient({ url });
  await client.connect();
  for await (const keys of client.scanIterator({ MATCH: `${REDIS_PREFIX}*`, COUNT: 1000 })) {
    if (keys.length > 0) await client.del(keys);
  }
  await client.close();
}
