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

  /** A task on many keys: `rest` by its name, on one key with that after the name. */
  function bulk(name: string): Promise<string[]> {
    return order.bulk(
      (keys) => tasks.task(`${name}, not ${keys}`)(),
      (key, isLater) => tasks.task(`${name} ${key}${isLater ? ' later' : ''}`)(),
    );
  }

  it('runs a bulk task on a key between what was called on it before and after, and holds up no other', async () => {
    void order.write('k', tasks.task('before'));
    void order.write('k', tasks.task('queued'));
    const all = bulk('clear');
    void order.read('k', tasks.task('after'));
    void order.write('other', tasks.task('other'));
    assert.deepEqual(tasks.started, ['before', 'clear, not k', 'clear other later']);
    await tasks.end('clear other later');
    await tasks.end('before');
    await tasks.end('queued');
    assert.deepEqual(tasks.started.slice(3), ['other', 'queued', 'clear k']);
    await tasks.end('clear, not k');
    await tasks.end('clear k');
    assert.deepEqual(tasks.started.slice(6), ['after']);
    assert.deepEqual(await all, ['clear, not k', 'clear k', 'clear other later']);
    void order.write('new', tasks.task('new'));
    assert.deepEqual(tasks.started.slice(7), ['new'], 'it has ended');
  });

  it('runs a bulk task on a key once, before all of its later calls', async () => {
    void bulk('clear');
    for (const name of ['a', 'b']) void order.read('k', tasks.task(name));
    assert.deepEqual(tasks.started, ['clear, not ', 'clear k later']);
    await tasks.end('clear k later');
    assert.deepEqual(tasks.started.slice(2), ['a', 'b']);
    void order.read('k', tasks.task('c'));
    assert.deepEqual(tasks.started.slice(4), ['c']);
  });

  it('goes on after a bulk task that failed, on a key or on the rest', async () => {
    for (const failing of ['clear, not k', 'clear k']) {
      void order.write('k', tasks.task('before'));
      const failed = assert.rejects(bulk('clear'), /refused/);
      const next = order.write('k', tasks.task('after'));
      await tasks.end('before');
      for (const name of ['clear, not k', 'clear k']) {
        await tasks.end(name, name === failing ? new Error('refused') : undefined);
      }
      await failed;
      await tasks.end('after');
      assert.equal(await next, 'after');
    }
  });

  it('keeps the order of each key, whatever ends when', async () => {
    type Kind = 'read' | 'write' | 'bulk';
    const call = fc.record({
      kind: fc.constantFrom<Kind | 'end'>('read', 'write', 'bulk', 'end', 'end'),
      key: fc.constantFrom('k', 'l', 'm'),
      pick: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(call, { maxLength: 40 }), async (calls) => {
        const order = new KeyedReadWriteLock();
        const tasks = new Tasks();
        const made: { kind: Kind; key: string }[] = [];
        const answered: Promise<unknown>[] = [];
        /** The keys of which a bulk task is told at its call. */
        const told = new Map<number, string[]>();
        /** Tasks are named by the number of their call; a bulk task's on one key by that, too. */
        const keyOf = (name: string) => name.split(' ')[1] ?? made[Number(name)]?.key;
        const callOf = (name: string) => Number.parseInt(name, 10);
        const check = () => {
          const { running, started } = tasks;
          for (const name of running) {
            const isAlone = name.includes(' ') || made[callOf(name)]?.kind === 'write';
            if (isAlone) assert.equal(running.filter((other) => keyOf(other) === keyOf(name)).length, 1);
          }
          for (const [n, { kind }] of made.entries()) if (kind === 'bulk') assert(started.includes(`${n}`), 'at once');
        };
        for (const { kind, key, pick } of calls) {
          if (kind === 'end') {
            const { running } = tasks;
            if (running.length > 0) await tasks.end(running[pick % running.length] as string);
          } else {
            const n = made.length;
            if (kind === 'bulk') {
              made.push({ kind, key: '' });
              const rest = (keys: string[]) => {
                told.set(n, keys);
                return tasks.task(`${n}`)();
              };
              answered.push(order.bulk(rest, (one, isLater) => tasks.task(`${n} ${one} ${isLater}`)()));
            } else {
              made.push({ kind, key });
              // A call during a bulk task finds that done on its key.
              const bulks = tasks.running.filter((name) => made[callOf(name)]?.kind === 'bulk' && !name.includes(' '));
              answered.push(
                order[kind](key, () => {
                  for (const bulk of bulks) assert(tasks.started.some((name) => name.startsWith(`${bulk} ${key} `)));
                  return tasks.task(`${n}`)();
                }),
              );
            }
          }
          check();
        }
        for (await settle(); tasks.running.length > 0; check()) await tasks.end(tasks.running[0] as string);
        await Promise.all(answered);
        for (const key of ['k', 'l', 'm']) {
          const started = tasks.started.filter((name) => keyOf(name) === key).map(callOf);
          assert.deepEqual(
            started,
            [...started].sort((a, b) => a - b),
          );
          assert(made.every((one, n) => one.key !== key || started.includes(n)));
          for (const [n, keys] of told) assert.equal(keys.includes(key), tasks.started.includes(`${n} ${key} false`));
        }
      }),
      { numRuns: 300 },
    );
  });
});
