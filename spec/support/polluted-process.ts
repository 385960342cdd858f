/**
 * A process that runs the main calls while `Object.prototype` is polluted: `polluted-process.ts URI TABLE NAMES`. It
 * prints as JSON the answers without pollution, and those that were different with it.
 */

import { PgStore } from '../../lib/index.js';
import { loaded, plain } from './sessions.js';

const VALUES: Record<string, unknown> = {
  text: 'polluted',
  function: () => 'polluted',
  object: { polluted: 1 },
  number: 7,
  true: true,
};

/** The answers of the main calls. Of rows they contain `n` and the user, but no times, which differ from run to run. */
async function answers(uri: string, table: string): Promise<unknown[]> {
  const told: unknown[] = [];
  const store = new PgStore({ uri, table, autodelete: false });
  for (const event of ['retry', 'unreadable', 'dropped', 'takenOver'] as const) {
    store.on(event, (...args: unknown[]) => void told.push([event, ...args]));
  }
  const dataOf = async (sid: string) => ((await store.get(sid)) as any)?.n;
  try {
    await Promise.all(['a', 'b', 'c'].map((sid, n) => store.set(sid, plain({ n: { [sid]: n } }))));
    await store.set('mine', plain({ n: 'mine', passport: { user: 'ann' } }));
    await store.set('bare', { n: 'bare' } as any);
    told.push(await Promise.all(['a', 'b', 'c', 'none', 'bare'].map(dataOf)));
    const [one, other] = [await loaded(store, 'a'), await loaded(store, 'a')];
    if (Object.hasOwn(one, 'n')) {
      one.n.one = 1;
      other.n.other = 2;
      await Promise.all([store.set('a', one), store.set('a', other), store.touch('b', plain({}, 120_000))]);
    } else {
      // express-session's `Session` adopts no key that every object has.
      await Promise.all([store.set('a', plain({ n: { a: 0, one: 1, other: 2 } })), store.touch('b', plain())]);
    }
    told.push(await dataOf('a'), await dataOf('b'));
    told.push((await store.ids()).sort(), await store.length(), (await store.all()).length);
    await store.update('b', (session) => Object.assign(session, { updated: 1 }));
    told.push(await store.updateSessionsOf('polluted', () => undefined));
    const ended = new Promise((resolve) => store.watch('c', resolve));
    await store.destroy('c');
    told.push(await ended);
    const listed = await store.sessionsOf('ann');
    told.push(listed.length, (await store.sessionsOf('polluted')).length);
    told.push(await store.destroyByHandle(listed[0]?.handle as string, { user: 'ann' }));
    told.push(await store.destroyByHandle('none', {} as any).catch((error) => error.code));
    told.push(await store.destroySessionsOf('polluted'), await store.limitSessionsOf('ann', 1));
    await store.destroy('b');
    told.push(await store.autodelete(), await dataOf('b'));
    const rest: unknown[] = [];
    for await (const session of store.sessions()) rest.push(session.id);
    told.push(rest.sort());
    await store.clear();
    told.push(await store.length());
  } finally {
    await store.close();
  }
  return told;
}

/** The answers while all these names are in `Object.prototype`; or, if a call fails, the stack of its error. */
async function pollutedAnswers(names: string[], value: unknown): Promise<unknown> {
  for (const name of names) {
    Object.defineProperty(Object.prototype, name, { value, writable: true, enumerable: true, configurable: true });
  }
  try {
    return await answers(uri, table);
  } catch (error) {
    return (error as Error).stack;
  } finally {
    for (const name of names) delete (Object.prototype as any)[name];
  }
}

const [, , uri = '', table = '', list = ''] = process.argv;
const names = list.split(',');
const expected = JSON.stringify(await answers(uri, table));
const wrong: Record<string, unknown> = {};
for (const [kind, value] of Object.entries(VALUES)) {
  const found = await pollutedAnswers(names, value);
  if (JSON.stringify(found) === expected) continue;
  wrong[`all names, ${kind}`] = found;
  for (const name of names) {
    const alone = await pollutedAnswers([name], value);
    if (JSON.stringify(alone) !== expected) wrong[`${name}, ${kind}`] = alone;
  }
}
process.stdout.write(JSON.stringify({ expected: JSON.parse(expected), wrong }));
