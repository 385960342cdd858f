/** One timer watches all deadlines, and none is missed: whatever order they come in, and while the event loop stands still. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { Worker } from 'node:worker_threads';
import { Deadlines } from '../../lib/calls/deadline.js';

/** Lets nothing else run for so many milliseconds. */
function block(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

describe('deadlines', () => {
  it('are late in the order of their times, whatever the order of the calls, and those that have ended never', async () => {
    const deadlines = new Deadlines();
    const late: number[] = [];
    const now = performance.now();
    const watched = [30, 10, 40, 20, 10].map((time) => deadlines.watch(now + time, () => late.push(time)));
    deadlines.watch(Number.POSITIVE_INFINITY, () => assert.fail('it is never late'));
    assert.equal(deadlines.end(watched[3] as (typeof watched)[0]), true);
    assert.equal(deadlines.end(watched[3] as (typeof watched)[0]), false);
    await new Promise<void>((resolve) => deadlines.watch(now + 50, resolve));
    assert.deepEqual(
      late.toSorted((a, b) => a - b),
      [10, 10, 30, 40],
    );
    assert.equal(deadlines.end(watched[0] as (typeof watched)[0]), false, 'it was late');
  });

  it('of 10,000 need one timer', async () => {
    const deadlines = new Deadlines();
    const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const before = timers();
    const watched = Array.from({ length: 10_000 }, (_, n) => deadlines.watch(performance.now() + 60_000 + n, () => {}));
    assert(timers() <= before + 1);
    for (const deadline of watched) assert(deadlines.end(deadline));
  });

  it('an answer goes before its deadline, and is followed by none', async () => {
    const deadlines = new Deadlines();
    const soon = () => performance.now() + 20;
    assert.equal(await deadlines.race(soon(), Promise.resolve(1)), 1);
    await assert.rejects(deadlines.race(soon(), Promise.reject(new Error('failed'))), /failed/);
    await assert.rejects(deadlines.race(soon(), new Promise(() => {})), { code: 'TIMEOUT' });
    await assert.rejects(
      deadlines.race(0, new Promise(() => {}), () => new Error('late')),
      /late/,
    );
  });

  it('an answer that is in the socket when the event loop has stood still is no late one', async () => {
    // Sends its answer after 50 ms, from a thread that goes on.
    const answering = new Worker(
      `const { parentPort } = require('node:worker_threads');
      const server = require('node:net').createServer((socket) => setTimeout(() => socket.end('answer'), 50));
      server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));`,
      { eval: true },
    );
    const [port] = await once(answering, 'message');
    const deadlines = new Deadlines();
    for (let round = 0; round < 5; round++) {
      const socket = net.connect(port, '127.0.0.1');
      await once(socket, 'connect');
      const answer = once(socket, 'data').then(String);
      const race = deadlines.race(performance.now() + 200, answer);
      await new Promise((resolve) => setImmediate(resolve));
      block(600);
      assert.equal(await race, 'answer');
      socket.destroy();
    }
    await answering.terminate();
  });
});
