import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { once } from 'node:events';
import net from 'node:net';
import { Worker } from 'node:worker_threads';
import { Deadlines } from '../../lib/calls/deadline.js';

const inMs = (milliseconds: number) => performance.now() + milliseconds;
const never = () => new Promise<never>(() => {});

describe('Deadlines', () => {
  it('calls each one that is late, once, and none that was ended', async () => {
    const deadlines = new Deadlines();
    const late: string[] = [];
    const watch = (name: string, milliseconds: number) => deadlines.watch(inMs(milliseconds), () => late.push(name));
    const [first, ended, second] = [watch('first', 10), watch('ended', 5), watch('second', 30)];
    watch('never', Number.POSITIVE_INFINITY);
    assert.equal(deadlines.end(ended), true);
    assert.equal(deadlines.end(ended), false);
    await new Promise<void>((resolve) => deadlines.watch(inMs(40), resolve));
    assert.deepEqual(late, ['first', 'second']);
    assert.deepEqual([deadlines.end(first), deadlines.end(second)], [false, false]);
  });

  it('needs few timers for many calls that end in time', async () => {
    const deadlines = new Deadlines();
    let timers = 0;
    const hook = createHook({
      init: (_id, type) => {
        if (type === 'Timeout') timers++;
      },
    });
    hook.enable();
    try {
      for (let n = 0; n < 10_000; n++) await deadlines.race(inMs(60_000), Promise.resolve());
    } finally {
      hook.disable();
    }
    // Mocha may set some of its own.
    assert(timers <= 10, `${timers} timers`);
  });

  it('watches an earlier deadline that comes after a later one', async () => {
    const deadlines = new Deadlines();
    const late: string[] = [];
    deadlines.watch(inMs(600_000), () => late.push('much later'));
    await new Promise<void>((resolve) => deadlines.watch(inMs(5), resolve));
    assert.deepEqual(late, []);
  });

  it('passes an answer or an error on, and is late with `TIMEOUT` or what it was given', async () => {
    const deadlines = new Deadlines();
    assert.equal(await deadlines.race(inMs(60_000), Promise.resolve(5)), 5);
    await assert.rejects(deadlines.race(inMs(60_000), Promise.reject(new Error('refused'))), /refused/);
    await assert.rejects(deadlines.race(inMs(5), never()), { code: 'TIMEOUT' });
    await assert.rejects(
      deadlines.race(inMs(5), never(), () => new Error('too late')),
      /too late/,
    );
  });

  it('counts an answer that came in time while the event loop stood still', async () => {
    // Another thread answers while this one stands still, and says when it has.
    const state = new Int32Array(new SharedArrayBuffer(8));
    const server = new Worker(
      `const net = require('node:net');
       const { parentPort, workerData: state } = require('node:worker_threads');
       const server = net.createServer((socket) => socket.once('data', () => socket.write('answer', () => {
         Atomics.store(state, 0, 1);
         Atomics.notify(state, 0);
       })));
       server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));`,
      { eval: true, workerData: state },
    );
    try {
      const [port] = await once(server, 'message');
      const socket = net.connect(port, '127.0.0.1');
      await once(socket, 'connect');
      const answer = once(socket, 'data').then(String);
      socket.write('question');
      const deadline = inMs(20);
      const racing = new Deadlines().race(deadline, answer);
      assert.notEqual(Atomics.wait(state, 0, 0), 'timed-out');
      while (performance.now() < deadline);
      assert.equal(await racing, 'answer');
      socket.destroy();
    } finally {
      await server.terminate();
    }
  });
});
