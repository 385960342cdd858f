import assert from 'node:assert/strict';
import fc from 'fast-check';
import { KeyedReadWriteLock } from '../../lib/calls/keyed-read-write-lock.js';

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

  it('runs an exclusive task after all that was called before it, and before all that is called after it', async () => {
    void order.write('k', tasks.task('before'));
    void order.write('k', tasks.task('queued'));
    void order.exclusive(tasks.task('clear'));
    void order.write('k', tasks.task('after'));
    void order.write('other', tasks.task('other'));
    await tasks.end('before');
    assert.deepEqual(tasks.started, ['before', 'queued']);
    await tasks.end('queued');
    assert.deepEqual(tasks.started, ['before', 'queued', 'clear']);
    await tasks.end('clear');
    assert.deepEqual(tasks.started, ['before', 'queued', 'clear', 'after', 'other']);
  });

  it('goes on after an exclusive task that failed', async () => {
    const failed = assert.rejects(order.exclusive(tasks.task('clear')), /refused/);
    const next = order.write('k', tasks.task('after'));
    await tasks.end('clear', new Error('refused'));
    await failed;
    await tasks.end('after');
    assert.equal(await next, 'after');
  });

  it('runs exclusive tasks in call order with the calls between them', async () => {
    void order.exclusive(tasks.task('clear 1'));
    void order.write('k', tasks.task('a'));
    void order.exclusive(tasks.task('clear 2'));
    void order.write('k', tasks.task('b'));
    for (const name of ['clear 1', 'a', 'clear 2', 'b']) {
      await settle();
      assert.deepEqual(tasks.running, [name]);
      await tasks.end(name);
    }
  });

  it('keeps call order for a call made in the very moment in which an exclusive task ends', async () => {
    let end = () => {};
    const clearing = new Promise<void>((resolve) => {
      end = resolve;
    });
    void order.exclusive(() => clearing);
    void order.write('k', tasks.task('held'));
    void clearing.then(() => order.write('k', tasks.task('new')));
    end();
    await settle();
    await tasks.end('held');
    assert.deepEqual(tasks.started, ['held', 'new']);
  });

  it('keeps the order of each key, whatever ends when', async () => {
    const call = fc.record({
      kind: fc.constantFrom('read', 'write', 'exclusive', 'end', 'end') as fc.Arbitrary<
        'read' | 'write' | 'exclusive' | 'end'
      >,
      key: fc.constantFrom('k', 'l', 'm'),
      pick: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(call, { maxLength: 40 }), async (calls) => {
        const order = new KeyedReadWriteLock();
        const tasks = new Tasks();
        const made: { name: string; kind: string; key: string }[] = [];
        const answered: Promise<string>[] = [];
        const infoOf = (name: string) => made[Number(name)];
        const check = () => {
          const running = tasks.running.map(infoOf);
          if (running.some(({ kind }) => kind === 'exclusive')) assert.equal(running.length, 1);
          for (const { kind, key } of running) {
            if (kind === 'write') assert.equal(running.filter((other) => other.key === key).length, 1);
          }
        };
        for (const { kind, key, pick } of calls) {
          if (kind === 'end') {
            const { running } = tasks;
            if (running.length > 0) await tasks.end(running[pick % running.length]);
          } else {
            const name = String(made.length);
            made.push({ name, kind, key });
            const task = tasks.task(name);
            answered.push(kind === 'exclusive' ? order.exclusive(task) : order[kind](key, task));
          }
          check();
        }
        for (await settle(); tasks.running.length > 0; check()) await tasks.end(tasks.running[0]);
        assert.deepEqual(
          await Promise.all(answered),
          made.map(({ name }) => name),
        );
        for (const key of ['k', 'l', 'm']) {
          const concerns = (name: string) => infoOf(name).key === key || infoOf(name).kind === 'exclusive';
          const expected = made.map(({ name }) => name).filter(concerns);
          assert.deepEqual(tasks.started.filter(concerns), expected);
        }
      }),
      { numRuns: 300 },
    );
  });
});
