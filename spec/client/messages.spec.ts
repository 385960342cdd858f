/** What a server sends once a connection has started: fit messages are handed on whole, others end the connection. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { MessageFilter } from '../../lib/client/messages.js';
import { runNode } from '../support/child.js';

function message(type: string, body: Buffer | string = ''): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(Buffer.byteLength(body) + 4);
  return Buffer.concat([Buffer.from(type), length, Buffer.from(body)]);
}

const ACCEPTED = message('R', Buffer.alloc(4));
const KEY = message('K', Buffer.from([0, 0, 0, 1, 0, 0, 0, 2]));
const READY = message('Z', 'I');
const COLUMN = Buffer.concat([Buffer.from('name\0'), Buffer.alloc(18)]);
const ROW_DESCRIPTION = message('T', Buffer.concat([Buffer.from([0, 2]), COLUMN, COLUMN]));

/** Each would end the process in Postgres.js, keep it busy for ever, ask for the password or print something. */
const UNFIT: Record<string, Buffer> = {
  'a request for the password': message('R', Buffer.from([0, 0, 0, 3])),
  'a request for an MD5 hash': message('R', Buffer.from([0, 0, 0, 5, 1, 2, 3, 4])),
  'a malformed message of SCRAM': message('R', Buffer.from('\0\0\0\x0bgarbage')),
  'a billion iterations of SCRAM': message('R', Buffer.from('\0\0\0\x0br=x,s=c2FsdA==,i=1000000000')),
  'an unknown way to authenticate': message('R', Buffer.from([0, 0, 0, 99])),
  'a request to authenticate that ends early': message('R'),
  'a suspended portal': message('s'),
  'a copy to the client': message('H', Buffer.from([0, 0, 0])),
  'a copy from the client': message('G', Buffer.from([0, 0, 0])),
  'a copy in both directions': message('W', Buffer.from([0, 0, 0])),
  'a column whose name does not end': message('T', Buffer.from([0, 1, 65, 65])),
  'a column without its fields': message('T', Buffer.from([0, 1, 65, 0])),
  'a row description without a number': message('T'),
  'more columns than there are': message('T', Buffer.concat([Buffer.from([0, 2]), COLUMN])),
  'fewer columns than there are': message('T', Buffer.concat([Buffer.from([0, 1]), COLUMN, COLUMN])),
  'a key that ends early': message('K', Buffer.from([0, 0, 0, 1])),
  'an unknown message': message('?'),
  'another protocol': Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
  'a length of 0': Buffer.from([0x5a, 0, 0, 0, 0]),
  'a length of 4 GB': Buffer.from([0x44, 0xff, 0xff, 0xff, 0xff]),
};

describe('messages of the server', () => {
  it('come whole and in order, however they were cut', () => {
    const fit = fc.oneof(
      fc.constantFrom(ACCEPTED, KEY, READY, ROW_DESCRIPTION),
      fc
        .tuple(fc.constantFrom(...'12ACDEINSnt'), fc.uint8Array({ maxLength: 40 }))
        .map(([type, body]) => message(type, Buffer.from(body))),
    );
    fc.assert(
      fc.property(fc.array(fit, { maxLength: 8 }), fc.array(fc.nat(300)), (messages, cuts) => {
        const bytes = Buffer.concat(messages);
        const ends = messages.map((_, n) => Buffer.concat(messages.slice(0, n + 1)).length);
        const filter = new MessageFilter();
        let handedOn = 0;
        let start = 0;
        for (const end of [...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length]) {
          const whole = filter.take(bytes.subarray(start, end)) ?? Buffer.alloc(0);
          assert.deepEqual(whole, bytes.subarray(handedOn, handedOn + whole.length));
          handedOn += whole.length;
          start = end;
          assert.equal(handedOn, Math.max(0, ...ends.filter((one) => one <= end)));
        }
      }),
    );
  });

  for (const [name, bad] of Object.entries(UNFIT)) {
    it(`${name}: refused, whatever came before, and however it is cut`, () => {
      assert.throws(() => new MessageFilter().take(bad), { code: '08P01' });
      assert.throws(() => new MessageFilter().take(Buffer.concat([READY, bad, READY])), { code: '08P01' });
      const filter = new MessageFilter();
      assert.throws(
        () => {
          for (let n = 0; n < bad.length; n++) filter.take(bad.subarray(n, n + 1));
        },
        { code: '08P01' },
      );
    });
  }

  it('that are not fit fail the call, and neither end nor block the process, print, or get the password', async () => {
    const unfit = Object.entries(UNFIT).map(([name, bytes]) => [name, bytes.toString('hex')]);
    const start = Buffer.concat([ACCEPTED, KEY, READY]).toString('hex');
    const { code, stdout, stderr } = await runNode(
      `import net from 'node:net';
      import { once } from 'node:events';
      import { PgStore } from './lib/index.js';
      const start = Buffer.from('${start}', 'hex');
      let answer, received;
      const server = net.createServer((socket) => {
        let n = 0;
        socket.on('error', () => {}).on('data', (chunk) => {
          received += chunk.toString('latin1');
          const bytes = answer(n++);
          if (bytes) socket.write(bytes);
        });
      });
      await once(server.listen(0, '127.0.0.1'), 'listening');
      const uri = 'postgres://me@127.0.0.1:' + server.address().port + '/db';
      for (const [name, hex] of ${JSON.stringify(unfit)}) {
        const bad = Buffer.from(hex, 'hex');
        const places = {
          'with the start': (n) => n === 0 && Buffer.concat([start, bad]),
          'in place of an answer': (n) => (n === 0 ? start : n === 1 && bad),
          'twice, before an error': (n) => (n === 0 ? start : Buffer.concat([bad, bad, Buffer.from('E\\0\\0\\0\\x05\\0')])),
        };
        for (const place in places) {
          answer = places[place];
          received = '';
          const store = new PgStore({ uri, autodelete: false, retry: { attempts: 1 } });
          const code = await store.get('a').then(() => 'answered', (error) => error.code);
          await store.close();
          if (code !== '08P01' || received.includes('secret of the environment')) console.log(name, place, code, received);
        }
      }
      server.close();`,
      { env: { PGPASSWORD: 'secret of the environment' } },
    );
    assert.deepEqual([code, stdout, stderr], [0, '', '']);
  });
});
