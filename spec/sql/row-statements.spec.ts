import assert from 'node:assert/strict';
import type { PgStore, PgStoreOptions } from '../../lib/index.js';
import { closeStores, freshTable, openStore, SHARDS, sqlClient } from '../support/postgres.js';
import { load, loaded, plain } from '../support/sessions.js';

/** A statement as the client sends it: its kind, and the row keys that it carries. */
interface Sent {
  readonly kind: 'read' | 'write';
  readonly keys: string[];
  readonly bytes: number;
}

/** A store whose statements on rows are noted. */
async function watchedStore(options: PgStoreOptions = {}): Promise<{ store: PgStore; sent: Sent[] }> {
  const sent: Sent[] = [];
  const debug = (_connection: number, text: string, values: (string | null)[]) => {
    if (/pg_catalog\.pg_|create table/.test(text)) return;
    const keys = new Set(values.flatMap((value) => value?.match(/key-\d+/g) ?? []));
    const bytes = values.reduce((sum, value) => sum + (value?.length ?? 0), 0);
    sent.push({ kind: /insert into|update|delete from/.test(text) ? 'write' : 'read', keys: [...keys], bytes });
  };
  const store = await openStore({ ...options, postgres: { debug } });
  await store.ready();
  return { store, sent };
}

const sids = (count: number) => Array.from({ length: count }, (_, n) => `key-${n}`);

describe('statements', () => {
  afterEach(closeStores);

  it('are one for each lone call', async () => {
    const { store, sent } = await watchedStore({ touchAfter: 0 });
    await store.set('key-1', plain());
    await store.get('key-1');
    await store.touch('key-1', plain());
    await store.destroy('key-1');
    assert.deepEqual(
      sent.map(({ kind, keys }) => [kind, ...keys]),
      [
        ['write', 'key-1'],
        ['read', 'key-1'],
        ['write', 'key-1'],
        ['write', 'key-1'],
      ],
    );
  });

  it('are few for many calls, each of at most 256 rows', async () => {
    const { store, sent } = await watchedStore();
    await Promise.all(sids(1000).map((sid) => store.set(sid, plain())));
    assert.equal(sent.flatMap(({ keys }) => keys).length, 1000);
    assert(sent.every(({ keys }) => keys.length <= 256));
    assert(sent.length <= 6 * (SHARDS ?? 1), `${sent.length} statements`);
    sent.length = 0;
    await Promise.all(sids(1000).map((sid) => store.get(sid)));
    assert.equal(sent.flatMap(({ keys }) => keys).length, 1000);
    assert(sent.every(({ keys }) => keys.length <= 256));
    assert(sent.length <= 6 * (SHARDS ?? 1), `${sent.length} statements`);
  });

  it('carry about 1 MB at most', async () => {
    const { store, sent } = await watchedStore();
    const text = 'x'.repeat(100_000);
    await Promise.all(sids(40).map((sid) => store.set(sid, plain({ text }))));
    assert.equal(sent.flatMap(({ keys }) => keys).length, 40);
    assert(sent.every(({ bytes }) => bytes < 1_100_000));
  });

  it('share one key among gets of one session', async () => {
    const { store, sent } = await watchedStore();
    await store.set('key-1', plain({ x: 1 }));
    sent.length = 0;
    const answers = await Promise.all(Array.from({ length: 100 }, () => store.get('key-1')));
    assert.equal(answers.filter((answer) => (answer as any)?.x === 1).length, 100);
    assert(sent.length <= 2, `${sent.length} statements`);
    assert(sent.every(({ keys, bytes }) => keys.length === 1 && bytes < 50));
    assert.notEqual(answers[0], answers[1], 'each caller has an object of its own');
  });

  it('hold at most one write of a key, and none while another of that key is under way', async () => {
    const underWay: string[][] = [];
    const { store, sent } = await watchedStore({ touchAfter: 0 });
    const session = await (async () => {
      await store.set('key-0', plain());
      return load(store, 'key-0');
    })();
    assert(session);
    sent.length = 0;
    const calls: Promise<unknown>[] = [];
    for (let n = 0; n < 20; n++) {
      session.n = n;
      calls.push(store.set('key-0', session), store.set(`key-${n + 1}`, plain({ n })), store.touch('key-0', session));
    }
    await Promise.all(calls);
    for (const { kind, keys } of sent) if (kind === 'write') underWay.push(keys);
    assert.equal(underWay.filter((keys) => keys.includes('key-0')).length, 40, 'a statement for each write of the key');
    assert(
      underWay.filter((keys) => !keys.includes('key-0')).length <= 2 * (SHARDS ?? 1),
      'the other sessions do not wait for that key',
    );
    assert.equal(((await store.get('key-0')) as any).n, 19);
  });

  it('are none for touches that touchAfter allows to skip', async () => {
    const { store, sent } = await watchedStore();
    await Promise.all(sids(100).map((sid) => store.set(sid, plain({}, 3_600_000))));
    const sessions = await Promise.all(sids(100).map((sid) => load(store, sid)));
    sent.length = 0;
    await Promise.all(
      sessions.map((session, n) => {
        assert(session);
        session.touch();
        return store.touch(`key-${n}`, session);
      }),
    );
    assert.deepEqual(sent, []);
  });

  it('never share one with a session that moves to the key of a new secret', async () => {
    const table = freshTable();
    const before = await openStore({ table, secret: 'old' });
    await Promise.all(sids(20).map((sid) => before.set(sid, plain())));
    const { store, sent } = await watchedStore({ table, secret: ['new', 'old'], touchAfter: 0 });
    const sessions = await Promise.all(sids(20).map((sid) => loaded(store, sid)));
    await store.set('key-20', plain());
    const other = await loaded(store, 'key-20');
    sent.length = 0;
    const saves = sessions.map((session, n) => store.set(`key-${n}`, Object.assign(session, { n })));
    await Promise.all([...saves, store.set('key-20', Object.assign(other, { n: 20 }))]);
    assert.equal(sent.length, 21);
    assert(sent.every(({ keys }) => keys.length === 1));
    sent.length = 0;
    await Promise.all(sessions.map((session, n) => store.set(`key-${n}`, Object.assign(session, { again: n }))));
    assert(sent.length <= 2 * (SHARDS ?? 1), 'once moved, they are saved together');
  });

  it('try the halves of a batch apart where the server refuses one of its rows', async () => {
    const table = freshTable();
    const { store, sent } = await watchedStore({ table });
    const sql = await sqlClient();
    await sql.unsafe(`alter table ${table} add check (data ->> 'bad' is null)`);
    const count = 64;
    const answers = await Promise.allSettled(
      sids(count).map((sid, n) => store.set(sid, plain(n === 40 ? { bad: true } : {}))),
    );
    assert.deepEqual(
      answers.flatMap(({ status }, n) => (status === 'rejected' ? [n] : [])),
      [40],
    );
    assert.equal((answers[40] as PromiseRejectedResult).reason.code, '23514');
    assert.equal(await store.length(), count - 1);
    assert(sent.length <= 20 * (SHARDS ?? 1), `${sent.length} statements`);
  });
});
