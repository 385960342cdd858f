import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Batcher, type BatcherOptions, type BatchLimits } from '../../lib/calls/batcher.js';
import { timeoutError } from '../../lib/errors.js';

/** A batch that the fake executor has got, to be answered whenever a spec likes. */
interface Batch {
  readonly items: string[];
  succeed(): void;
  fail(error: Error): void;
}

/** Lies in the data of a single item. */
class DataError extends Error {}

/** Answers each item with its own name in capitals. */
function batcher(limits: Partial<BatchLimits> = {}, options: Partial<BatcherOptions<string, string>> = {}) {
  const batches: Batch[] = [];
  const all: BatcherOptions<string, string> = {
    execute: (items) =>
      new Promise((resolve, reject) => {
        batches.push({ items, succeed: () => resolve(items.map((item) => item.toUpperCase())), fail: reject });
      }),
    bytes: (item) => item.length,
    shouldIsolate: (error) => error instanceof DataError,
    ...options,
  };
  const usual = { maxInFlight: 1, minRows: 1, maxRows: 256, maxBytes: 1_000_000 };
  const batcher = new Batcher<string, string>(all, { ...usual, ...limits });
  const send = (item: string, deadline = Number.POSITIVE_INFINITY) => batcher.send(item, deadline);
  return { batcher, batches, send, sent: () => batches.map(({ items }) => items) };
}

/** After whatever is ready now has run, and what that asks the next check phase for. */
async function checkPhase(): Promise<void> {
  for (let n = 0; n < 2; n++) await new Promise((resolve) => setImmediate(resolve));
}

describe('Batcher', () => {
  it('sends in the next check phase while nothing is in flight', async () => {
    const { send, sent } = batcher();
    void send('a');
    await checkPhase();
    assert.deepEqual(sent(), [['a']]);
  });

  it('sends together what several callbacks of one phase of the event loop ask for', async () => {
    const { send, sent } = batcher();
    const asked = ['a', 'b', 'c'].map(
      (item) => new Promise<void>((done) => setTimeout(() => done(void send(item)), 1)),
    );
    // All three timers are due by the time that they are looked at.
    for (const start = performance.now(); performance.now() < start + 5; );
    await Promise.all(asked);
    await checkPhase();
    assert.deepEqual(sent(), [['a', 'b', 'c']]);
  });

  it('answers each item with its own result', async () => {
    const { send, batches } = batcher();
    const answers = Promise.all([send('a'), send('b'), send('c')]);
    await checkPhase();
    batches[0].succeed();
    assert.deepEqual(await answers, ['A', 'B', 'C']);
  });

  it('gathers while all slots are taken, and sends all that gathered as one', async () => {
    const { batcher: full, send, sent, batches } = batcher();
    void send('first');
    await checkPhase();
    for (const item of ['a', 'b', 'c']) {
      void send(item);
      await checkPhase();
    }
    assert.deepEqual(sent(), [['first']]);
    assert.equal(full.waiting, 3);
    batches[0].succeed();
    await checkPhase();
    assert.deepEqual(sent(), [['first'], ['a', 'b', 'c']]);
    assert.equal(full.waiting, 0);
  });

  it('shares what waits among the free slots, and never fills more than there are', async () => {
    const { send, sent } = batcher({ maxInFlight: 2 });
    for (const item of ['a', 'b', 'c', 'd', 'e']) void send(item);
    await checkPhase();
    assert.deepEqual(sent(), [
      ['a', 'b', 'c'],
      ['d', 'e'],
    ]);
    void send('f');
    await checkPhase();
    assert.equal(sent().length, 2);
  });

  it('sends nothing beside a statement in flight until enough waits', async () => {
    const { send, sent, batches } = batcher({ maxInFlight: 2, minRows: 3 });
    for (const item of ['a', 'b', 'c', 'd']) void send(item);
    await checkPhase();
    assert.deepEqual(sent(), [['a', 'b', 'c']]);
    void send('e');
    await checkPhase();
    assert.equal(sent().length, 1);
    void send('f');
    await checkPhase();
    assert.deepEqual(sent().slice(1), [['d', 'e', 'f']]);
    void send('g');
    for (const batch of batches) batch.succeed();
    await checkPhase();
    assert.deepEqual(sent().slice(2), [['g']]);
  });

  it('bounds a batch in rows', async () => {
    const { send, sent, batches } = batcher({ maxRows: 2 });
    for (const item of ['a', 'b', 'c', 'd', 'e']) void send(item);
    for (let n = 0; n < 3; n++) {
      await checkPhase();
      batches[n].succeed();
    }
    assert.deepEqual(sent(), [['a', 'b'], ['c', 'd'], ['e']]);
  });

  it('bounds a batch in bytes; a larger item goes alone', async () => {
    const { send, sent, batches } = batcher({ maxBytes: 5 });
    for (const item of ['aa', 'bbb', 'c', 'dddddddd', 'e']) void send(item);
    for (let n = 0; n < 4; n++) {
      await checkPhase();
      batches[n].succeed();
    }
    assert.deepEqual(sent(), [['aa', 'bbb'], ['c'], ['dddddddd'], ['e']]);
  });

  it('tries the halves of a batch apart if one of its items may be at fault, at every position', async () => {
    const items = Array.from({ length: 16 }, (_, n) => `item ${n}`);
    for (const bad of items) {
      const refused = new DataError('refused');
      const statements: string[][] = [];
      const { send } = batcher(
        {},
        {
          execute: async (batch) => {
            statements.push(batch);
            if (batch.includes(bad)) throw refused;
            return batch;
          },
        },
      );
      const answers = await Promise.allSettled(items.map((item) => send(item)));
      for (const [n, answer] of answers.entries()) {
        if (items[n] === bad) assert.deepEqual(answer, { status: 'rejected', reason: refused });
        else assert.deepEqual(answer, { status: 'fulfilled', value: items[n] });
      }
      const tried = statements.filter((statement) => statement.includes(bad));
      assert.deepEqual(
        tried.map(({ length }) => length),
        [16, 8, 4, 2, 1],
        'a refused item is tried once for each size',
      );
      assert.equal(statements.length, 9);
    }
  });

  it('tries halves before what came later', async () => {
    const { send, sent, batches } = batcher();
    const answers = Promise.all([send('a'), send('b')]);
    await checkPhase();
    const later = send('later');
    batches[0].fail(new DataError());
    for (let n = 1; n <= 3; n++) {
      await checkPhase();
      batches[n].succeed();
    }
    assert.deepEqual(sent(), [['a', 'b'], ['a'], ['b'], ['later']]);
    assert.deepEqual([...(await answers), await later], ['A', 'B', 'LATER']);
  });

  it('does not send the items of a half whose deadline has passed meanwhile', async () => {
    const { send, sent, batches } = batcher();
    const soon = performance.now() + 5;
    const late = assert.rejects(send('late', soon), { code: 'TIMEOUT' });
    const fine = send('fine');
    await checkPhase();
    while (performance.now() <= soon);
    batches[0].fail(new DataError());
    await late;
    await checkPhase();
    batches[1].succeed();
    assert.equal(await fine, 'FINE');
    assert.deepEqual(sent(), [['late', 'fine'], ['fine']]);
  });

  it('sends a lone item at once where the last batch was of one item', async () => {
    const { send, sent, batches } = batcher();
    void send('a');
    assert.deepEqual(sent(), [], 'the first one may be one of many');
    await checkPhase();
    batches[0].succeed();
    await checkPhase();
    void send('b');
    assert.deepEqual(sent(), [['a'], ['b']]);
    void send('c');
    void send('d');
    batches[1].succeed();
    await checkPhase();
    assert.deepEqual(sent().slice(2), [['c', 'd']]);
    batches[2].succeed();
    await checkPhase();
    void send('e');
    assert.equal(sent().length, 3, 'after a batch of two, others may come with it');
    await checkPhase();
    assert.deepEqual(sent().slice(3), [['e']]);
  });

  it('fails all items of a batch that failed for another reason, once, and goes on', async () => {
    const { send, sent, batches } = batcher();
    const lost = new Error('connection lost');
    const answers = Promise.allSettled([send('a'), send('b')]);
    await checkPhase();
    batches[0].fail(lost);
    assert.deepEqual(await answers, [
      { status: 'rejected', reason: lost },
      { status: 'rejected', reason: lost },
    ]);
    const next = send('c');
    await checkPhase();
    batches[1].succeed();
    assert.equal(await next, 'C');
    assert.deepEqual(sent(), [['a', 'b'], ['c']]);
  });

  it('takes an executor that throws as one that fails', async () => {
    const broken = new Error('broken');
    const { send } = batcher(
      {},
      {
        execute: () => {
          throw broken;
        },
      },
    );
    await assert.rejects(send('a'), broken);
    await assert.rejects(send('b'), broken);
  });

  it('fails an item whose deadline has passed, and does not send it', async () => {
    const { send, sent, batches } = batcher();
    void send('first');
    await checkPhase();
    const late = assert.rejects(send('late', performance.now() - 1), { code: 'TIMEOUT' });
    const fine = send('fine');
    batches[0].succeed();
    await late;
    await checkPhase();
    batches[1].succeed();
    assert.equal(await fine, 'FINE');
    assert.deepEqual(sent(), [['first'], ['fine']]);
  });

  it('gives the executor the earliest of its items’ deadlines', async () => {
    const deadlines: number[] = [];
    const { send } = batcher(
      {},
      {
        execute: async (items, deadline) => {
          deadlines.push(deadline);
          return items;
        },
      },
    );
    const soon = performance.now() + 1e6;
    await Promise.all([send('a', soon), send('b', soon + 5), send('c', soon + 2)]);
    assert.deepEqual(deadlines, [soon]);
  });

  it('sends those again that have time left when their batch is late', async () => {
    const batches: string[][] = [];
    const { send } = batcher(
      {},
      {
        execute: async (items: string[]) => {
          batches.push(items);
          if (batches.length === 1) throw timeoutError();
          return items;
        },
      },
    );
    const now = performance.now();
    const calls = [send('late', now + 10_000), send('hardly in time', now + 10_001), send('in time', now + 60_000)];
    const answers = await Promise.allSettled(calls);
    assert.deepEqual(batches, [['late', 'hardly in time', 'in time'], ['in time']]);
    assert.deepEqual(
      answers.map(({ status }) => status),
      ['rejected', 'rejected', 'fulfilled'],
    );
  });

  it('takes the newest first once the oldest has waited for half of its time', async () => {
    const { send, sent, batches } = batcher({ maxRows: 1 });
    void send('first');
    await checkPhase();
    const { now } = performance;
    for (const item of ['a', 'b', 'c']) void send(item, now.call(performance) + 60_000);
    performance.now = () => now.call(performance) + 35_000;
    try {
      batches[0].succeed();
      await checkPhase();
    } finally {
      performance.now = now;
    }
    assert.deepEqual(sent()[1], ['c']);
  });

  it('answers every item exactly once, whatever the executor does', async () => {
    const action = fc.oneof(
      { weight: 3, arbitrary: fc.record({ kind: fc.constant('send' as const), size: fc.integer({ min: 1, max: 9 }) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('succeed' as const), pick: fc.nat() }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('refuse' as const), pick: fc.nat() }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('break' as const), pick: fc.nat() }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('tick' as const) }) },
    );
    const limits = fc.record({
      maxInFlight: fc.integer({ min: 1, max: 3 }),
      minRows: fc.integer({ min: 1, max: 4 }),
      maxRows: fc.integer({ min: 1, max: 5 }),
      maxBytes: fc.integer({ min: 1, max: 20 }),
    });
    await fc.assert(
      fc.asyncProperty(limits, fc.array(action, { maxLength: 60 }), async (bounds, actions) => {
        const { batcher: tested, batches, send } = batcher(bounds);
        const open = () => batches.filter((batch) => !settled.has(batch));
        const settled = new Set<Batch>();
        const answers = new Map<string, string[]>();
        const outcome = new Map<Batch, 'ok' | 'refused' | 'broken'>();
        const settle = (pick: number, how: 'ok' | 'refused' | 'broken') => {
          const candidates = open();
          if (candidates.length === 0) return;
          const batch = candidates[pick % candidates.length];
          settled.add(batch);
          outcome.set(batch, how);
          if (how === 'ok') batch.succeed();
          else batch.fail(how === 'refused' ? new DataError('refused') : new Error('broken'));
        };
        const check = () => {
          assert(open().length <= bounds.maxInFlight);
          for (const { items } of open()) {
            const bytes = items.reduce((sum, item) => sum + item.length, 0);
            assert(items.length > 0 && items.length <= bounds.maxRows);
            assert(items.length === 1 || bytes <= bounds.maxBytes);
          }
        };
        let made = 0;
        for (const step of actions) {
          if (step.kind === 'send') {
            const item = `${made++}-${'x'.repeat(step.size)}`;
            answers.set(item, []);
            send(item).then(
              (result) => answers.get(item)?.push(result),
              (error: Error) => answers.get(item)?.push(error.message),
            );
          } else if (step.kind === 'tick') await checkPhase();
          else settle(step.pick, step.kind === 'succeed' ? 'ok' : step.kind === 'refuse' ? 'refused' : 'broken');
          check();
        }
        // Whatever stalled until now is answered in the end.
        for (await checkPhase(); open().length > 0; await checkPhase()) {
          check();
          settle(0, 'ok');
        }
        assert.equal(tested.waiting, 0);
        for (const [item, given] of answers) {
          const last = batches.findLast(({ items }) => items.includes(item)) as Batch;
          const how = outcome.get(last);
          assert.deepEqual(given, [how === 'ok' ? item.toUpperCase() : how]);
          if (how === 'refused') assert.deepEqual(last.items, [item], 'only an item alone can be at fault');
        }
      }),
      { numRuns: 300 },
    );
  });
});
