/** Every option is checked, and the error about a wrong one helps to correct it. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { inspect } from 'node:util';
import session from 'express-session';
import pg from 'pg';
import { PgStore, type PgStoreOptions } from '../../lib/index.js';
import { parseOptions } from '../../lib/options.js';

const nothing: unknown[] = [null];
const notBoolean = [...nothing, 'true', 0, 1, {}];
const notIdentifier = [...nothing, '', 5, {}, 'a\0b', '\ud800', 'x'.repeat(64), 'ä'.repeat(32)];
const notFunction = [...nothing, 'name', {}, 1, true];
const notObject = [...nothing, 'text', 5, true, [], () => {}];
const notSeconds = [...nothing, '60', -1, Number.NaN, Number.POSITIVE_INFINITY, {}, true];

/** The compiler asks for a new option's bad values. */
const bad: Record<keyof PgStoreOptions, unknown[]> = {
  uri: [...nothing, '', 5, {}, 'postgres://a\0b'],
  sql: [...nothing, 'postgres://localhost', {}, () => {}],
  pool: [...nothing, 'postgres://localhost', {}, () => {}, { query: () => {} }, new pg.Client()],
  postgres: notObject,
  table: notIdentifier,
  schema: notIdentifier,
  createTable: notBoolean,
  shards: [0, -1, 1.5, 40_000, 32_768, Number.NaN, '8', null],
  prefix: [...nothing, 5, {}, ['a'], 'a\0', '\udc00'],
  secret: [...nothing, '', 5, {}, [], [''], ['good', 5], true],
  hashIds: notBoolean,
  encryptionKey: [...nothing, '', 'fifteen letters', 5, {}, [], ['a key that is long enough', 'short'], true],
  allowPlaintext: [...notBoolean, 'read'],
  ttl: [...notSeconds, 0, 1e12],
  permanent: notBoolean,
  maxLifetime: [...notSeconds, 0, 1e12],
  touchAfter: notSeconds,
  autodelete: [...notSeconds, 0, 2e6].filter((value) => value !== false),
  watchInterval: [...notSeconds, 0, 0.05, 2_000_001, false],
  maxConnections: [...notSeconds, 0, 1.5],
  retry: notObject,
  timeout: [...notSeconds, 0, 2 ** 31],
  merge: [...nothing, 'sum', 5, true, [], ['visits']],
  user: notFunction,
  previous: [...nothing, 'redis://localhost', 5, {}, [], () => {}, { get: () => {} }, { get: 1, destroy: 2 }],
};

const good: Partial<Record<keyof PgStoreOptions, unknown[]>> = {
  table: ['select', 'Weird "Name', 'x'.repeat(63), 'ä'.repeat(31), 'x;drop table a', '%', ' '],
  prefix: ['', '%', "'", '\\', '💥'],
  secret: ['a', ['new', 'old']],
  ttl: [0.001, 1e11, () => 5],
  maxLifetime: [0.5],
  touchAfter: [0, 0.5],
  autodelete: [false, 0.5, 1_700_000],
  watchInterval: [0.1, 2_000_000],
  maxConnections: [1],
  retry: [{}, { attempts: 1 }, { delay: 0 }],
  timeout: [1, 2 ** 31 - 1],
  merge: [() => {}, {}, { visits: 'sum', 'stats.seen': 'max' }],
  previous: [new session.MemoryStore(), { get: () => {}, destroy: () => {} }],
};

function complaint(options: unknown): string {
  try {
    new PgStore(options as PgStoreOptions);
  } catch (error) {
    assert(error instanceof TypeError);
    return error.message;
  }
  assert.fail('no error');
}

describe('options', () => {
  for (const [name, values] of Object.entries(bad)) {
    it(`names \`${name}\` where its value is bad, what was expected and what it got`, () => {
      for (const value of values) {
        assert.match(complaint({ [name]: value }), new RegExp(`^PgStore: option \`${name}\`: expected .+, got .+`));
      }
    });
  }

  for (const [name, values] of Object.entries(good)) {
    it(`accepts every good value of \`${name}\``, () => {
      for (const value of values) parseOptions({ [name]: value });
    });
  }

  it('checks the members of `retry`', () => {
    for (const [name, values] of Object.entries({
      attempts: [0, -1, 1.5, '6', null],
      delay: [-1, '100', Number.NaN],
    })) {
      for (const value of values) {
        assert.match(
          complaint({ retry: { [name]: value } }),
          new RegExp(`^PgStore: option \`retry\\.${name}\`: expected .+, got`),
        );
      }
    }
    assert.match(
      complaint({ retry: { attemps: 3 } }),
      /unknown option `retry\.attemps`; did you mean `retry\.attempts`\?/,
    );
  });

  it('shows what it got', () => {
    for (const name of ['timeout', 'watchInterval', 'ttl', 'shards'])
      assert.match(complaint({ [name]: -1 }), /got -1$/);
    assert.match(complaint({ table: '' }), /got an empty string$/);
    assert.match(complaint({ autodelete: null }), /got null$/);
    assert.match(complaint({ secret: [] }), /got an empty array$/);
    assert.match(complaint({ user: {} }), /got object$/);
  });

  it('never shows a secret', () => {
    for (const name of ['secret', 'encryptionKey', 'uri', 'sql', 'pool', 'postgres']) {
      const told = complaint({ [name]: name === 'secret' || name === 'uri' ? ['hunter2', ''] : 'hunter2' });
      assert(!told.includes('hunter2'), told);
    }
    assert.match(complaint({ encryptionKey: 'hunter2' }), /got a string of 7 characters$/);
    assert(!complaint({ uri: 'postgres://me:hunter2@db\0' }).includes('hunter2'));
  });

  it('shows no value where a secret may have got into the wrong place', () => {
    const places = [...Object.keys(bad), 'unknown'];
    for (const value of ['hunter2\0', ['hunter2\0'], { value: 'hunter2' }, Symbol('hunter2'), () => 'hunter2']) {
      for (const name of places) {
        for (const options of [{ [name]: value }, { retry: { [name]: value } }, { postgres: { [name]: value } }]) {
          try {
            new PgStore(options as PgStoreOptions);
          } catch (error) {
            assert(!inspect(error, { showHidden: true, depth: 9 }).includes('hunter2'), `${name}: ${error}`);
          }
        }
      }
    }
    for (const name of ['user', 'merge', 'previous', 'allowPlaintext', 'prefix', 'uri', 'secret', 'encryptionKey']) {
      assert.match(complaint({ [name]: 4711 }), /got number$/);
    }
  });

  it('suggests the nearest name for an unknown one', () => {
    const slips = {
      tabel: 'table',
      Schema: 'schema',
      secrets: 'secret',
      autoDelete: 'autodelete',
      tuochAfter: 'touchAfter',
      maxConnection: 'maxConnections',
      url: 'uri',
    };
    for (const [slip, name] of Object.entries(slips)) {
      assert.equal(complaint({ [slip]: 1 }), `PgStore: unknown option \`${slip}\`; did you mean \`${name}\`?`);
    }
    for (const name of ['store', 'x', 'resave', 'tableau vivant', '']) {
      assert.equal(complaint({ [name]: 1 }), `PgStore: unknown option \`${name}\``);
    }
    for (const name of ['constructor', 'toString']) assert.match(complaint({ [name]: 1 }), /^PgStore: unknown option/);
    assert.match(complaint(JSON.parse('{"__proto__": 1}')), /^PgStore: unknown option `__proto__`/);
  });

  it('says what an option of another store is here', () => {
    for (const [name, here] of Object.entries({
      conString: '`uri`',
      connectionString: '`uri`',
      conObject: '`uri` and `postgres`',
      client: '`pool` (node-postgres) or `sql` (Postgres.js)',
      pgPromise: '`pool` (node-postgres) or `sql` (Postgres.js)',
      max: '`maxConnections`',
      ssl: '`postgres: { ssl }`',
      host: '`postgres: { host }`',
      tableName: '`table`',
      schemaName: '`schema`',
      createTableIfMissing: '`createTable`',
      disableTouch: '`touchAfter`',
      pruneSessionInterval: '`autodelete`',
      errorLog: 'the events `autodelete`, `retry` and `unreadable`',
    })) {
      assert.equal(complaint({ [name]: 1 }), `PgStore: unknown option \`${name}\`; here it is ${here}`);
    }
    assert.match(complaint({ retry: { max: 1 } }), /unknown option `retry\.max`$/);
  });

  it('refuses what is no object of options', () => {
    for (const value of [null, 'postgres://localhost', 5, [], () => {}, session]) {
      assert.match(complaint(value), /^PgStore: expected an object of options, got/);
    }
    assert(!complaint('postgres://me:hunter2@db').includes('hunter2'));
  });

  it('takes `undefined` as not given', () => {
    const given = Object.fromEntries(Object.keys(bad).map((name) => [name, undefined]));
    assert.deepEqual(parseOptions(given as object, {}), parseOptions({}, {}));
  });

  it('has the documented defaults', () => {
    const { postgres, ...options } = parseOptions({}, {});
    assert.deepEqual({ ...postgres }, {});
    assert.deepEqual(options, {
      uri: undefined,
      table: 'sessions',
      schema: 'public',
      createTable: true,
      prefix: '',
      secrets: [],
      hashIds: false,
      encryptionKeys: [],
      allowPlaintext: false,
      ttl: 86_400,
      permanent: false,
      touchAfter: 60,
      autodelete: 900,
      maxConnections: 10,
      retry: { attempts: 6, delay: 100 },
      timeout: 10_000,
      watchInterval: 5,
    });
  });

  it('prefers `uri` to DATABASE_URL, and `sql` or `pool` to both', () => {
    const env = { DATABASE_URL: 'postgres://env/db' };
    const sql = Object.assign(() => {}, { unsafe: () => {} }) as any;
    assert.equal(parseOptions({}, env).uri, 'postgres://env/db');
    assert.equal(parseOptions({ uri: 'postgres://given/db' }, env).uri, 'postgres://given/db');
    assert.equal(parseOptions({ sql }, env).uri, undefined);
    assert.equal(parseOptions({ pool: { connect: () => {} } }, env).uri, undefined);
    assert.equal(parseOptions({}, { DATABASE_URL: '' }).uri, undefined);
  });

  it('refuses names that Postgres.js would ignore', () => {
    assert.match(
      complaint({ postgres: { sll: true } }),
      /unknown option `postgres\.sll`; did you mean `postgres\.ssl`\?/,
    );
    assert.match(complaint({ postgres: { max: 3 } }), /`postgres\.max`: expected option `maxConnections` in its place/);
    assert.doesNotMatch(complaint({ postgres: { pasword: 'hidden' } }), /hidden/);
  });

  it('refuses settings in `postgres` of a wrong kind', () => {
    const wrong = {
      host: 5,
      hostname: [undefined],
      path: true,
      socket: '/run/postgresql',
      connect_timeout: 'soon',
      idle_timeout: -1,
      max_lifetime: true,
    };
    for (const [name, value] of Object.entries(wrong)) {
      assert.match(
        complaint({ postgres: { [name]: value } }),
        new RegExp(`option \`postgres\\.${name}\`: expected (a|the) `),
      );
      assert.doesNotThrow(() => parseOptions({ postgres: { [name]: null } }), name);
    }
  });

  it('knows every name that Postgres.js reads from its options', () => {
    const source = fs.readFileSync(createRequire(import.meta.url).resolve('postgres'), 'utf8');
    const parser = source.slice(source.indexOf('function parseOptions'), source.indexOf('function tsa'));
    const [, defaults = ''] = /const defaults = \{(.*?)\n {2}\}/s.exec(parser) ?? [];
    const names = [...parser.matchAll(/\bo\.([a-z_]+)/g), ...defaults.matchAll(/^ {4}([a-z_]+) *:/gm)].map(
      ([, name]) => name,
    );
    assert(names.includes('socket') && names.includes('keep_alive'), String(names));
    // `max` is `maxConnections` here, `timeout` a deprecated name.
    for (const name of names.filter((one) => one !== 'max' && one !== 'timeout')) {
      assert.doesNotThrow(() => parseOptions({ postgres: { [name as string]: undefined } }), name);
    }
  });

  it('refuses options that contradict each other', () => {
    const sql = Object.assign(() => {}, { unsafe: () => {} });
    const pool = { connect: () => {} };
    assert.match(complaint({ sql, uri: 'postgres://localhost/db' }), /options `uri` and `sql` exclude each other/);
    assert.match(complaint({ pool, uri: 'postgres://localhost/db' }), /options `uri` and `pool` exclude each other/);
    assert.match(complaint({ pool, sql }), /options `sql` and `pool` exclude each other/);
    assert.match(complaint({ pool, postgres: { ssl: 'require' } }), /`postgres\.ssl` has no effect with option `pool`/);
    assert.match(complaint({ sql, postgres: { ssl: 'require' } }), /`postgres\.ssl` has no effect with option `sql`/);
    assert.match(complaint({ sql, postgres: { prepare: false } }), /`postgres\.prepare` has no effect with .*`sql`/);
    const unset = { prepare: false, ssl: undefined };
    assert.doesNotThrow(() => parseOptions({ pool, postgres: unset }));
    assert.match(complaint({ allowPlaintext: true }), /option `allowPlaintext` goes with option `encryptionKey`/);
  });
});
