/** What a monitor gets to see, and that it costs nothing without a subscriber. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { register } from 'prom-client';
import type { PgStoreDiagnostics } from '../../lib/index.js';
import { eventually } from '../support/eventually.js';
import { closeStores, freshTable, openStore, postgresUri, SHARDS, sqlClient } from '../support/postgres.js';
import { PostgresServer } from '../support/postgres-server.js';
import { withRecipe } from '../support/recipes.js';
import { load, plain } from '../support/sessions.js';

type Channel = keyof PgStoreDiagnostics;

describe('diagnostics', () => {
  const ends: (() => void)[] = [];

  afterEach(async () => {
    for (const end of ends.splice(0)) end();
    await closeStores();
  });

  function listen<Name extends Channel>(name: Name): PgStoreDiagnostics[Name][] {
    const messages: PgStoreDiagnostics[Name][] = [];
    const listener = (message: unknown) => void messages.push(message as PgStoreDiagnostics[Name]);
    subscribe(name, listener);
    ends.push(() => unsubscribe(name, listener));
    return messages;
  }

  it('tells of each statement: kind, rows, wait and run time', async () => {
    const table = freshTable();
    const store = await openStore({ table });
    await store.ready();
    const messages = listen('express-pg-store:statement');
    await store.set('a', plain({ secret: 'of the session' }));
    await store.get('a');
    await store.destroy('a');
    await store.sessionsOf('ada');
    await store.autodelete();
    assert.deepEqual(
      messages.map(({ table, kind, rows }) => ({ table, kind, rows })),
      ['set', 'get', 'destroy', 'sessionsOf', ...Array(SHARDS ?? 1).fill('autodelete')].map((kind) => ({
        table: `public.${table}`,
        kind,
        rows: 1,
      })),
    );
    for (const { runMs, waitMs, code } of messages) {
      assert(runMs > 0 && waitMs >= 0, `${runMs} ${waitMs}`);
      assert.equal(code, undefined);
    }
    assert.doesNotMatch(JSON.stringify(messages), /of the session/);
  });

  it('counts the calls in a statement, and how long the first of them waited', async () => {
    const store = await openStore();
    await store.ready();
    const messages = listen('express-pg-store:statement');
    await Promise.all(Array.from({ length: 1000 }, (_, n) => store.get(`s${n}`)));
    assert.equal(
      messages.reduce((sum, { rows }) => sum + rows, 0),
      1000,
    );
    assert(messages.length < 100, String(messages.length));
    assert(Math.max(...messages.map(({ rows }) => rows)) > 10);
    assert(messages.some(({ waitMs }) => waitMs > 0));
  });

  it('tells why a statement failed', async () => {
    const store = await openStore({ createTable: false });
    const messages = listen('express-pg-store:statement');
    await assert.rejects(store.get('a'));
    assert.deepEqual(
      messages.map(({ kind, code }) => ({ kind, code })),
      [{ kind: 'get', code: '42P01' }],
    );
  });

  it('tells of conflicts and dropped saves, naming sessions by their handles', async () => {
    const store = await openStore();
    const conflicts = listen('express-pg-store:conflict');
    const dropped = listen('express-pg-store:dropped');
    await store.set('a', plain({ passport: { user: 'ada' } }));
    const [{ handle }] = await store.sessionsOf('ada');
    const [one, two] = [await load(store, 'a'), await load(store, 'a')];
    assert(one && two);
    one.x = 1;
    two.y = 2;
    await store.set('a', one);
    await store.set('a', two);
    await store.destroy('a');
    two.z = 3;
    await store.set('a', two);
    assert.equal(conflicts.length, 1);
    assert.equal(conflicts[0].handle, handle);
    assert(conflicts[0].tries >= 2);
    assert.deepEqual(
      dropped.map(({ handle, call }) => ({ handle, call })),
      [{ handle, call: 'set' }],
    );
  });

  it('tells of rows that cannot be read', async () => {
    const table = freshTable();
    const store = await openStore({ table, encryptionKey: 'k'.repeat(32) });
    const messages = listen('express-pg-store:unreadable');
    await store.set('a', plain());
    const sql = await sqlClient();
    await sql`update ${sql(table)} set data = '{}'`;
    assert.equal(await store.get('a'), null);
    assert.deepEqual(
      messages.map(({ why }) => why),
      ['the data is not encrypted'],
    );
  });

  it('tells of the timer’s deletions', async () => {
    const store = await openStore({ autodelete: 0.02 });
    const messages = listen('express-pg-store:autodelete');
    await store.set('a', plain({}, -1000));
    await eventually(() => messages.some(({ rows }) => rows === 1));
    assert.deepEqual(Object.keys(messages[0]), ['table', 'rows']);
  });

  it('tells of retries', async () => {
    const server = await PostgresServer.start({ settings: { fsync: 'off' } });
    try {
      const store = await openStore({ uri: server.uri });
      await store.set('a', plain());
      const retries = listen('express-pg-store:retry');
      await server.stop('immediate');
      const answer = store.get('a');
      await eventually(() => retries.length > 0);
      await server.start();
      assert.notEqual(await answer, null);
      assert.deepEqual(
        retries.map(({ kind, attempt }) => `${kind} ${attempt}`),
        retries.map((_, n) => `get ${n + 1}`),
      );
      assert.match(retries[0].error.message, /^PgStore\.get: /);
      await closeStores();
    } finally {
      await server.close();
    }
  });

  it('is not asked for anything while nobody listens', async () => {
    const store = await openStore();
    await store.ready();
    const { traceStatement } = await import('../../lib/client/trace.js');
    const running = store.get('a');
    const batch = { rows: 1, waited: () => assert.fail('nobody wants to know') };
    assert.equal(traceStatement(running, 'public.sessions', 'get', batch), running);
    await running;
  });

  it('a listener that throws fails no call', async () => {
    const store = await openStore();
    const thrown = new Promise((resolve) => {
      const mochas = process.listeners('uncaughtException');
      process.removeAllListeners('uncaughtException');
      process.once('uncaughtException', (error) => {
        for (const listener of mochas) process.on('uncaughtException', listener);
        resolve(error);
      });
    });
    let isFirst = true;
    const listener = () => {
      if (!isFirst) return;
      isFirst = false;
      throw new Error('of the listener');
    };
    subscribe('express-pg-store:statement', listener);
    ends.push(() => unsubscribe('express-pg-store:statement', listener));
    await store.set('a', plain({ n: 1 }));
    assert.equal(((await store.get('a')) as any).n, 1);
    assert.match(String(await thrown), /of the listener/);
  });

  describe('as the documentation shows it', () => {
    it('examples/metrics.ts has metrics for Prometheus', async () => {
      register.clear();
      await import('../../examples/metrics.js');
      const store = await openStore({ autodelete: 0.02 });
      await store.set('expired', plain({}, -1000));
      await store.set('a', plain());
      const [one, two] = [await load(store, 'a'), await load(store, 'a')];
      assert(one && two);
      one.x = 1;
      two.y = 2;
      await Promise.all([store.set('a', one), store.set('a', two)]);
      const broken = await openStore({ createTable: false });
      await assert.rejects(broken.get('a'));
      const value = async (line: string) => {
        const text = await register.metrics();
        return Number(
          text
            .split('\n')
            .find((candidate) => candidate.startsWith(`${line} `))
            ?.slice(line.length) ?? Number.NaN,
        );
      };
      await eventually(async () => (await value('session_autodeleted_total')) === 1);
      assert((await value('session_calls_total{kind="set"}')) >= 4);
      assert((await value('session_statement_seconds_count{kind="get"}')) >= 2);
      assert((await value('session_statement_seconds_sum{kind="set"}')) > 0);
      assert((await value('session_wait_seconds_count{kind="set"}')) >= 3);
      assert.equal(await value('session_conflicts_total'), 1);
      assert.equal(await value('session_failures_total{kind="get",code="42P01"}'), 1);
      register.clear();
    });

    it('has a graceful shutdown: what is under way is answered and stored, and the process exits', async () => {
      const table = freshTable();
      const app = `
import express from 'express';
import session from 'express-session';
import { PgStore } from 'express-pg-store';
const store = new PgStore({ uri: process.env.URI, table: '${table}' });
const app = express();
app.use(session({ store, secret: 'x', resave: false, saveUninitialized: false }));
app.get('/', (request, response) => {
  process.stdout.write('asked ');
  process.once('SIGTERM', () => setTimeout(() => {
    Object.assign(request.session, { n: 1 });
    response.end('answered');
  }, 100));
});
const server = app.listen(0, '127.0.0.1', () => process.stdout.write('http://127.0.0.1:' + server.address().port + ' '));
stopOnSignals(server, store);
`;
      await withRecipe(
        'docs/operations.md',
        'stopOnSignals',
        async (file) => {
          const env = { ...process.env, URI: await postgresUri() };
          const child = spawn(process.execPath, ['--import', 'tsx', file], {
            env,
            stdio: ['ignore', 'pipe', 'inherit'],
          });
          const code = new Promise((resolve) => child.once('close', resolve));
          let output = '';
          const said = (pattern: RegExp) =>
            new Promise<string>((resolve, reject) => {
              const look = () => {
                const [found] = pattern.exec(output) ?? [];
                if (found) resolve(found);
              };
              child.stdout.on('data', look);
              void code.then(() => reject(new Error(`it ended: ${output}`)));
              look();
            });
          child.stdout.setEncoding('utf8').on('data', (text) => {
            output += text;
          });
          try {
            const answer = fetch(await said(/http:\S+(?= )/));
            await said(/asked/);
            child.kill('SIGTERM');
            assert.equal(await (await answer).text(), 'answered');
            assert.equal(await code, 0);
          } finally {
            child.kill('SIGKILL');
          }
        },
        app,
      );
      const sql = await sqlClient();
      const rows = await sql`select data::text from ${sql(table)}`;
      assert.deepEqual([...rows], [{ data: '{"n":1}' }]);
    });
  });
});
