/** Specs of clocks: only the database's clock decides when a session has expired, not the app's. */

import assert from 'node:assert/strict';
import express from 'express';
import session from 'express-session';
import request from 'supertest';
import { generated, loaded, plain } from './sessions.js';
import type { World, WorldTable } from './worlds.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Differences between the app's clock and the database's, in milliseconds. */
const OFFSETS = { 'an hour slow': -HOUR, 'an hour fast': HOUR, 'a day slow': -DAY, 'a day fast': DAY };

const { now } = Date;

/** @param world where the specs run */
export function describeClocks(world: World): void {
  /** Asserts that the only session in the table has nearly all of its lifetime left, by the database's clock. */
  async function assertLeft(table: WorldTable, lifetime: number): Promise<void> {
    const [row] = await table.rows();
    const left = Number(row?.expiresInMs);
    assert(left <= lifetime && left > lifetime - MINUTE, `${left} ms are left of ${lifetime}`);
  }

  describe(`clocks, ${world.name}`, () => {
    afterEach(async () => {
      Date.now = now;
      await world.closeStores();
    });

    for (const [how, offset] of Object.entries(OFFSETS)) {
      it(`the app's clock is ${how}: each call gives the session its lifetime`, async () => {
        const table = await world.createTable();
        Date.now = () => now() + offset;
        // The first statement of each of these processes is a write.
        const { store } = await table.open({ touchAfter: 0 });
        await store.set('sid', plain({ n: 1 }, 2 * HOUR));
        await assertLeft(table, 2 * HOUR);
        const { store: other } = await table.open({ touchAfter: 0 });
        await other.touch('sid', plain({}, 3 * HOUR));
        await assertLeft(table, 3 * HOUR);
        const one = await loaded(store, 'sid');
        one.cookie.maxAge = 4 * HOUR;
        await store.touch('sid', one);
        await assertLeft(table, 4 * HOUR);
        one.cookie.maxAge = 5 * HOUR;
        one.n = 2;
        await store.set('sid', one);
        await assertLeft(table, 5 * HOUR);
        one.touch();
        await store.set('sid', one);
        await assertLeft(table, 5 * HOUR);
      });

      it(`the app's clock is ${how}: it reads an expiry as it was set, and a process whose clock is right what is left`, async () => {
        const table = await world.createTable();
        const { store } = await table.open();
        Date.now = () => now() + offset;
        const made = generated(store, 'sid', {}, 2 * HOUR);
        await store.set('sid', made);
        const set = made.cookie.expires?.getTime();
        assert.equal(Date.parse(String((await store.get('sid'))?.cookie.expires)), set);
        Date.now = now;
        const left = Date.parse(String((await store.get('sid'))?.cookie.expires)) - now();
        assert(left <= 2 * HOUR && left > 2 * HOUR - MINUTE, `${left}`);
      });

      it(`the app's clock is set while a request has the session, and is ${how} then`, async () => {
        const table = await world.createTable();
        const { store } = await table.open({ touchAfter: 0 });
        const app = express();
        app.use(session({ store, secret: 's', resave: false, saveUninitialized: false, cookie: { maxAge: 2 * HOUR } }));
        app.get('/sign-in', (req, res) => {
          Object.assign(req.session, { user: 'ann' });
          res.end();
        });
        app.get('/:what', (req, res) => {
          const own = req.session as any;
          const { user } = own;
          if (req.params.what !== 'look') Date.now = () => now() + offset;
          if (req.params.what === 'save') own.views = 1;
          res.json({ user, views: own.views });
        });
        const signedIn = await request(app).get('/sign-in');
        const cookie = String(signedIn.headers['set-cookie']).split(';')[0] as string;
        // The browser has a clock of its own.
        const visit = async (what: string) => (await request(app).get(`/${what}`).set('cookie', cookie)).body;
        for (const what of ['touch', 'save']) {
          Date.now = now;
          assert.equal((await visit(what)).user, 'ann');
          await assertLeft(table, 2 * HOUR);
          assert.equal((await visit('look')).user, 'ann', 'with the new time');
          await assertLeft(table, 2 * HOUR);
        }
        Date.now = now;
        const { user, views } = (await store.get(await onlySession(table))) as any;
        assert.deepEqual([user, views], ['ann', 1]);
      });
    }
  });
}

async function onlySession(table: WorldTable): Promise<string> {
  const [row, ...others] = await table.rows();
  assert(row && others.length === 0);
  return row.key;
}
