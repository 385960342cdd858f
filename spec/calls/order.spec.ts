import assert from 'node:assert/strict';
import fc from 'fast-check';
import { KeyedReadWriteLock } from '../../lib/calls/order.js';

/** Tasks that note when they start, and end when a spec says so. */
class Tasks {
  readonly started: string[] = [];
  readonly #ends = new Map<string, (error?: Error) => void>();

  task(name: string): () => Promise<string> {
    return () => {
      this.started.push(name);
      return new Promise((resolve, reject) => {
        this.#ends.set(name, (error) => (error ? reject(error) : resolve(name)));
      });
    };
  }

  get running(): string[] {
    return [...this.#ends.keys()];
  }

  async end(name: string, error?: Error): Promise<void> {
    const end = this.#ends.get(name);
    assert(end, `${name} is not running`);
    this.#ends.delete(name);
    end(error);
    await settle();
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

describe('KeyedReadWriteLock', () => {
  let order: KeyedReadWriteLock;
  let tasks: Tasks;

  beforeEach(() => {
    order = new KeyedReadWriteLock();
    tasks = new Tasks();
  });

  it('starts a task at once where its key is free', () => {
    void order.write('k', tasks.task('a'));
    assert.deepEqual(tasks.started, ['a']);
  });

  it('runs writes of one key one after the other, in call order', async () => {
    for (const name of ['a', 'b', 'c']) void order.write('k', tasks.task(name));
    assert.deepEqual(tasks.started, ['a']);
    await tasks.end('a');
    assert.deepEqual(tasks.started, ['a', 'b']);
    await tasks.end('b');
    assert.deepEqual(tasks.started, ['a', 'b', 'c']);
  });

  it('does not let one key wait for another', () => {
    void order.write('k', tasks.task('a'));
    void order.write('l', tasks.task('b'));
    void order.read('m', tasks.task('c'));
    assert.deepEqual(tasks.started, ['a', 'b', 'c']);
  });

  it('runs reads of one key side by side, and a write alone', async () => {
    void order.read('k', tasks.task('r1'));
    void order.read('k', tasks.task('r2'));
    void order.write('k', tasks.task('w'));
    void order.read('k', tasks.task('r3'));
    void order.read('k', tasks.task('r4'));
    assert.deepEqual(tasks.started, ['r1', 'r2']);
    await tasks.end('r2');
    assert.deepEqual(tasks.started, ['r1', 'r2']);
    await tasks.end('r1');
    assert.deepEqual(tasks.started, ['r1', 'r2', 'w']);
    await tasks.end('w');
    assert.deepEqual(tasks.started, ['r1', 'r2', 'w', 'r3', 'r4']);
  });

  it('passes results and errors on, and goes on after an error', async () => {
    const failing = order.write('k', tasks.task('a'));
    const next = order.write('k', tasks.task('b'));
    const failed = assert.rejects(failing, /refused/);
    await tasks.end('a', new Error('refused'));
    await failed;
    await tasks.end('b');
    assert.equal(await next, 'b');
  });

  it('is idle once the tasks that a key has now have ended, whatever comes after', async () => {
    let isIdle = false;
    await order.idle('nobody has this key');
    void order.read('k', tasks.task('a'));
    void order.write('k', tasks.task('b'));
    void order.idle('k').then(() => {
      isIdle = true;
    });
    void order.write('k', tasks.task('c'));
    await tasks.end('a');
    assert.equal(isIdle, false);
    await tasks.end('b');
    assert.equal(isIdle, true);
    assert.deepEqual(tasks.running, ['c']);
  });

  it('keeps the order of each key, whatever ends when', async () => {
    const call = fc.record({
      kind: fc.constantFrom<'read' | 'write' | 'end'>('read', 'write', 'end', 'end'),
      key: fc.constantFrom('k', 'l', 'm'),
      pick: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(call, { maxLength: 40 }), async (calls) => {
        const order = new KeyedReadWriteLock();
        const tasks = new Tasks();
        /** The calls that were made; tasks are named by their numbers. */
        const made: { kind: 'read' | 'write'; key: string }[] = [];
        const answered: Promise<unknown>[] = [];
        const keyOf = (name: string) => made[Number(name)]?.key;
        const check = () => {
          const { running } = tasks;
          for (const name of running) {
            if (made[Number(name)]?.kind !== 'write') continue;
            assert.equal(running.filter((other) => keyOf(other) === keyOf(name)).length, 1, 'a write runs alone');
          }
        };
        for (const { kind, key, pick } of calls) {
          if (kind === 'end') {
            const { running } = tasks;
            if (running.length > 0) await tasks.end(running[pick % running.length] as string);
          } else {
            made.push({ kind, key });
            answered.push(order[kind](key, tasks.task(`${made.length - 1}`)));
          }
          check();
        }
        for (await settle(); tasks.running.length > 0; check()) await tasks.end(tasks.running[0] as string);
        await Promise.all(answered);
        for (const key of ['k', 'l', 'm']) {
          const started = tasks.started.filter((name) => keyOf(name) === key).map(Number);
          const called = made.flatMap((one, n) => (one.key === key ? [n] : []));
          assert.deepEqual(started, called);
        }
      }),
      { numRuns: 300 },
    );
  });
});
