/** Connection strings, environment variables and options: each is honoured as libpq does it, or refused by its name. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseSettings, type Settings } from '../../lib/client/settings.js';
import { parseOptions } from '../../lib/options.js';
import { certificate } from '../support/certificate.js';
import { closeStores, directUri, freshTable, openStore } from '../support/postgres.js';
import { plain } from '../support/sessions.js';

type Environment = Record<string, string>;

function settingsOf(uri: string | undefined, given: object = {}, env: Environment = {}): Settings {
  return parseSettings(parseOptions({ ...(uri === undefined ? {} : { uri }), ...given }, {}), env);
}

/** The hosts in short: `name>address:port`, or the file of the socket. */
function places(settings: Settings): string[] {
  return settings.hosts.map(({ name, address, port, path }) =>
    path === undefined ? `${name}${address === name ? '' : `>${address}`}:${port}` : path,
  );
}

describe('settings', () => {
  let folder: string;

  before(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'express-pg-store-'));
  });
  after(() => fs.rmSync(folder, { recursive: true, force: true }));
  afterEach(closeStores);

  function writeFile(name: string, text: string, mode = 0o600): string {
    const file = path.join(folder, name);
    fs.writeFileSync(file, text);
    fs.chmodSync(file, mode);
    return file;
  }

  describe('a connection string', () => {
    for (const uri of [
      'mysql://u:pw@host/db',
      'http://host/',
      'host=db password=pw',
      'host/db',
      'postgres//host',
      'postgress://h',
      'jdbc:postgresql://u:pw@h/db',
      'postgres://u:pw%zz@host/db',
      'postgres://u:first@pw@host/db',
      'postgres://u:first@pw/x@host/db',
      'postgres://u:first/pw@host/db',
      'postgres://u:first?pw@host/db',
      'postgres://u:99?a=pw/@host/db',
      'postgres://u:first/x?pw=1&pw=2@host/db',
      'postgres://u:first/x?sslpw=1@host/db',
      'postgres://u:first@pw?x=y@host/db',
      'postgres://u:first@pw/x?y=z@host/db',
      'postgres://u:12/pw?y=z@host/db',
      'postgres://u:pw@ho st/db',
      'postgres://u:pw@h%0aost/db',
      'postgres://u:pw%00@host/db',
      'postgres://u:pw@[::1/db',
      'postgres://u:pw@host/db?sslmode',
    ]) {
      it(`refuses ${uri}, without showing it`, () => {
        assert.throws(
          () => settingsOf(uri),
          (error: any) => {
            assert(error instanceof TypeError);
            assert.match(error.message, /option `uri`: expected a connection string, such as postgres:/);
            assert(!error.message.includes(uri) && !error.message.includes('pw') && error.cause === undefined);
            return true;
          },
        );
      });
    }

    const strings: Record<string, [hosts: string[], database: string, user: string]> = {
      'postgres://me@host/db': [['host:5432'], 'db', 'me'],
      'postgresql://me@host:1234/db': [['host:1234'], 'db', 'me'],
      'PostgreSQL://me@host': [['host:5432'], 'me', 'me'],
      'postgres://me@[::1]:1234/db': [['::1:1234'], 'db', 'me'],
      'postgres://me@[2001:db8::1]/db': [['2001:db8::1:5432'], 'db', 'me'],
      'postgres://m%40e@h%6Fst/my%20db': [['host:5432'], 'my db', 'm@e'],
      'postgres://me@a,b:2,[::1]:3/db': [['a:5432', 'b:2', '::1:3'], 'db', 'me'],
      'postgres://me@a,b/db?port=7': [['a:7', 'b:7'], 'db', 'me'],
      'postgres:///db?host=/run/pg&user=me': [['/run/pg/.s.PGSQL.5432'], 'db', 'me'],
      'postgres://me@/db?host=/run/pg&port=77': [['/run/pg/.s.PGSQL.77'], 'db', 'me'],
      'postgres://me@localhost/db?host=/cloudsql/a:b:c': [['/cloudsql/a:b:c/.s.PGSQL.5432'], 'db', 'me'],
      'postgres://me@%2Frun%2Fpg:77/db': [['/run/pg/.s.PGSQL.77'], 'db', 'me'],
      'postgres://me@host/db?hostaddr=192.0.2.1': [['host>192.0.2.1:5432'], 'db', 'me'],
      'postgres://me@/db?host=/run/pg&hostaddr=192.0.2.1': [['/run/pg>192.0.2.1:5432'], 'db', 'me'],
      'postgres:///db?host=/cloudsql/a:b:c&user=me@project.iam': [
        ['/cloudsql/a:b:c/.s.PGSQL.5432'],
        'db',
        'me@project.iam',
      ],
      'postgres:///db?hostaddr=192.0.2.1,192.0.2.2&user=me': [['192.0.2.1:5432', '192.0.2.2:5432'], 'db', 'me'],
      'postgres://x@host/other?user=me&dbname=db': [['host:5432'], 'db', 'me'],
      'postgres://me:a+b@host/db': [['host:5432'], 'db', 'me'],
    };
    for (const [uri, [hosts, database, user]] of Object.entries(strings)) {
      it(`${uri}`, () => {
        const settings = settingsOf(uri);
        assert.deepEqual([places(settings), settings.database, settings.user], [hosts, database, user]);
      });
    }

    it('has a password with any characters', async () => {
      const passwords = { 'a+b': 'a+b', 'a:b#c': 'a:b#c', 'a%40b%2F%3F%25': 'a@b/?%', '': '' };
      for (const [text, password] of Object.entries(passwords)) {
        const { password: given, hosts } = settingsOf(`postgres://me:${text}@host/db?passfile=/none`);
        assert.equal(hosts[0] && (await given(hosts[0])), password);
      }
    });

    for (const uri of [
      'postgres://h:0/db',
      'postgres://h:70000/db',
      'postgres://h:first/db',
      'postgres://a,b/db?port=1,2,3',
      'postgres://::1/db',
    ]) {
      it(`refuses the port of ${uri}`, () => {
        assert.throws(() => settingsOf(uri), { name: 'TypeError', message: /parameter `port` of option `uri`/ });
      });
    }

    it('refuses an address that is a name, and a socket in the abstract namespace', () => {
      assert.throws(() => settingsOf('postgres://me@/db?host=%40run/pg'), /parameter `host` of option `uri`: expected/);
      assert.throws(
        () => settingsOf('postgres://host/db?hostaddr=192.0.2.1,other'),
        /`hostaddr` of option `uri`: expected as many/,
      );
      assert.throws(() => settingsOf('postgres://host/db?hostaddr=other'), /`hostaddr` of option `uri`: expected IP/);
    });
  });

  describe('the environment', () => {
    const all = {
      PGHOST: 'a,b',
      PGPORT: '1,2',
      PGUSER: 'me',
      PGDATABASE: 'db',
      PGPASSWORD: 'pw',
      PGAPPNAME: 'app',
      PGOPTIONS: '-c work_mem=1MB',
      PGCONNECT_TIMEOUT: '2',
      PGTARGETSESSIONATTRS: 'primary',
    };

    it('gives what the connection string does not', async () => {
      const settings = settingsOf(undefined, {}, all);
      assert.deepEqual(places(settings), ['a:1', 'b:2']);
      assert.deepEqual([settings.user, settings.database, settings.target], ['me', 'db', 'primary']);
      assert.deepEqual(settings.serverSettings, { application_name: 'app', options: '-c work_mem=1MB' });
      assert.equal(settings.connectTimeout, 2000);
      assert.equal(settings.hosts[0] && (await settings.password(settings.hosts[0])), 'pw');
      const others = settingsOf('postgres://you:word@host:7/other?application_name=mine', {}, all);
      assert.deepEqual(places(others), ['host:7']);
      assert.deepEqual([others.user, others.database], ['you', 'other']);
      assert.equal(others.serverSettings.application_name, 'mine');
    });

    it('also counts where the connection string has the parameter without a value', () => {
      const env = { PGREQUIREAUTH: 'scram-sha-256', PGUSER: 'me' };
      const { authMethods, user } = settingsOf('postgres://host/db?require_auth=&user=', {}, env);
      assert.deepEqual([[...authMethods], user], [['scram-sha-256'], 'me']);
    });

    it('an empty variable counts as none', () => {
      assert.deepEqual(places(settingsOf(undefined, {}, { PGHOST: '', PGPORT: '', PGSSLMODE: '' })), [
        'localhost:5432',
      ]);
    });

    for (const [name, value] of Object.entries({
      PGPORT: 'tcp://10.0.0.1:5432',
      PGSSLMODE: 'requires',
      PGSSL: 'require',
      PGSSLCRLDIR: '/none',
      PG_SSLMODE: 'require',
      PGREQUIRESSL: '1',
      PGSERVICE: 'mine',
      PGREQUIREPEER: 'postgres',
      PGGSSENCMODE: 'require',
      PGSSLCERTMODE: 'require',
      PGTARGETSESSIONATTRS: 'standby',
      PGSSLROOTCERT: '/none/root.crt',
      PGSSLMINPROTOCOLVERSION: 'TLSv9',
      PGREQUIREAUTH: 'gss',
      PGCONNECT_TIMEOUT: 'soon',
    })) {
      it(`refuses ${name}=${value} by name`, () => {
        assert.throws(() => settingsOf(undefined, {}, { [name]: value }), {
          name: 'TypeError',
          message: new RegExp(`environment variable \`${name}\``),
        });
      });
    }
  });

  describe('options of `postgres` win', () => {
    it('over the connection string and the environment', async () => {
      const postgres = {
        host: ['x', 'y'],
        port: [1, 2],
        user: 'u',
        database: 'd',
        password: 'p',
        ssl: false,
        connection: { application_name: 'option' },
        target_session_attrs: 'primary',
        connect_timeout: 1,
      };
      const settings = settingsOf('postgres://me:pw@host:7/db?sslmode=require&application_name=uri', { postgres });
      assert.deepEqual(places(settings), ['x:1', 'y:2']);
      assert.deepEqual([settings.user, settings.database, settings.target], ['u', 'd', 'primary']);
      assert.equal(settings.tls.mode, 'disable');
      assert.equal(settings.serverSettings.application_name, 'option');
      assert.equal(settings.connectTimeout, 1000);
      assert.equal(settings.hosts[0] && (await settings.password(settings.hosts[0])), 'p');
    });

    it('as Postgres.js has them: lists in one text, ports in hosts, a path, other spellings', () => {
      assert.deepEqual(places(settingsOf(undefined, { postgres: { host: 'x:1,y:2' } })), ['x:1', 'y:2']);
      assert.deepEqual(places(settingsOf(undefined, { postgres: { hostname: '::1', port: '7' } })), ['::1:7']);
      assert.deepEqual(places(settingsOf(undefined, { postgres: { path: '/s/.s.PGSQL.9' } })), ['/s/.s.PGSQL.9']);
      const { user, database } = settingsOf(undefined, { postgres: { username: 'u', db: 'd' } });
      assert.deepEqual([user, database], ['u', 'd']);
      assert.equal(settingsOf(undefined, { postgres: { no_prepare: true } }).client.prepare, false);
    });

    it('but not where they are empty', () => {
      for (const postgres of [
        { host: '', port: '', user: '', database: '' },
        { host: null, port: null },
        { host: [], hostname: undefined, port: [] },
      ]) {
        const settings = settingsOf('postgres://me@host:7/db', { postgres });
        assert.deepEqual([places(settings), settings.user, settings.database], [['host:7'], 'me', 'db']);
      }
    });

    for (const [name, value] of Object.entries({
      password: 12345,
      ssl: 'requires',
      port: 'tcp://10.0.0.1',
      target_session_attrs: 'read-only',
      user: 5,
    })) {
      it(`refuses ${name}: ${value}`, () => {
        assert.throws(() => settingsOf('postgres://host/db', { postgres: { [name]: value } }), {
          name: 'TypeError',
          message: new RegExp(`option \`postgres\\.${name}\``),
        });
      });
    }
  });

  describe('which host', () => {
    const target = (query: string) => settingsOf(`postgres://host/db?${query}`).target;

    it('takes writes: `any` is `read-write`, and so is nothing where there are several', () => {
      assert.equal(target('target_session_attrs=any'), 'read-write');
      assert.equal(target('target_session_attrs=read-write'), 'read-write');
      assert.equal(target('target_session_attrs=primary'), 'primary');
      assert.equal(target(''), undefined);
      assert.equal(settingsOf('postgres://a,b/db').target, 'read-write');
      for (const attributes of ['standby', 'read-only', 'prefer-standby']) {
        assert.throws(() => target(`target_session_attrs=${attributes}`), {
          name: 'TypeError',
          message: /`target_session_attrs` of option `uri`: expected read-write or primary, because a store writes/,
        });
      }
    });

    it('in any order with `load_balance_hosts=random`', () => {
      const orders = new Set<string>();
      for (let n = 0; n < 1000 && orders.size < 6; n++) {
        orders.add(places(settingsOf('postgres://a,b,c/db?load_balance_hosts=random')).join());
      }
      assert.equal(orders.size, 6);
    });

    it('each within `timeout`, or as long as the app says', () => {
      assert.equal(settingsOf('postgres://a,b/db', { timeout: 5000 }).connectTimeout, 2500);
      assert.equal(settingsOf('postgres://a,b/db?connect_timeout=1').connectTimeout, 1000);
      assert.equal(settingsOf('postgres://a/db?connect_timeout=-1', { timeout: 300 }).connectTimeout, 300);
      const postgres = { connect_timeout: 0 };
      assert.equal(settingsOf('postgres://a/db', { postgres, timeout: 300 }).connectTimeout, 300);
    });
  });

  it('no time ends at once that is longer than a timer can be', () => {
    const times = ({ client }: Settings) => [client.idle_timeout, client.max_lifetime];
    const month = 30 * 86_400;
    const longest = 2_147_483;
    assert.deepEqual(times(settingsOf(`postgres://h/db?idle_timeout=${month}&max_lifetime=${month}`)), [
      longest,
      longest,
    ]);
    const postgres = { idle_timeout: Number.POSITIVE_INFINITY, max_lifetime: String(month) };
    assert.deepEqual(times(settingsOf('postgres://h/db', { postgres })), [longest, longest]);
    assert.deepEqual(times(settingsOf('postgres://h/db?idle_timeout=9&max_lifetime=1.5')), [9, 1.5]);
    assert.deepEqual(times(settingsOf('postgres://h/db')), [null, undefined]);
  });

  describe('protection', () => {
    /** Mode, whether the authority is checked, and whether the name is. */
    function tlsOf(query: string, given: object = {}, env: Environment = {}): string {
      const { mode, options } = settingsOf(`postgres://host/db?${query}`, given, env).tls;
      if (mode === 'disable') return mode;
      const checks =
        options.rejectUnauthorized === false ? 'nothing' : options.checkServerIdentity ? 'authority' : 'all';
      return `${mode}, checks ${checks}`;
    }

    const modes: Record<string, string> = {
      '': 'disable',
      'sslmode=disable': 'disable',
      'sslmode=allow': 'prefer, checks nothing',
      'sslmode=prefer': 'prefer, checks nothing',
      'sslmode=require': 'require, checks nothing',
      'sslmode=no-verify': 'require, checks nothing',
      'sslmode=verify-ca': 'require, checks authority',
      'sslmode=verify-full': 'require, checks all',
      'sslrootcert=system': 'require, checks all',
      'sslmode=require&sslrootcert=system': 'require, checks all',
      'ssl=true': 'require, checks all',
      'ssl=1': 'require, checks all',
      'ssl=0': 'disable',
      'ssl=false': 'disable',
      'ssl=require': 'require, checks nothing',
      'ssl=no-verify': 'require, checks nothing',
      'ssl_min_protocol_version=TLSv1.3': 'require, checks nothing',
      'channel_binding=require': 'require, checks nothing',
      'sslnegotiation=direct': 'require, checks nothing',
    };
    for (const [query, expected] of Object.entries(modes)) {
      it(`?${query}: ${expected}`, () => assert.equal(tlsOf(query), expected));
    }

    it('files: authorities, revoked certificates, a certificate of the client and its key', async () => {
      const { cert, private: key } = await certificate();
      const root = writeFile('root.crt', cert);
      const keyFile = writeFile('client.key', key);
      assert.equal(tlsOf(`sslrootcert=${root}`), 'require, checks all');
      assert.equal(tlsOf(`sslmode=require&sslrootcert=${root}`), 'require, checks authority', 'as in libpq');
      assert.equal(tlsOf(`sslmode=no-verify&sslrootcert=${root}`), 'require, checks nothing');
      assert.equal(tlsOf(`sslmode=disable&sslrootcert=${root}`), 'disable');
      assert.equal(tlsOf('', {}, { PGSSLROOTCERT: root }), 'require, checks all');
      const { options } = settingsOf(`postgres://h/d?sslmode=verify-full&sslrootcert=${root}`).tls;
      assert.equal(String(options.ca), cert);
      const pair = `sslcert=${root}&sslkey=${keyFile}`;
      assert.equal(tlsOf(pair), 'require, checks nothing');
      assert.equal(String(settingsOf(`postgres://h/d?${pair}`).tls.options.key), key);
      assert.equal(settingsOf(`postgres://h/d?sslmode=require&${pair}&sslcertmode=disable`).tls.options.key, undefined);
    });

    it('files that are of no use are refused by the names of their parameters', async () => {
      const { cert, private: key } = await certificate();
      const good = writeFile('client.crt', cert);
      const goodKey = writeFile('client.key', key);
      const text = writeFile('text.crt', 'no certificate');
      const junk = writeFile('junk.crt', '-----BEGIN CERTIFICATE-----\nand no end\n');
      const otherKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
      const other = writeFile('other.key', otherKey.export({ type: 'pkcs8', format: 'pem' }) as string);
      for (const [query, name] of [
        [`sslmode=verify-ca&sslrootcert=${text}`, 'sslrootcert'],
        [`sslmode=verify-ca&sslrootcert=${junk}`, 'sslrootcert'],
        [`sslmode=require&sslrootcert=${goodKey}`, 'sslrootcert'],
        [`sslmode=require&sslcrl=${good}`, 'sslcrl'],
        [`sslcert=${text}&sslkey=${goodKey}`, 'sslcert'],
        [`sslcert=${junk}&sslkey=${goodKey}`, 'sslcert'],
        [`sslcert=${good}&sslkey=${other}`, 'sslkey'],
      ] as const) {
        const message = new RegExp(`parameter \`${name}\` of option \`uri\`.*: the (certificates|file)`);
        assert.throws(() => tlsOf(query), { name: 'TypeError', message }, query);
      }
      assert.throws(() => tlsOf('', {}, { PGSSLROOTCERT: junk }), /environment variable `PGSSLROOTCERT`/);
      const ssl = { cert: 'none', key: 'none' };
      assert.throws(() => tlsOf('', { postgres: { ssl } }), /option `postgres\.ssl`: the certificates/);
    });

    it('`ssl` of the connection string wins over PGSSLMODE, and `sslmode` over `ssl`, but not to drop TLS', () => {
      assert.equal(tlsOf('ssl=true', {}, { PGSSLMODE: 'disable' }), 'require, checks all');
      assert.equal(tlsOf('ssl=true', {}, { PGSSLMODE: 'require' }), 'require, checks all');
      assert.equal(tlsOf('ssl=false', {}, { PGSSLMODE: 'require' }), 'disable');
      assert.equal(tlsOf('ssl=true&sslmode=require'), 'require, checks nothing');
      assert.equal(tlsOf('ssl=false&sslmode=require'), 'require, checks nothing');
      for (const mode of ['disable', 'allow', 'prefer']) {
        assert.throws(() => tlsOf(`ssl=true&sslmode=${mode}`), { name: 'TypeError', message: /parameter `ssl`/ });
      }
    });

    it('a request without a value is refused, whatever the environment says', () => {
      for (const name of ['sslmode', 'ssl', 'channel_binding']) {
        const env = { PGSSLMODE: 'verify-full', PGCHANNELBINDING: 'require' };
        const expected = { name: 'TypeError', message: new RegExp(`parameter \`${name}\` .* has no value`) };
        for (const variables of [{}, env]) assert.throws(() => tlsOf(`${name}=`, {}, variables), expected);
      }
    });

    for (const uri of [
      'postgres://u:pw@h/db&sslmode=require',
      'postgres://u:pw@h/db;sslmode=require',
      'postgres://u:pw@h/db%3Fsslmode=require',
      'postgres://u:pw@h/db?application_name=x?sslmode=require',
      'postgres://u:pw@h/db?application_name=x;sslmode=require',
    ]) {
      it(`refuses ${uri}, whose separator is wrong`, () => {
        assert.throws(() => settingsOf(uri), { name: 'TypeError', message: /`sslmode` after a single `\?`/ });
      });
    }

    it('by option `ssl`, with the files that are named elsewhere', async () => {
      const root = writeFile('root.crt', (await certificate()).cert);
      for (const [ssl, expected] of [
        [true, 'require, checks all'],
        ['require', 'require, checks nothing'],
        ['verify-ca', 'require, checks authority'],
        [{}, 'require, checks all'],
        [{ rejectUnauthorized: false }, 'require, checks nothing'],
      ] as const) {
        assert.equal(tlsOf('sslmode=disable', { postgres: { ssl } }), expected);
      }
      const { options } = settingsOf('postgres://h/d', { postgres: { ssl: true } }, { PGSSLROOTCERT: root }).tls;
      assert(options.ca);
    });

    for (const query of [
      'sslMode=require',
      'ssl-mode=require',
      'SSLMODE=require',
      'sslmods=require',
      'sslverify=1',
      'sslaccept=strict',
      'sslfactory=x',
      'useSSL=true',
      'requireSSL=true',
      'tls=true',
      'encrypt=true',
      'sslcrldir=/none',
      'channelBinding=require',
      'requireAuth=md5',
      'gssEncMode=require',
      'targetServerType=primary',
      'targetSessionAttrs=primary',
      'service=mine',
      'requirepeer=postgres',
      'gssencmode=require',
      'sslcertmode=require',
      'min_protocol_version=3.2',
      'replication=database',
      'sslmode=requires',
      'sslmode=Require',
      'ssl=yes-please',
      'channel_binding=required',
      'require_auth=gss',
      'require_auth=md5,!password',
      'sslcert=/none',
      'sslkey=/none',
      'sslrootcert=/none/root.crt',
      'sslmode=require&sslcrl=/none/root.crl',
      'ssl_min_protocol_version=SSLv3',
      'ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2',
      'sslmode=prefer&sslnegotiation=direct',
      'sslmode=disable&channel_binding=require',
      'scram_client_key=x',
      'oauth_issuer=x',
      'authenticationPluginClassName=x',
      'socket=/cloudsql/a:b:c',
      'socketFactory=com.google.cloud.sql.postgres.SocketFactory',
      'unix_sock=/run/pg/.s.PGSQL.5432',
      'hostname=other',
      'path=/run/pg',
      'PGHOST=other',
    ]) {
      it(`refuses ?${query} by name`, () => {
        const name = (query.split('&').at(-1) ?? '').split('=')[0] ?? '';
        assert.throws(() => tlsOf(query), { name: 'TypeError', message: new RegExp(`\`${name}\``) });
      });
    }

    it('a parameter that is given twice is refused', () => {
      assert.throws(() => tlsOf('sslmode=require&sslmode=disable'), { name: 'TypeError', message: /sslmode.*twice/ });
    });

    it('which ways to authenticate are allowed', () => {
      const methods = (query: string) => [...settingsOf(`postgres://h/d?${query}`).authMethods].join();
      assert.equal(methods(''), 'none,password,md5,scram-sha-256');
      assert.equal(methods('require_auth=scram-sha-256'), 'scram-sha-256');
      assert.equal(methods('require_auth=scram-sha-256,gss,none'), 'none,scram-sha-256');
      assert.equal(methods('require_auth=!password,!none'), 'md5,scram-sha-256');
    });
  });

  describe('the password file', () => {
    const passwordFor = async (uri: string, file: string, env: Environment = {}) => {
      const { password, hosts } = settingsOf(uri, {}, { PGPASSFILE: file, ...env });
      return hosts[0] && (await password(hosts[0]));
    };

    it('gives the password of the first line that fits', async () => {
      const file = writeFile(
        'pgpass',
        [
          '# host:1:db:me:comment',
          'host:1:db',
          'host:1:db:me:first',
          'host:*:other:me:any port',
          'ho\\:st:1:db:me:esc\\:aped\\\\',
          'localhost:1:db:me:socket',
          '/other/folder:1:db:me:folder',
          '*:*:*:you:with:rest',
          '',
        ].join('\n'),
      );
      const cases = {
        'postgres://me@host:1/db': 'first',
        'postgres://me@host:99/other': 'any port',
        'postgres://me@ho%3Ast:1/db': 'esc:aped\\',
        'postgres://me@/db?host=/var/run/postgresql&port=1': 'socket',
        'postgres://me@/db?host=/other/folder&port=1': 'folder',
        'postgres://you@anywhere/at-all': 'with',
        'postgres://me@host:2/db': '',
        'postgres://me:given@host:1/db': 'given',
      };
      for (const [uri, password] of Object.entries(cases)) assert.equal(await passwordFor(uri, file), password, uri);
      assert.equal(await passwordFor('postgres://me@host:1/db', file, { PGPASSWORD: 'variable' }), 'variable');
    });

    it('is left out where it is a pipe that nobody writes into', async () => {
      const pipe = path.join(folder, 'pipe');
      execFileSync('mkfifo', ['-m', '600', pipe]);
      assert.equal(await passwordFor('postgres://me@host/db', pipe), '');
    });

    it('is left out where it is missing, or where others may read it', async () => {
      const line = '*:*:*:*:secret';
      assert.equal(await passwordFor('postgres://me@host/db', path.join(folder, 'none')), '');
      assert.equal(await passwordFor('postgres://me@host/db', folder), '');
      // Windows has no such modes.
      const expected = process.platform === 'win32' ? 'secret' : '';
      assert.equal(await passwordFor('postgres://me@host/db', writeFile('open', line, 0o640)), expected);
      assert.equal(await passwordFor('postgres://me@host/db', writeFile('closed', line, 0o600)), 'secret');
    });
  });

  it('sends the server no parameter that is for another client, and all others', async () => {
    const parameters =
      'schema=public&pgbouncer=true&connection_limit=1&pool_timeout=5&channel_binding=prefer&gssencmode=disable' +
      '&keepalives_idle=60&sslcert=&supa=base-pooler.x&uselibpqcompat=true&statement_cache_size=0&client_encoding=LATIN1' +
      '&ApplicationName=x&currentSchema=y&tcpKeepAlive=true&pool=5&loggerLevel=OFF&tcpNoDelay=true&readOnlyMode=ignore' +
      '&preferQueryMode=extended&sslResponseTimeout=5000&workaround=supabase-pooler.vercel&socketTimeout=5';
    // A pooler refuses parameters that it does not know.
    const uri = `${await directUri()}?${parameters}&application_name=mine&search_path=public`;
    const { serverSettings, client } = settingsOf(uri);
    assert.deepEqual(serverSettings, { application_name: 'mine', search_path: 'public' });
    assert.equal(client.prepare, false);
    const store = await openStore({ uri, table: freshTable() });
    await store.set('a', plain({ n: 1 }));
    assert.equal(((await store.get('a')) as any).n, 1);
  });

  it('a parameter that nobody knows is refused by the server', async () => {
    const store = await openStore({ uri: `${await directUri()}?no_such_setting=1`, table: freshTable() });
    await assert.rejects(store.get('a'), { code: '42704' });
  });
});
