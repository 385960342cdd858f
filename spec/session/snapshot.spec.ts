/** Each session object knows what its request saw, and only its own. */

import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import expressSession from 'express-session';
import type { StoredRow } from '../../lib/session/row.js';
import {
  attachSnapshot,
  newSnapshot,
  noteExpiry,
  recordSnapshot,
  type Snapshot,
  snapshotFor,
  transferSnapshot,
} from '../../lib/session/snapshot.js';

class Session {
  save() {}
}

const readFrom = async (): Promise<StoredRow | undefined> => undefined;

function snapshot(data: string): Snapshot {
  const content = { data, cookie: '{}' };
  return {
    sid: 'a',
    readFrom,
    key: 'p:a',
    version: 1,
    seen: content,
    stored: content,
    needsRekey: false,
    inDoubt: [],
    cookieExpires: null,
    expiresAt: 1000,
    endsAt: Number.POSITIVE_INFINITY,
  };
}

function adopted(data: object): Session {
  const session = Object.assign(new Session(), data);
  transferSnapshot(data, session);
  return session;
}

const of = (session: unknown, sid = 'a') => snapshotFor(session, sid, [`q:${sid}`, `p:${sid}`]);

describe('snapshot', () => {
  it('goes from the data of a `get` to the session created from it', () => {
    const data = { x: 1 };
    attachSnapshot(data, snapshot('{"x":1}'));
    assert.deepEqual(of(adopted(data)), snapshot('{"x":1}'));
  });

  it('cannot be seen in the data or the session, and no copy has it', () => {
    const data = { x: 1 };
    attachSnapshot(data, snapshot('{"x":1}'));
    const session = adopted(data);
    for (const holder of [data, session]) {
      assert.deepEqual(Object.keys(holder), ['x']);
      assert.equal(JSON.stringify({ ...holder }), '{"x":1}');
      assert.match(inspect(holder), /^(Session )?\{ x: 1 \}$/);
      for (const copy of [{ ...holder }, Object.assign({}, holder), structuredClone(holder)]) {
        assert.equal(of(copy), undefined);
      }
    }
    assert.equal(of(data), undefined, 'data that `get` answered with is nobody’s session');
  });

  it('is found through a Proxy, and set through one', () => {
    const data = { x: 1 };
    attachSnapshot(data, snapshot('{"x":1}'));
    const session = adopted(data);
    assert.equal(of(new Proxy(session, {})), of(session));
    const fresh = new Session();
    recordSnapshot(new Proxy(fresh, {}), snapshot('{}'));
    assert(of(fresh));
  });

  it('stays away from a session that the app has frozen', () => {
    const session = Object.freeze(new Session());
    recordSnapshot(session, snapshot('{}'));
    assert.equal(of(session), undefined);
  });

  it('is each session’s own, also where two are created from the same data', () => {
    const data = { x: 1 };
    attachSnapshot(data, snapshot('{"x":1}'));
    const [one, two] = [adopted(data), adopted(data)];
    Object.assign(of(one) as Snapshot, { version: 2 });
    assert.equal(of(two)?.version, 1);
  });

  it('has not seen what a `Session` does not adopt', () => {
    const data = { x: 1, id: 'mine', req: 'mine', save: 'mine', toString: 'mine' };
    attachSnapshot(data, snapshot(JSON.stringify(data)));
    const session = new (expressSession as any).Session({ sessionID: 'a' }, data);
    transferSnapshot(data, session);
    const known = of(session);
    assert.deepEqual(known?.seen, { data: '{"x":1}', cookie: '{}' });
    assert.deepEqual(known?.stored, { data: JSON.stringify(data), cookie: '{}' });
  });

  it('belongs to the session ID and a row key under which it was loaded', () => {
    const data = {};
    attachSnapshot(data, snapshot('{}'));
    const session = adopted(data);
    assert.equal(of(session, 'b'), undefined);
    assert.equal(snapshotFor(session, 'a', ['other:a']), undefined, 'nor to that in another prefix');
    assert(of(session));
  });

  it('comes with the first save of a new session, not of a plain object', () => {
    const session = new Session();
    assert.equal(of(session), undefined);
    for (const object of [session, {}, Object.create(null)]) recordSnapshot(object, snapshot('{}'));
    assert(of(session));
    assert.equal(of({}), undefined);
  });

  it('comes with its cookie, its times and where the row is', () => {
    const content = { data: '{}', cookie: null };
    const row = { key: 'p:a', version: 3, expiresInMs: 5000, endsInMs: 2000 };
    const early = performance.now();
    const made = newSnapshot('a', row, content, 1234, true, readFrom);
    const late = performance.now();
    const { expiresAt, endsAt, ...others } = made;
    assert.deepEqual(others, {
      sid: 'a',
      readFrom,
      key: 'p:a',
      version: 3,
      seen: content,
      stored: content,
      needsRekey: true,
      inDoubt: [],
      cookieExpires: 1234,
    });
    assert.equal(expiresAt, endsAt, '`maxLifetime` ends it first');
    assert(endsAt >= early + 2000 && endsAt <= late + 2000);
    noteExpiry(made, Date.now() + 1000);
    assert(made.expiresAt < endsAt);
    noteExpiry(made, Date.now() + 9000);
    assert.equal(made.expiresAt, endsAt);
  });

  it('is none for what no store loaded', () => {
    const stranger = adopted({ x: 1 });
    for (const value of [stranger, {}, null, undefined, 5, 'text']) assert.equal(of(value), undefined);
  });
});
