/** The store follows a failover by itself and keeps all that was acknowledged. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import postgres from 'postgres';
import type { PgStore } from '../../lib/index.js';
import { eventually, patiently } from '../support/eventually.js';
import { Load, timed } from '../support/fault-load.js';
import { temporaryFolder } from '../support/folders.js';
import { closeStores, openStore } from '../support/postgres.js';
import { PASSWORD, PostgresServer } from '../support/postgres-server.js';
import { plain } from '../support/sessions.js';

describe('failover to a standby', () => {
  const TABLE = 'sessions';
  let primary: PostgresServer;
  let standby: PostgresServer;

  /**
   * A primary with a standby in synchronous replication: a copied data folder with
   * `standby.signal`.
   */
  beforeEach(async () => {
    primary = await PostgresServer.start();
    const folder = temporaryFolder();
    const dataDir = path.join(folder, 'data');
    await primary.stop();
    fs.cpSync(primary.dataDir, dataDir, { recursive: true });
    fs.writeFileSync(path.join(dataDir, 'standby.signal'), '');
    giveTo(dataDir, fs.statSync(primary.dataDir));
    await primary.start();
    standby = await PostgresServer.start({
      dataDir,
      settings: { primary_conninfo: `host=127.0.0.1 port=${primary.port} user=postgres application_name=standby` },
    });
    await onPrimary(async (sql) => {
      await sql`alter system set synchronous_standby_names = 'standby'`;
      await sql`select pg_reload_conf()`;
      await replicates(sql, 'sync');
    });
  });
  afterEach(async () => {
    await closeStores();
    await primary.close();
    await standby.close();
    fs.rmSync(path.dirname(standby.dataDir), { recursive: true, force: true, maxRetries: 3 });
  });

  /** Resolves once the standby is connected to the primary in this way. */
  async function replicates(sql: postgres.Sql, state: 'sync' | 'async'): Promise<void> {
    await eventually(async () => (await sql`select from pg_stat_replication where sync_state = ${state}`).length > 0);
  }

  async function onPrimary(work: (sql: postgres.Sql) => Promise<void>): Promise<void> {
    const sql = postgres(primary.uri, { max: 1 });
    await work(sql);
    await sql.end();
  }

  async function promote(): Promise<void> {
    const sql = postgres(standby.uri, { max: 1 });
    await sql`select pg_promote()`;
    await sql.end();
  }

  async function replicateAsynchronously(): Promise<void> {
    await onPrimary(async (sql) => {
      await sql`alter system reset synchronous_standby_names`;
      await sql`select pg_reload_conf()`;
      await replicates(sql, 'async');
    });
  }

  /** Waits until it can be read there. */
  async function standbyHas(sid: string): Promise<void> {
    const sql = postgres(standby.uri, { max: 1 });
    await eventually(async () => (await sql`select from ${sql(TABLE)} where sid = ${sid}`).length > 0);
    await sql.end();
  }

  /** Both hosts, in the order in which they are to be tried. */
  function hosts(...servers: PostgresServer[]): string {
    const list = servers.map(({ port }) => `127.0.0.1:${port}`).join(',');
    return `postgres://postgres:${PASSWORD}@${list}/postgres?target_session_attrs=primary`;
  }

  it('the primary killed under 32 writers and 4 sign-outs, the standby promoted: no call fails, nothing acknowledged is lost', async () => {
    const store = await openStore({ uri: hosts(primary, standby), table: TABLE });
    const load = await Load.start(store);
    const signOuts = new SignOuts(store);
    await Promise.all([load.progress(), signOuts.progress()]);
    const away = await timed(async () => {
      await primary.stop('kill');
      await promote();
    });
    await Promise.all([load.progress(), signOuts.progress()]);
    await Promise.all([load.stop(), signOuts.stop()]);
    // Calls are tried again for 3.1 s at least. Only on a busy machine a promotion takes longer.
    if (away < 1500) assert.deepEqual([...load.errors, ...signOuts.errors], []);
    assert.equal(await load.lost(standby.uri, TABLE), 0);
    const left = await store.ids();
    assert.deepEqual(
      left.filter((sid) => signOuts.acknowledged.has(sid)),
      [],
    );
  });

  it('asynchronous replication, the standby behind: a failover loses acknowledged writes, and the signed out is back', async () => {
    await replicateAsynchronously();
    const store = await openStore({ uri: hosts(primary, standby), table: TABLE });
    await store.set('signed-out', plain({ user: 1 }));
    await standbyHas('signed-out');
    await standby.stop();
    await store.destroy('signed-out');
    await store.set('late', plain({ user: 2 }));
    await primary.stop('kill');
    await standby.start();
    await promote();
    assert.deepEqual(await store.ids(), ['signed-out']);
  });

  it('synchronous replication, the standby away: nothing is acknowledged that a failover would lose', async () => {
    const store = await openStore({ uri: hosts(primary, standby), table: TABLE, timeout: 1000 });
    await patiently(() => store.set('signed-out', plain({ user: 1 })));
    await standby.stop();
    await assert.rejects(store.destroy('signed-out'), { code: 'TIMEOUT' });
    await assert.rejects(store.set('late', plain({ user: 2 })), { code: 'TIMEOUT' });
    await primary.stop('kill');
    await standby.start();
    await promote();
    assert.deepEqual(await patiently(() => store.ids()), ['signed-out']);
    await patiently(() => store.destroy('signed-out'));
    assert.deepEqual(await patiently(() => store.ids()), []);
  });

  it('the standby named first: writes go to the primary; back and forth it finds the one that takes them', async () => {
    const store = await openStore({ uri: hosts(standby, primary), table: TABLE });
    await Promise.all(Array.from({ length: 20 }, (_, n) => store.set(`s${n}`, plain({ n }))));
    assert.equal(await store.length(), 20);
    await primary.stop('kill');
    await promote();
    await store.set('after', plain());
    assert.equal(await store.length(), 21);
  });

  it('nobody promoted: calls fail within `timeout` without a rush of connections, and go on after the promotion', async () => {
    const store = await openStore({ uri: hosts(primary, standby), table: TABLE, timeout: 3000 });
    await patiently(() => store.set('sid', plain({ n: 1 })));
    await primary.stop('kill');
    await standby.restart();
    const settings = postgres(standby.uri, { max: 1 });
    await settings`alter system set log_connections = on`;
    await settings`select pg_reload_conf()`;
    const connect = async () => {
      const probe = postgres(standby.uri, { max: 1 });
      await probe`select 1`;
      await probe.end();
    };
    // The server takes up the setting in its own time.
    await eventually(async () => {
      await connect();
      return standby.log.includes('connection authorized');
    });
    const before = count(standby.log, 'connection authorized');
    const answers = await Promise.allSettled([store.get('sid'), store.set('sid', plain({ n: 2 })), store.get('other')]);
    for (const answer of answers as any[]) {
      assert.equal(answer.status, 'rejected');
      assert.match(answer.reason.code, /^(TIMEOUT|ECONNREFUSED|HOST_UNFIT)$/);
    }
    const connections = count(standby.log, 'connection authorized') - before;
    assert(connections > 0 && connections < 150, `${connections} connections to the standby`);
    await settings.end();
    await promote();
    await patiently(() => store.set('sid', plain({ n: 3 })));
    assert.equal(((await patiently(() => store.get('sid'))) as any).n, 3);
  });
});

/** Four visitors, each of whom signs in and out, again and again. */
class SignOuts {
  readonly acknowledged = new Set<string>();
  readonly errors: unknown[] = [];
  readonly #store: PgStore;
  readonly #visitors: Promise<void>[];
  #stopped = false;

  constructor(store: PgStore) {
    this.#store = store;
    this.#visitors = [0, 1, 2, 3].map((visitor) => this.#visit(visitor));
  }

  /** Resolves when so many more were acknowledged. */
  async progress(signOuts = 20): Promise<void> {
    const goal = this.acknowledged.size + signOuts;
    await eventually(() => this.acknowledged.size >= goal);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#visitors);
  }

  async #visit(visitor: number): Promise<void> {
    for (let n = 0; !this.#stopped; n++) {
      const sid = `visit-${visitor}-${n}`;
      try {
        await this.#store.set(sid, plain({ visitor }));
        await this.#store.destroy(sid);
        this.acknowledged.add(sid);
      } catch (error) {
        this.errors.push(error);
      }
    }
  }
}

function count(text: string, part: string): number {
  return text.split(part).length - 1;
}

function giveTo(folder: string, { uid, gid, mode }: fs.Stats): void {
  fs.chownSync(folder, uid, gid);
  if (fs.statSync(folder).isDirectory()) {
    for (const name of fs.readdirSync(folder)) giveTo(path.join(folder, name), { uid, gid } as fs.Stats);
    if (mode) fs.chmodSync(folder, mode & 0o777);
  }
}
