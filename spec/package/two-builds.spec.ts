/** An app may load the ES module and the CommonJS build side by side, and each is complete. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { type BuiltPackage, buildPackage } from '../support/built-package.js';
import { run } from '../support/child.js';
import { freshTable, postgresUri } from '../support/postgres.js';

const LOAD_BOTH = `import { createRequire } from 'node:module';
import * as esm from 'express-pg-store';
const cjs = createRequire(import.meta.url)('express-pg-store');
const uri = process.env.URI, table = process.env.TABLE;`;

describe('the two builds', () => {
  let built: BuiltPackage;

  before(() => {
    built = buildPackage();
  });
  after(() => built?.remove());

  /** Runs a program that has loaded both builds, as `esm` and `cjs`, and returns what it prints as JSON. */
  async function withBoth(code: string): Promise<any> {
    fs.writeFileSync(path.join(built.folder, 'both.mjs'), `${LOAD_BOTH}\n${code}`);
    const env = { URI: await postgresUri(), TABLE: freshTable() };
    const { code: status, stdout, stderr } = await run(process.execPath, ['both.mjs'], { cwd: built.folder, env });
    assert.equal(status, 0, stderr);
    return JSON.parse(stdout);
  }

  it('are two, with the same names', async () => {
    const [areTwo, names, others] = await withBoth(
      'console.log(JSON.stringify([esm.PgStore !== cjs.PgStore, Object.keys(esm).sort(), Object.keys(cjs).sort()]));',
    );
    assert(areTwo);
    assert.deepEqual(names, others);
    assert.deepEqual(names, ['PgStore', 'PgStoreError', 'default']);
  });

  it('know each other’s errors by `instanceof`, and no other errors', async () => {
    const answers = await withBoth(`
      class AppError extends esm.PgStoreError {}
      const errors = await Promise.all([esm, cjs].map(async ({ PgStore }) => {
        const store = new PgStore({ uri, table, autodelete: false });
        await store.close();
        return store.get('a').catch((error) => error);
      }));
      const classes = [esm.PgStoreError, cjs.PgStoreError, Error, AppError];
      const values = [...errors, new AppError('of the app', 'CODE'), new Error('another'), undefined, 'text', {}];
      console.log(JSON.stringify(values.map((value) => classes.map((one) => value instanceof one))));`);
    const ofAStore = [true, true, true, false];
    const ofTheApp = [true, true, true, true];
    const another = [false, false, true, false];
    const noError = [false, false, false, false];
    assert.deepEqual(answers, [ofAStore, ofAStore, ofTheApp, another, noError, noError, noError]);
  });

  it('know each other’s snapshots: nothing is lost or revived where one loads what the other saves', async () => {
    const answers = await withBoth(`
      const { default: session } = await import('express-session');
      const [one, other] = [esm, cjs].map(({ PgStore }) => new PgStore({ uri, table, autodelete: false }));
      const load = (store, sid) => new Promise((resolve, reject) => {
        store.load(sid, (error, loaded) => (error ? reject(error) : resolve(loaded)));
      });
      const answers = [];
      for (const [loading, saving] of [[one, other], [other, one]]) {
        await loading.set('a', { cookie: new session.Cookie(), n: 1 });
        const [first, second, slow] = await Promise.all([load(loading, 'a'), load(loading, 'a'), load(loading, 'a')]);
        await saving.set('a', Object.assign(first, { first: 1 }));
        await saving.set('a', Object.assign(second, { second: 1 }));
        answers.push({ ...(await loading.get('a')), cookie: 0 });
        await loading.destroy('a');
        await saving.set('a', Object.assign(slow, { late: 1 }));
        answers.push(await loading.get('a'));
      }
      await Promise.all([one.close(), other.close()]);
      console.log(JSON.stringify(answers));`);
    const merged = { n: 1, first: 1, second: 1, cookie: 0 };
    assert.deepEqual(answers, [merged, null, merged, null]);
  });

  it('publish on the same diagnostics channels', async () => {
    const kinds = await withBoth(`
      const { subscribe } = await import('node:diagnostics_channel');
      const kinds = [];
      subscribe('express-pg-store:statement', ({ kind, table }) => kinds.push([kind, table]));
      for (const { PgStore } of [esm, cjs]) {
        const store = new PgStore({ uri, table, autodelete: false });
        await store.destroy('a');
        await store.close();
      }
      console.log(JSON.stringify(kinds.filter(([kind, name]) => kind === 'destroy' && name === 'public.' + table)));`);
    assert.equal(kinds.length, 2);
  });

  for (const build of ['esm', 'cjs']) {
    it(`go on while @sinonjs/fake-timers fakes all timers (${build})`, async () => {
      const codes = await withBoth(`
        const { default: FakeTimers } = await import('@sinonjs/fake-timers');
        const end = process.exit;
        // A test runner keeps its process up.
        setInterval(() => {}, 1000);
        FakeTimers.install();
        const elsewhere = 'postgres://nobody@127.0.0.1:1/none';
        const store = new ${build}.PgStore({ uri: elsewhere, table, autodelete: false, timeout: 300 });
        const byPromise = await store.get('a').catch((error) => error);
        const byCallback = await new Promise((resolve) => store.get('a', resolve));
        console.log(JSON.stringify([byPromise.code, byCallback.code]));
        end(0);`);
      for (const code of codes) assert.match(code, /^(ECONNREFUSED|TIMEOUT)$/);
    });
  }
});
