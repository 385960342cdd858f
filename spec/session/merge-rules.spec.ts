/** Option `merge` as rules by path. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { PgStore } from '../../lib/index.js';
import { merge } from '../../lib/session/merge.js';
import { type MergeRules, parseRules } from '../../lib/session/merge-rules.js';

/** What a row holds after a merge by rules. */
function merged(rules: object, base: object, ours: object, theirs: object): any {
  return merge(base, ours, theirs, parseRules(rules));
}

describe('rules of option `merge`', () => {
  it('sum adds both differences, at any depth; a number that was not there counts as 0', () => {
    const rules = { visits: 'sum', 'stats.deep.clicks': 'sum' };
    const of = (visits: number, clicks: number) => ({ visits, stats: { deep: { clicks } } });
    assert.deepEqual(merged(rules, of(5, 1), of(6, 0), of(7, 10)), of(8, 9));
    assert.deepEqual(merged(rules, {}, of(1, 1), of(1, 2)), of(2, 3));
  });

  it('sum keeps every increment, in whichever order requests save', () => {
    const increments = fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(fc.integer({ min: -1000, max: 1000 }), increments, (start, all) => {
        // Each request has loaded the session before any other has saved it.
        let stored: any = { n: start };
        for (const one of all) stored = merged({ n: 'sum' }, { n: start }, { n: start + one }, stored);
        assert.equal(
          stored.n,
          all.reduce((sum, one) => sum + one, start),
        );
      }),
    );
  });

  it('max and min take the larger and the smaller number, where both sides changed it', () => {
    const rules = { seen: 'max', first: 'min' };
    assert.deepEqual(merged(rules, { seen: 1, first: 9 }, { seen: 5, first: 4 }, { seen: 7, first: 6 }), {
      seen: 7,
      first: 4,
    });
    assert.deepEqual(merged(rules, { seen: 9 }, { seen: 9, other: 1 }, { seen: 0 }), { seen: 0, other: 1 });
  });

  it('append keeps what each side added, in order of saving', () => {
    const rules = { flash: 'append' };
    assert.deepEqual(merged(rules, { flash: [1] }, { flash: [1, 3] }, { flash: [1, 2] }), { flash: [1, 2, 3] });
    assert.deepEqual(merged(rules, {}, { flash: ['ours'] }, { flash: ['theirs'] }), { flash: ['theirs', 'ours'] });
    assert.deepEqual(merged(rules, { flash: [{ a: 1 }] }, { flash: [{ a: 1 }, { b: 2 }] }, { flash: [{ a: 1 }, 3] }), {
      flash: [{ a: 1 }, 3, { b: 2 }],
    });
  });

  it('append shows nothing twice: what one side has taken from the start is gone', () => {
    const rules = { flash: 'append' };
    assert.deepEqual(merged(rules, { flash: ['a'] }, {}, { flash: ['a', 'b'] }), { flash: ['b'] });
    assert.deepEqual(merged(rules, { flash: ['a'] }, { flash: ['c'] }, { flash: ['a', 'b'] }), { flash: ['b', 'c'] });
    assert.deepEqual(merged(rules, { flash: [1, 2, 3] }, { flash: [2, 3, 4] }, { flash: [3, 5, 6] }), {
      flash: [3, 5, 6, 4],
    });
  });

  it('append loses nothing that was added, whatever was taken from the start', () => {
    const side = fc.record({ taken: fc.nat(5), added: fc.array(fc.uuid(), { maxLength: 4 }) });
    fc.assert(
      fc.property(fc.uniqueArray(fc.uuid(), { maxLength: 5 }), side, side, (base, us, them) => {
        const ours = [...base.slice(us.taken), ...us.added];
        const theirs = [...base.slice(them.taken), ...them.added];
        const kept = base.slice(Math.max(us.taken, them.taken));
        const { list } = merged({ list: 'append' }, { list: base }, { list: ours }, { list: theirs });
        assert.deepEqual(list, [...kept, ...them.added, ...us.added]);
      }),
    );
  });

  it('append finds the longest rest of an array of equal elements, in a time that grows with its length', function () {
    // Each of the arrays compared with each beginning of the other takes minutes.
    this.timeout(60_000);
    const side = fc.record({ taken: fc.nat(6), added: fc.array(fc.constantFrom('a', 'b'), { maxLength: 6 }) });
    const base = fc.array(fc.constantFrom('a', 'b'), { maxLength: 6 });
    const kept = (before: string[], after: string[]) => {
      const rests = before.map((_, n) => before.slice(n)).concat([[]]);
      const rest = rests.find((one) => one.every((element, n) => element === after[n])) ?? [];
      const taken = new Set(before.slice(0, before.length - rest.length));
      return after.slice(rest.length).some((element) => taken.has(element)) ? undefined : rest.length;
    };
    fc.assert(
      fc.property(base, side, (before, { taken, added }) => {
        const ours = [...before.slice(taken), ...added];
        const theirs = [...before, 'theirs'];
        const length = kept(before, ours);
        const expected =
          length === undefined ? ours : [...before.slice(before.length - length), 'theirs', ...ours.slice(length)];
        const changed = JSON.stringify(ours) !== JSON.stringify(before);
        assert.deepEqual(
          merged({ l: 'append' }, { l: before }, { l: ours }, { l: theirs }).l,
          changed ? expected : theirs,
        );
      }),
      { numRuns: 2000 },
    );
    const many = Array<string>(500_000).fill('a');
    const [before, ours, theirs] = [
      [...many, 'b'],
      [...many, 'c'],
      [...many, 'b', 'd'],
    ];
    assert.deepEqual(merged({ l: 'append' }, { l: before }, { l: ours }, { l: theirs }).l.at(-1), 'c');
  });

  it('append is the default rule for arrays that were changed otherwise', () => {
    const change = (ours: unknown[]) => merged({ l: 'append' }, { l: [1, 2] }, { l: ours }, { l: [1, 2, 3] });
    assert.deepEqual(change([1]), { l: [1] });
    assert.deepEqual(change([2, 1]), { l: [2, 1] });
    assert.deepEqual(change([0, 1, 2]), { l: [0, 1, 2] });
  });

  it('ours and theirs take the later and the earlier save as a whole, removals included', () => {
    const [base, ours, theirs] = [{ o: { a: 1 } }, { o: { a: 1, b: 2 } }, { o: { a: 1, c: 3 } }];
    assert.deepEqual(merged({ o: 'ours' }, base, ours, theirs), ours);
    assert.deepEqual(merged({ o: 'theirs' }, base, ours, theirs), theirs);
    assert.deepEqual(merged({ o: 'ours' }, base, {}, theirs), {});
    assert.deepEqual(merged({ o: 'theirs' }, base, ours, {}), {});
    assert.deepEqual(merged({ o: 'theirs' }, base, ours, base), ours);
    assert.deepEqual(merged({ o: 'ours' }, base, base, theirs), theirs);
  });

  it('leaves values of another type, and all others, to the default rule', () => {
    const all = { a: 'sum', b: 'max', c: 'append', d: 'min' };
    const [base, ours, theirs] = [
      { a: 'x', b: '1', c: 1, d: {} },
      { a: 'y', b: '2', c: 2, d: { us: 1 }, other: { us: 1 } },
      { a: 'z', b: '3', c: [3], d: { them: 1 }, other: { them: 1 } },
    ];
    assert.deepEqual(merged(all, base, ours, theirs), merge(base, ours, theirs));
    assert.deepEqual(merged({ n: 'sum' }, { n: 1 }, {}, { n: 2 }), { n: 2 });
    assert.deepEqual(merged({ n: 'sum' }, { n: 0 }, { n: 1.7e308 }, { n: 1.7e308 }), { n: 1.7e308 });
  });

  it('names keys with dots, and empty ones, by a JSON array', () => {
    const rules = { '["a.b","c"]': 'sum', '[""]': 'sum' };
    assert.deepEqual(merged(rules, {}, { 'a.b': { c: 1 }, '': 1 }, { 'a.b': { c: 1 }, '': 2 }), {
      'a.b': { c: 2 },
      '': 3,
    });
    const proto = JSON.parse('{ "__proto__": { "n": 1 } }');
    assert.equal(JSON.stringify(merged({ '__proto__.n': 'sum' }, {}, proto, proto)), '{"__proto__":{"n":2}}');
  });

  it('are checked when the store is created', () => {
    const refused = (merge: unknown, message: RegExp) => {
      assert.throws(() => new PgStore({ merge: merge as MergeRules }), { name: 'TypeError', message });
    };
    refused({ visits: 'add' }, /option `merge`: `visits`: expected one of sum, max, .*, got a string of 3 characters/);
    refused({ visits: 'toString' }, /expected one of sum/);
    refused({ visits: () => 1 }, /got function/);
    refused({ visits: undefined }, /got undefined/);
    refused({ visits: ['sum'] }, /got object/);
    for (const path of ['', 'a.', '.a', 'a..b']) refused({ [path]: 'sum' }, /expected keys joined by dots, none empty/);
    for (const path of ['[]', '[1]', '[a]', '[', '["a"']) refused({ [path]: 'sum' }, /expected a JSON array of keys/);
    refused({ a: 'sum', '["a"]': 'max' }, /has two rules/);
    refused({ 'cookie.maxAge': 'max' }, /cookies are merged attribute by attribute/);
    for (const merge of [null, [], 'sum', 1]) refused(merge, /option `merge`: expected a function, or rules by path/);
    new PgStore({ merge: {} });
    new PgStore({ merge: { visits: 'sum', 'stats.seen': 'max', flash: 'append' } });
  });
});
