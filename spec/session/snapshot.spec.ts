/** Each session object knows what its request saw, and only its own. */

import assert from 'node:assert/strict';
import { inspect } from 'node:util';
import expressSession from 'express-session';
import { type Snapshot, Snapshots } from '../../lib/session/snapshot.js';

class Session {
  save() {}
}

function snapshot(stored: string): Snapshot {
  return {
    sid: 'a',
    key: 'a',
    version: 1,
    seen: stored,
    stored,
    needsRekey: false,
    inDoubt: [],
    cookie: '{}',
    expiresAt: 1000,
    endsAt: Number.POSITIVE_INFINITY,
  };
}

function adopted(snapshots: Snapshots, data: object): Session {
  const session = Object.assign(new Session(), data);
  snapshots.transfer(data, session);
  return session;
}

describe('snapshot', () => {
  it('goes from the data of a `get` to the session created from it', () => {
    const snapshots = new Snapshots();
    const data = { x: 1 };
    snapshots.attach(data, snapshot('{"x":1}'));
    assert.deepEqual(snapshots.of(adopted(snapshots, data), 'a'), snapshot('{"x":1}'));
  });

  it('cannot be seen in the data', () => {
    const data = { x: 1 };
    new Snapshots().attach(data, snapshot('{"x":1}'));
    assert.deepEqual(Object.keys(data), ['x']);
    assert.equal(JSON.stringify({ ...data }), '{"x":1}');
    assert.equal(inspect(data), '{ x: 1 }');
  });

  it('is each session’s own, also where two are created from the same data', () => {
    const snapshots = new Snapshots();
    const data = { x: 1 };
    snapshots.attach(data, snapshot('{"x":1}'));
    const [one, two] = [adopted(snapshots, data), adopted(snapshots, data)];
    Object.assign(snapshots.of(one, 'a') as Snapshot, { version: 2 });
    assert.equal(snapshots.of(two, 'a')?.version, 1);
  });

  it('has not seen what a `Session` does not take over', () => {
    const snapshots = new Snapshots();
    const data = { x: 1, id: 'mine', req: 'mine', save: 'mine', toString: 'mine' };
    snapshots.attach(data, snapshot(JSON.stringify(data)));
    const session = new (expressSession as any).Session({ sessionID: 'a' }, data);
    snapshots.transfer(data, session);
    const known = snapshots.of(session, 'a');
    assert.equal(known?.seen, '{"x":1}');
    assert.equal(known?.stored, JSON.stringify(data));
  });

  it('belongs to the session ID under which it was loaded', () => {
    const snapshots = new Snapshots();
    const data = {};
    snapshots.attach(data, snapshot('{}'));
    const session = adopted(snapshots, data);
    assert.equal(snapshots.of(session, 'b'), undefined);
    assert(snapshots.of(session, 'a'));
  });

  it('comes with the first save of a new session, not of a plain object', () => {
    const snapshots = new Snapshots();
    const session = new Session();
    assert.equal(snapshots.of(session, 'a'), undefined);
    for (const object of [session, {}, Object.create(null)]) snapshots.record(object, snapshot('{}'));
    assert(snapshots.of(session, 'a'));
    assert.equal(snapshots.of({}, 'a'), undefined);
  });

  it('is none for what no store loaded', () => {
    const snapshots = new Snapshots();
    const stranger = adopted(snapshots, { x: 1 });
    for (const value of [stranger, {}, null, undefined, 5, 'text']) assert.equal(snapshots.of(value, 'a'), undefined);
  });
});
