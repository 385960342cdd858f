/**
 * A process that saves, replaces, touches and destroys sessions which other processes use at the same time:
 * `same-sessions.ts URI TABLE SESSIONS MILLISECONDS`. It prints the numbers of its calls as JSON.
 */

import { PgStore } from '../../lib/index.js';
import { load, plain } from './sessions.js';

const [uri, table, sessions, milliseconds] = process.argv.slice(2);
const store = new PgStore({ uri, table, touchAfter: 0, autodelete: false, timeout: 30_000 });
const end = performance.now() + Number(milliseconds);
const calls = { save: 0, create: 0, replace: 0, touch: 0, destroy: 0 };

async function visitor(): Promise<void> {
  while (performance.now() < end) {
    const sid = `s${Math.floor(Math.random() * Number(sessions))}`;
    const dice = Math.random();
    if (dice < 0.2) {
      await store.destroy(sid);
      calls.destroy++;
      continue;
    }
    if (dice > 0.8) {
      await store.set(sid, plain({ by: process.pid }));
      calls.replace++;
      continue;
    }
    const session = await load(store, sid);
    if (!session) {
      await store.set(sid, plain({ by: process.pid }));
      calls.create++;
    } else if (dice < 0.5) {
      await store.touch(sid, session);
      calls.touch++;
    } else {
      session[`k${process.pid}`] = Math.random();
      await store.set(sid, session);
      calls.save++;
    }
  }
}

await Promise.all(Array.from({ length: 64 }, visitor));
await store.close();
console.log(JSON.stringify(calls));
