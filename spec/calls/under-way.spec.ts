import assert from 'node:assert/strict';
import { UnderWay } from '../../lib/calls/under-way.js';

describe('UnderWay', () => {
  it('knows the calls that have not ended, and what they are about', async () => {
    const calls = new UnderWay<string, number>();
    const ends = new Map<string, (result: number | Error) => void>();
    const add = (subject: string) => {
      const ended = new Promise<number>((resolve, reject) => {
        ends.set(subject, (result) => (typeof result === 'number' ? resolve(result) : reject(result)));
      });
      return calls.add(subject, ended);
    };
    const subjects = () => calls.now(() => true).map(({ subject }) => subject);
    const answers = ['ann 1', 'bob', 'ann 2', 'ann 3'].map(add);
    const failed = assert.rejects(answers[0] as Promise<number>, /refused/);
    const ofAnn = calls.now((subject) => subject.startsWith('ann'));
    assert.deepEqual(
      ofAnn.map(({ subject }) => subject),
      ['ann 1', 'ann 2', 'ann 3'],
    );
    ends.get('ann 1')?.(new Error('refused'));
    await failed;
    assert.deepEqual(subjects().sort(), ['ann 2', 'ann 3', 'bob']);
    ends.get('bob')?.(2);
    assert.equal(await answers[1], 2);
    assert.deepEqual(subjects().sort(), ['ann 2', 'ann 3']);
    void add('late');
    ends.get('ann 2')?.(3);
    ends.get('ann 3')?.(4);
    assert.deepEqual(await Promise.all(ofAnn.slice(1).map(({ ended }) => ended)), [3, 4], 'they can still be awaited');
    assert.deepEqual(subjects(), ['late'], 'what came later is not among them');
  });
});
