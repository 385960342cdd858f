/** The three-way merge keeps what each side changed, whatever the JSON. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { merge } from '../../lib/session/merge.js';

/** Few keys, so that the three sides meet; among them those that a careless merge trips over. */
const key = fc.constantFrom(
  'a',
  'b',
  'c',
  '',
  '0',
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'hasOwnProperty',
);
const scalar = fc.oneof(
  fc.constantFrom(null, true, false, 0, 1, '', 'x', '\u0000', '\ud800'),
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.string(),
);

/** Any value that `JSON.parse` can give. */
const json: fc.Arbitrary<unknown> = fc
  .letrec((tie) => ({
    value: fc.oneof({ maxDepth: 5, depthSize: 'small' }, scalar, tie('array'), tie('object')),
    array: fc.array(tie('value'), { maxLength: 3 }),
    object: fc.array(fc.tuple(key, tie('value')), { maxLength: 5 }).map(fromEntries),
  }))
  .value.map(copy);

function fromEntries(entries: [string, unknown][]): object {
  const object = {};
  for (const [name, value] of entries) {
    Object.defineProperty(object, name, { value, configurable: true, enumerable: true, writable: true });
  }
  return object;
}

function copy<T>(value: T): T {
  return JSON.parse(JSON.stringify(value));
}

function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const inner of Object.values(value)) freeze(inner);
    Object.freeze(value);
  }
  return value;
}

/** `{"a":{"a":…inner…}}` */
function nested(depth: number, inner: string): unknown {
  return JSON.parse('{"a":'.repeat(depth) + inner + '}'.repeat(depth));
}

function check(property: fc.IPropertyWithHooks<any>): void {
  fc.assert(property, { numRuns: 2000 });
}

describe('merge', () => {
  describe('for every JSON value', () => {
    it('gives ours where they changed nothing', () => {
      check(fc.property(json, json, (base, ours) => assert.deepEqual(merge(base, ours, base), ours)));
    });

    it('gives theirs where we changed nothing', () => {
      check(fc.property(json, json, (base, theirs) => assert.deepEqual(merge(base, base, theirs), theirs)));
    });

    it('takes what both changed it to where that is the same', () => {
      check(fc.property(json, json, (base, both) => assert.deepEqual(merge(base, both, copy(both)), both)));
    });

    it('gives JSON again: nothing undefined, nothing inherited', () => {
      check(
        fc.property(json, json, json, (base, ours, theirs) => {
          const merged = merge(base, ours, theirs);
          assert.deepEqual(copy(merged), merged);
        }),
      );
    });

    it('never changes what it was given', () => {
      check(
        fc.property(json, json, json, (...sides) => {
          const [base, ours, theirs] = sides;
          const before = copy(sides);
          merge(freeze(base), freeze(ours), freeze(theirs));
          assert.deepEqual(sides, before);
        }),
      );
    });

    it('changes nothing when it is repeated', () => {
      check(
        fc.property(json, json, json, (base, ours, theirs) => {
          const merged = merge(base, ours, theirs);
          assert.deepEqual(merge(base, ours, merged), merged);
        }),
      );
    });
  });

  describe('of changes to different keys', () => {
    const absent = Symbol('absent');
    const value = fc.oneof(fc.constant(absent), json);
    const leaf = fc.record({
      before: value,
      after: value,
      by: fc.constantFrom('us', 'them', 'nobody'),
    });
    /** For each level of nesting, what becomes of each key. */
    const levels = fc.array(fc.dictionary(fc.constantFrom('k', '__proto__', 'constructor', '1', 'x y'), leaf), {
      minLength: 1,
      maxLength: 6,
    });
    type Leaf = typeof leaf extends fc.Arbitrary<infer T> ? T : never;

    function build(all: Record<string, Leaf>[], pick: (leaf: Leaf) => unknown): unknown {
      const [level, ...deeper] = all;
      if (!level) return {};
      const kept = Object.entries(level).flatMap(([name, each]): [string, unknown][] => {
        const picked = pick(each);
        return picked === absent ? [] : [[name, picked]];
      });
      return fromEntries([...kept, ['deeper', build(deeper, pick)]]);
    }

    it('keeps all of them, at any depth', () => {
      check(
        fc.property(levels, (all) => {
          const side = (name: string) => build(all, (each) => (each.by === name ? each.after : each.before));
          const [base, us, them] = [side('none of them'), side('us'), side('them')];
          const expected = build(all, (each) => (each.by === 'nobody' ? each.before : each.after));
          assert.deepEqual(merge(base, us, them), expected);
          assert.deepEqual(merge(base, them, us), expected);
        }),
      );
    });
  });

  const cases: [what: string, base: unknown, ours: unknown, theirs: unknown, merged: unknown][] = [
    ['a key that both changed takes ours', { a: 1 }, { a: 2 }, { a: 3 }, { a: 2 }],
    ['a key that both added takes ours', {}, { a: 2 }, { a: 3 }, { a: 2 }],
    ['a key that we removed goes', { a: 1, b: 1 }, { b: 1 }, { a: 1, b: 2 }, { b: 2 }],
    ['a key that they removed goes', { a: 1, b: 1 }, { a: 1, b: 2 }, { b: 1 }, { b: 2 }],
    ['a key that both removed goes', { a: 1, b: 1 }, { b: 1 }, { b: 1 }, { b: 1 }],
    ['a key that we removed and they changed stays', { a: 1 }, {}, { a: 2 }, { a: 2 }],
    ['a key that they removed and we changed stays', { a: 1 }, { a: 2 }, {}, { a: 2 }],
    ['a key that we removed stays if they changed inside', { a: { b: 1 } }, {}, { a: { b: 2 } }, { a: { b: 2 } }],
    ['a key that they removed stays if we changed inside', { a: { b: 1 } }, { a: { b: 2 } }, {}, { a: { b: 2 } }],
    [
      'a removal inside goes with a change beside it',
      { a: { b: 1, c: 1 } },
      { a: { c: 1 } },
      { a: { b: 1, c: 2 } },
      { a: { c: 2 } },
    ],
    ['objects that both added are merged', {}, { a: { b: 1 } }, { a: { c: 2 } }, { a: { b: 1, c: 2 } }],
    [
      'an object that replaced our scalar is ours to merge',
      { a: 1 },
      { a: { b: 1 } },
      { a: { c: 2 } },
      { a: { b: 1, c: 2 } },
    ],
    ['an array is one value: ours', { a: [1] }, { a: [1, 2] }, { a: [1, 3] }, { a: [1, 2] }],
    [
      'an array that only they changed is theirs',
      { a: [1], b: 1 },
      { a: [1], b: 2 },
      { a: [1, 3], b: 1 },
      { a: [1, 3], b: 2 },
    ],
    [
      'objects in arrays are not merged',
      { a: [{ b: 1 }] },
      { a: [{ b: 2 }] },
      { a: [{ b: 1, c: 1 }] },
      { a: [{ b: 2 }] },
    ],
    ['an array of ours against their object takes ours', { a: {} }, { a: [] }, { a: { b: 1 } }, { a: [] }],
    ['null is a value', { a: 1 }, { a: null }, { a: 1, b: null }, { a: null, b: null }],
    [
      '0 and false and "" are values',
      { a: 1, b: 1, c: 1 },
      { a: 0, b: 1, c: 1 },
      { a: 1, b: false, c: '' },
      { a: 0, b: false, c: '' },
    ],
  ];
  for (const [what, base, ours, theirs, merged] of cases) {
    it(`${what}`, () => assert.deepEqual(merge(base, ours, theirs), merged));
  }

  it('takes `__proto__` and its like as data', () => {
    const base = JSON.parse('{"__proto__":{"a":1},"constructor":{"prototype":{"a":1}}}');
    const ours = JSON.parse('{"__proto__":{"a":1,"admin":true},"constructor":{"prototype":{"a":1,"admin":true}}}');
    const theirs = JSON.parse('{"__proto__":{"a":2},"constructor":{"prototype":{"a":2}}}');
    const merged: any = merge(base, ours, theirs);
    assert.equal(
      JSON.stringify(merged),
      '{"__proto__":{"a":2,"admin":true},"constructor":{"prototype":{"a":2,"admin":true}}}',
    );
    assert.equal(Object.getPrototypeOf(merged), Object.prototype);
    assert.equal(({} as any).admin, undefined);
    // Theirs brings the key in, and a key that is only inherited is none.
    assert.equal(JSON.stringify(merge({}, {}, base)), JSON.stringify(base));
    assert.equal(JSON.stringify(merge({}, base, {})), JSON.stringify(base));
  });

  it('merges what is nested 500 levels deep', () => {
    const merged = merge(nested(500, '{}'), nested(500, '{"ours":1}'), nested(500, '{"theirs":2}'));
    assert.deepEqual(merged, nested(500, '{"theirs":2,"ours":1}'));
  });

  it('merges what is nested 10,000 levels deep, or says with a RangeError that it cannot', () => {
    const [base, ours, theirs] = ['{}', '{"ours":1}', '{"theirs":2}'].map((inner) => nested(10_000, inner));
    let merged: any;
    try {
      merged = merge(base, ours, theirs);
    } catch (error) {
      assert(error instanceof RangeError);
      assert.match(error.message, /call stack/i);
      return;
    }
    for (let depth = 0; depth < 10_000; depth++) merged = merged.a;
    assert.deepEqual(merged, { ours: 1, theirs: 2 });
  });
});
