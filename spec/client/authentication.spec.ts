/**
 * How a connection starts: each way to authenticate, what is refused, and what a hostile server can do, which is
 * nothing.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';
import postgres, { type Sql } from 'postgres';
import { ConnectionPool } from '../../lib/client/pool.js';
import { parseOptions } from '../../lib/options.js';
import { certificate, writeCertificate } from '../support/certificate.js';
import { PostgresServer } from '../support/postgres-server.js';

const PASSWORD = 'pw ü€';

/** Opens a connection, runs a statement on it, and ends it. */
async function login(uri: string, given: Record<string, unknown> = {}): Promise<string> {
  const pool = new ConnectionPool(parseOptions({ uri, timeout: 20_000, postgres: given }));
  try {
    const rows = await pool.query('select current_user::text', [], performance.now() + 20_000);
    return String(rows[0]?.[0]);
  } finally {
    await pool.end();
  }
}

describe('authentication', () => {
  let server: PostgresServer;
  let sql: Sql;

  before(async () => {
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
    sql = postgres(server.uri, { max: 1, ssl: false, onnotice: () => {} });
    await writeCertificate(server);
    await sql`alter system set ssl = on`;
    await sql`set password_encryption = 'scram-sha-256'`;
    await sql.unsafe(`create role scram login password '${PASSWORD}'; create role clear login password '${PASSWORD}';
      create role trusted login`);
    // With a soft hyphen and a ligature, which SASLprep takes away.
    await sql.unsafe("create role prepared login password 'p\u00adw\ufb01'");
    await sql`set password_encryption = md5`;
    await sql.unsafe(`create role md5 login password '${PASSWORD}'`);
    const file = path.join(server.dataDir, 'pg_hba.conf');
    const rules = ['scram scram-sha-256', 'prepared scram-sha-256', 'clear password', 'md5 md5', 'trusted trust'].map(
      (rule) => {
        const [role, method] = rule.split(' ');
        return `host all ${role} all ${method}\n`;
      },
    );
    fs.writeFileSync(file, rules.join('') + fs.readFileSync(file, 'utf8'));
    await sql`select pg_reload_conf()`;
    // The postmaster applies it in its own time.
    while ((await login(uriOf('scram', '')).catch((error) => error.code)) !== 'NO_PASSWORD');
    while ((await login(`${uriOf('scram')}?sslmode=require`).catch((error) => error.code)) === 'TLS_NOT_OFFERED');
  });
  after(async () => {
    await sql.end();
    await server.close();
  });

  function uriOf(role: string, password = PASSWORD, port = server.port): string {
    const credentials = `${role}${password && `:${encodeURIComponent(password)}`}`;
    return `postgres://${credentials}@127.0.0.1:${port}/postgres`;
  }

  for (const role of ['scram', 'clear', 'md5', 'trusted']) {
    for (const sslmode of ['disable', 'require']) {
      it(`${role}, sslmode=${sslmode}`, async () => {
        assert.equal(await login(`${uriOf(role)}?sslmode=${sslmode}`), role);
      });
    }
    if (role === 'trusted') continue;
    it(`${role}, with a wrong password and without one`, async () => {
      await assert.rejects(login(uriOf(role, 'wrong')), { code: '28P01' });
      await assert.rejects(login(uriOf(role, '')), { code: 'NO_PASSWORD', message: /asks for a password/ });
    });
  }

  it('a password that SASLprep changes', async () => {
    assert.equal(await login(uriOf('prepared', 'p\u00adw\ufb01')), 'prepared');
    assert.equal(await login(uriOf('prepared', 'pwfi')), 'prepared');
  });

  it('`require_auth` allows some ways, and sends no password for the others', async () => {
    assert.equal(await login(`${uriOf('scram')}?require_auth=scram-sha-256`), 'scram');
    assert.equal(await login(`${uriOf('trusted')}?require_auth=none`), 'trusted');
    for (const [role, methods] of [
      ['clear', 'scram-sha-256'],
      ['md5', '!md5'],
      ['scram', 'md5,password'],
      ['trusted', 'scram-sha-256'],
      ['trusted', '!none'],
    ] as const) {
      await assert.rejects(login(`${uriOf(role)}?require_auth=${methods}`), {
        code: 'AUTHENTICATION_FAILED',
        message: /`require_auth`/,
      });
    }
  });

  describe('channel binding', () => {
    it('binds a connection with TLS to its certificate, whatever signed that', async () => {
      assert.equal(await login(`${uriOf('scram')}?sslmode=require&channel_binding=require`), 'scram');
      for (const algorithm of ['sha384', 'sha512'] as const) {
        const cert = await writeCertificate(server, algorithm);
        await sql`select pg_reload_conf()`;
        const authority = { ssl: { ca: cert, servername: 'localhost', checkServerIdentity: () => undefined } };
        const uri = `${uriOf('scram')}?channel_binding=require`;
        // The postmaster loads it in its own time.
        while ((await login(uri, authority).catch((error) => error.code)) !== 'scram');
      }
    });

    it('required, is not left out: no TLS, another way to authenticate', async () => {
      for (const [role, sslmode] of [
        ['clear', 'require'],
        ['md5', 'require'],
        ['trusted', 'require'],
      ] as const) {
        await assert.rejects(login(`${uriOf(role)}?sslmode=${sslmode}&channel_binding=require`), {
          code: 'AUTHENTICATION_FAILED',
          message: /`channel_binding`/,
        });
      }
    });

    it('somebody in between, with a certificate of its own, gets nowhere', async () => {
      const { private: key, cert } = await certificate();
      const answers: string[] = [];
      const between = net.createServer((client) => {
        client.on('error', () => {});
        // Answers the request for TLS, and passes on what comes over it.
        client.once('data', () => {
          client.write('S');
          const inner = new tls.TLSSocket(client, { isServer: true, key, cert });
          const upstream = net.connect(server.port, '127.0.0.1');
          upstream.write(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]));
          upstream.once('data', () => {
            const outer = tls.connect({ socket: upstream, rejectUnauthorized: false });
            for (const socket of [inner, outer, upstream]) socket.on('error', () => {});
            inner.on('data', (data) => answers.push(data.toString('latin1')) && outer.write(data));
            outer.on('data', (data) => inner.write(data));
            outer.on('close', () => inner.destroy());
            inner.on('close', () => outer.destroy());
          });
        });
      });
      await new Promise<void>((resolve) => between.listen(0, '127.0.0.1', resolve));
      const { port } = between.address() as net.AddressInfo;
      const uri = `${uriOf('scram', PASSWORD, port)}?sslmode=require`;
      assert.equal(await login(`${uri}&channel_binding=disable`), 'scram', 'it does pass on');
      for (const binding of ['prefer', 'require']) {
        await assert.rejects(login(`${uri}&channel_binding=${binding}`), { code: '28000' });
      }
      assert(answers.some((text) => text.includes('SCRAM-SHA-256-PLUS')));
      between.close();
    });
  });

  describe('a server that does not keep to the protocol', () => {
    let script: (chunk: Buffer, socket: net.Socket, n: number) => void;
    let hostile: net.Server;
    let uri: string;
    let printed: unknown[];
    const { error: printError, log: printLog } = console;

    before(async () => {
      hostile = net.createServer((socket) => {
        let n = 0;
        socket.on('error', () => {}).on('data', (chunk) => script(chunk, socket, n++));
      });
      await new Promise<void>((resolve) => hostile.listen(0, '127.0.0.1', resolve));
      uri = uriOf('scram', PASSWORD, (hostile.address() as net.AddressInfo).port);
    });
    beforeEach(() => {
      printed = [];
      const print = (...values: unknown[]) => void printed.push(values);
      Object.assign(console, { error: print, log: print });
    });
    afterEach(() => {
      Object.assign(console, { error: printError, log: printLog });
      assert.deepEqual(printed, [], 'nothing is printed');
    });
    after(() => hostile.close());

    const message = (type: string, body: Buffer) => {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(body.length + 4);
      return Buffer.concat([Buffer.from(type), length, body]);
    };
    const authentication = (kind: number, text = '') =>
      message('R', Buffer.concat([Buffer.from([0, 0, 0, kind]), Buffer.from(text, 'latin1')]));
    const MECHANISMS = 'SCRAM-SHA-256\0\0';
    const READY = message('Z', Buffer.from('I'));

    /** Asks for SCRAM, answers the client's first message, and then as `last` says. */
    function scram(salt: string, last: Buffer): typeof script {
      return (chunk, socket, n) => {
        if (n === 0) return void socket.write(authentication(10, MECHANISMS));
        const nonce = /r=([^,]+)$/.exec(chunk.toString('latin1'))?.[1];
        if (n === 1) return void socket.write(authentication(11, `r=${nonce}server,${salt}`));
        socket.write(last);
      };
    }

    it('asks for too many iterations of SCRAM: refused before they are made', async () => {
      let hasProof = false;
      const asking = scram('s=c2FsdA==,i=30000000', Buffer.alloc(0));
      script = (chunk, socket, n) => {
        hasProof ||= n === 2;
        asking(chunk, socket, n);
      };
      await assert.rejects(login(uri), { code: 'AUTHENTICATION_FAILED', message: /1000000 iterations/ });
      assert.equal(hasProof, false);
    });

    it('proves nothing, or proves it wrongly: refused', async () => {
      const good = 's=c2FsdA==,i=4096';
      for (const last of [
        Buffer.concat([authentication(0), READY]),
        authentication(12, `v=${Buffer.alloc(32).toString('base64')}`),
        authentication(12, 'v='),
        authentication(12, 'e=other-error'),
        authentication(12),
      ]) {
        script = scram(good, last);
        await assert.rejects(login(uri), { code: 'AUTHENTICATION_FAILED', message: /has not proved/ });
      }
    });

    it('sends malformed messages of SCRAM: each fails the call', async () => {
      for (const text of ['', 'garbage', 'r=,s=,i=', 's=c2FsdA==,i=4096', ',s=%%%,i=1', '\0\xff,,,=']) {
        script = (_chunk, socket, n) =>
          void socket.write(n === 0 ? authentication(10, MECHANISMS) : authentication(11, text));
        await assert.rejects(login(uri), { code: 'AUTHENTICATION_FAILED' }, JSON.stringify(text));
      }
      for (const salt of ['s=c2FsdA==,i=0', 's=c2FsdA==,i=-1', 's=,i=4096', 's=c2FsdA==', 's=c2FsdA==,i=1e3']) {
        script = scram(salt, Buffer.alloc(0));
        await assert.rejects(login(uri), { code: 'AUTHENTICATION_FAILED', message: /malformed/ }, salt);
      }
    });

    it('asks for the same once more, with as many iterations of SCRAM again: refused', async () => {
      let proofs = 0;
      script = (chunk, socket, n) => {
        const text = chunk.toString('latin1');
        if (n === 0) return void socket.write(authentication(10, MECHANISMS));
        proofs += text.split(',p=').length - 1;
        if (n > 1) return;
        const again = authentication(11, `r=${/r=([^,]+)$/.exec(text)?.[1]}server,s=c2FsdA==,i=1000000`);
        socket.write(Buffer.concat(Array(50).fill(again)));
      };
      await assert.rejects(login(uri), { code: 'AUTHENTICATION_FAILED', message: /malformed/ });
      assert(proofs <= 1, `${proofs}`);
      script = (_chunk, socket) => void socket.write(authentication(10, MECHANISMS));
      await assert.rejects(login(uri), { code: '08P01' });
    });

    it('sends messages without end: refused', async () => {
      const notices = Buffer.concat(Array(1000).fill(message('N', Buffer.from('SNOTICE\0Mhello\0\0'))));
      for (const start of [Buffer.alloc(0), authentication(0)]) {
        script = (_chunk, socket, n) => {
          if (n > 0) return;
          const more = () => void (socket.writable && socket.write(notices, more));
          socket.write(start, more);
        };
        await assert.rejects(login(uri), { code: '08P01' });
      }
    });

    it('asks for what the store does not have: refused', async () => {
      for (const kind of [2, 6, 7, 9, 99]) {
        script = (_chunk, socket) => void socket.write(authentication(kind));
        await assert.rejects(login(uri), { code: 'AUTHENTICATION_FAILED', message: /does not support/ });
      }
      script = (_chunk, socket) => void socket.write(authentication(10, 'OTHER\0\0'));
      await assert.rejects(login(uri), { code: 'AUTHENTICATION_FAILED' });
    });

    it('is not PostgreSQL at all, or sends other messages: refused', async () => {
      for (const answer of [
        Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
        Buffer.from('220 mail.example.com ESMTP\r\n'),
        message('X', Buffer.alloc(10)),
        message('R', Buffer.alloc(2)),
        authentication(11, 'r=x'),
        authentication(12, 'v=x'),
        Buffer.concat([authentication(0), message('D', Buffer.alloc(6))]),
        Buffer.concat([authentication(0), message('K', Buffer.alloc(3)), READY]),
        Buffer.concat([authentication(0), message('K', Buffer.alloc(7)), READY]),
        Buffer.from([0x52, 0, 0, 0, 0]),
      ]) {
        script = (_chunk, socket) => void socket.write(answer);
        await assert.rejects(login(uri), { code: '08P01' }, JSON.stringify(answer.toString()));
      }
    });

    it('has TLS from the first byte, and does not say that PostgreSQL is behind it: refused (ALPACA)', async () => {
      const direct = 'sslmode=require&sslnegotiation=direct';
      assert.equal(await login(`${uriOf('scram')}?${direct}`), 'scram');
      const { private: key, cert } = await certificate();
      const other = tls.createServer({ key, cert }, (socket) => void socket.on('error', () => {}));
      await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
      const { port } = other.address() as net.AddressInfo;
      await assert.rejects(login(`${uriOf('scram', PASSWORD, port)}?${direct}`), { code: '08P01', message: /ALPN/ });
      other.close();
    });

    it('answers the request for TLS with more than its one byte: refused (CVE-2021-23222)', async () => {
      script = (_chunk, socket) => void socket.write(Buffer.concat([Buffer.from('S'), authentication(0), READY]));
      await assert.rejects(login(`${uri}?sslmode=require`), { code: '08P01' });
    });

    it('sends its messages byte by byte: works', async () => {
      const answer = Buffer.concat([
        message('N', Buffer.from('SNOTICE\0Mhello\0\0')),
        authentication(0),
        message('S', Buffer.from('server_version\x0018\0')),
        message('K', Buffer.from([0, 0, 0, 1, 0, 0, 0, 2])),
        READY,
      ]);
      script = (_chunk, socket, n) => {
        if (n > 0) return void socket.end(message('E', Buffer.from('SERROR\0VERROR\0CXX123\0Mcame so far\0\0')));
        const write = (index: number) =>
          socket.write(answer.subarray(index, index + 1), () => {
            if (index + 1 < answer.length) setImmediate(write, index + 1);
          });
        socket.setNoDelay(true);
        write(0);
      };
      await assert.rejects(login(uri), { code: /^(XX123|CONNECTION_CLOSED)$/ });
    });
  });

  it('a certificate is compared with the host, also where that is an address', async () => {
    const uri = uriOf('scram');
    const { cert: other } = await certificate();
    const cert = await writeCertificate(server);
    await sql`select pg_reload_conf()`;
    const at = (host: string) => `${uri.replace('127.0.0.1', host)}?hostaddr=127.0.0.1`;
    while ((await login(at('localhost'), { ssl: { ca: cert } }).catch((error) => error.code)) !== 'scram');
    for (const host of ['db.example.com', '192.0.2.1', '[2001:db8::1]']) {
      await assert.rejects(login(at(host), { ssl: { ca: cert } }), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
      await assert.rejects(login(at(host), { ssl: { ca: other } }), { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' });
    }
  });
});
