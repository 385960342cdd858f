/** What holds behind every pooler, and through its restarts. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { eventually } from './eventually.js';
import { assertSurvives, attempted, timed } from './fault-load.js';
import { FaultProxy } from './fault-proxy.js';
import type { Pooler } from './pooler.js';
import { openStore } from './postgres.js';
import { PostgresServer } from './postgres-server.js';
import { plain } from './sessions.js';

/** A PostgreSQL server with a pooler in front of it, which has one address over its restarts. */
export class PooledServer {
  readonly server: PostgresServer;
  /** The connection string of that address. */
  readonly uri: string;
  readonly #startPooler: (target: string) => Promise<Pooler>;
  readonly #address: FaultProxy;
  #pooler: Pooler | undefined;

  private constructor(
    server: PostgresServer,
    startPooler: (target: string) => Promise<Pooler>,
    pooler: Pooler,
    address: FaultProxy,
  ) {
    this.server = server;
    this.#startPooler = startPooler;
    this.#pooler = pooler;
    this.#address = address;
    const uri = new URL(pooler.uri);
    uri.port = new URL(address.uri).port;
    this.uri = uri.href;
  }

  static async start(startPooler: (target: string) => Promise<Pooler>): Promise<PooledServer> {
    const server = await PostgresServer.start({ settings: { fsync: 'off' } });
    const pooler = await startPooler(server.uri);
    const address = await FaultProxy.start(() => pooled.#port);
    const pooled = new PooledServer(server, startPooler, pooler, address);
    return pooled;
  }

  /** Nobody listens on port 1 while the pooler is stopped. */
  get #port(): number {
    return this.#pooler ? Number(new URL(this.#pooler.uri).port) : 1;
  }

  async stopPooler(): Promise<void> {
    await this.#pooler?.close();
    this.#pooler = undefined;
  }

  async startPooler(): Promise<void> {
    this.#pooler = await this.#startPooler(this.server.uri);
  }

  async close(): Promise<void> {
    await this.stopPooler();
    await this.#address.close();
    await this.server.close();
  }
}

/** Leaves the specs pending where the pooler is not installed; in CI they fail. */
export function skipWithoutPooler(this: Mocha.Context, command: string, debianPackage: string): void {
  try {
    execFileSync(command, ['--version'], { stdio: 'ignore' });
  } catch (error) {
    if (process.env.CI) throw error;
    console.log(`    pending: ${command} is not installed (Debian package ${debianPackage})`);
    this.skip();
  }
}

/** @param options those that the pooler asks of a store */
export function itWorksBehind(pooled: () => PooledServer, options: PgStoreOptions = {}): void {
  const open = (more: PgStoreOptions): Promise<PgStore> => openStore({ uri: pooled().uri, ...options, ...more });

  const underLoad = (fault: Parameters<typeof assertSurvives>[1]) =>
    assertSurvives(
      (table, more) => open({ table, ...more }),
      fault,
      () => pooled().server.uri,
    );

  it('stores, reads and destroys sessions on whatever server connection is free', async () => {
    const store = await open({ table: 'pooled' });
    const sids = Array.from({ length: 100 }, (_, n) => `s${n}`);
    for (let round = 0; round < 3; round++) {
      await Promise.all(sids.map((sid) => store.set(sid, plain({ round }))));
      const found: any[] = await Promise.all(sids.map((sid) => store.get(sid)));
      assert(found.every((session) => session.round === round));
    }
    await Promise.all(sids.map((sid) => store.destroy(sid)));
    assert.equal(await store.length(), 0);
  });

  it('counts every `update`, and tells of each watched session that ends, none else', async () => {
    const [store, other] = [await open({ table: 'watched', watchInterval: 0.1 }), await open({ table: 'watched' })];
    const sids = Array.from({ length: 100 }, (_, n) => `s${n}`);
    await Promise.all(sids.map((sid) => store.set(sid, plain({ n: 0 }))));
    const ended: string[] = [];
    for (const sid of sids) store.watch(sid, () => ended.push(sid));
    const increment = (session: any) => void session.n++;
    await Promise.all(sids.flatMap((_, n) => (n % 2 ? store : other).update('s0', increment)));
    assert.equal(((await store.get('s0')) as any).n, 100);
    await Promise.all(sids.slice(50).map((sid) => other.destroy(sid)));
    await eventually(() => ended.length >= 50);
    await other.clear();
    await eventually(() => ended.length === 100);
    assert.deepEqual(ended.slice(0, 50).sort(), sids.slice(50).sort());
  });

  it('restarted under 32 writers: no call fails, no acknowledged write is lost', async () => {
    await underLoad(async (load, store) => {
      let away = 0;
      for (let n = 0; n < 3; n++) {
        await load.progress();
        const restarted = await timed(async () => {
          const failed = attempted(store, 1);
          await pooled().stopPooler();
          await failed;
          await pooled().startPooler();
        });
        away = Math.max(away, restarted);
      }
      return away;
    });
  });

  it('the server behind it killed under 32 writers, back once all of them wait: the same', async () => {
    const { server } = pooled();
    await underLoad((load) =>
      timed(async () => {
        await server.stop('kill');
        await eventually(() => load.waiting === 32);
        await server.start();
      }),
    );
  });
}
