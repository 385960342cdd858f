/** Each program in examples/ does what it shows. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import connectPgSimple from 'connect-pg-simple';
import { sign } from 'cookie-signature';
import session from 'express-session';
import pg from 'pg';
import { io, type Socket } from 'socket.io-client';
import { WebSocket } from 'ws';
import { PgStore } from '../../lib/index.js';
import { documented } from '../support/docs.js';
import { eventually } from '../support/eventually.js';
import { ExampleProgram } from '../support/example-program.js';
import { KeepAliveClients } from '../support/keep-alive-clients.js';
import { PostgresServer } from '../support/postgres-server.js';
import { plain } from '../support/sessions.js';

const FOLDER = path.resolve(import.meta.dirname, '../../examples');
const SECRET = 'for trying it out only';

describe('examples/', () => {
  let server: PostgresServer;
  let pool: pg.Pool;
  const programs: ExampleProgram[] = [];
  const ran = new Set<string>();

  before(async () => {
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
    pool = new pg.Pool({ connectionString: server.uri });
    pool.on('error', () => {});
  });
  afterEach(async () => {
    for (const program of programs.splice(0)) await program.stop();
    await pool.query('drop table if exists sessions, session');
  });
  after(async () => {
    await pool.end();
    await server.close();
  });

  async function start(file: string, variables: NodeJS.ProcessEnv = {}): Promise<ExampleProgram> {
    ran.add(file);
    const program = await ExampleProgram.start(file, server.uri, variables);
    programs.push(program);
    return program;
  }

  it('minimal.ts counts views', async () => {
    const { url } = await start('minimal.ts');
    const first = await fetch(url);
    assert.equal(await first.text(), 'You were here 1 times.');
    const second = await fetch(url, { headers: { cookie: cookieOf(first) } });
    assert.equal(await second.text(), 'You were here 2 times.');
    assert.equal(await (await fetch(url)).text(), 'You were here 1 times.');
  });

  it('fastify.ts keeps what parallel requests put into a cart, and ends it at the logout', async () => {
    const { url } = await start('fastify.ts');
    const first = await fetch(`${url}/cart/pear`, { method: 'POST' });
    const headers = { cookie: cookieOf(first) };
    const post = (route: string) => fetch(url + route, { method: 'POST', headers });
    const items = Array.from({ length: 10 }, (_, n) => `item${n}`);
    await Promise.all(items.map((item) => post(`/cart/${item}`)));
    const cart = (await (await fetch(`${url}/cart`, { headers })).json()) as object;
    assert.deepEqual(Object.keys(cart).sort(), [...items, 'pear'].sort());
    await post('/logout');
    assert.deepEqual(await (await fetch(`${url}/cart`, { headers })).json(), {});
  });

  it('passport-devices.ts lists a user’s devices, and signs them out', async () => {
    const { url } = await start('passport-devices.ts');
    const signIn = async (browser: string, password = 'engine') => {
      const body = JSON.stringify({ username: 'ada', password });
      const headers = { 'content-type': 'application/json', 'user-agent': browser };
      return fetch(`${url}/sign-in`, { method: 'POST', headers, body });
    };
    const as = async (cookie: string, method: string, route: string) =>
      fetch(url + route, { method, headers: { cookie } });
    assert.equal((await signIn('any', 'steam')).status, 401);
    assert.equal((await fetch(`${url}/devices`)).status, 401);
    const one = cookieOf(await signIn('one'));
    const two = cookieOf(await signIn('two'));
    const three = cookieOf(await signIn('three'));
    const devices = (await (await as(one, 'GET', '/devices')).json()) as { handle: string; browser: string }[];
    assert.deepEqual(devices.map(({ browser }) => browser).sort(), ['one', 'three', 'two']);
    const { handle } = devices.find(({ browser }) => browser === 'two') as { handle: string };
    assert.equal((await as(one, 'POST', `/devices/${handle}/sign-out`)).status, 204);
    assert.equal((await as(one, 'POST', `/devices/${handle}/sign-out`)).status, 404);
    assert.equal((await as(two, 'GET', '/devices')).status, 401);
    assert.deepEqual(await (await as(one, 'POST', '/sign-out-others')).json(), { ended: 1 });
    assert.equal((await as(three, 'GET', '/devices')).status, 401);
    assert.equal((await as(one, 'GET', '/devices')).status, 200);
  });

  it('admin-list.ts shows who is signed in, and signs a user out', async () => {
    const { url } = await start('admin-list.ts', { ADMIN_TOKEN: 'a token' });
    await using store = new PgStore({ uri: server.uri, user: ({ userId }) => userId, autodelete: false });
    for (const [sid, userId] of Object.entries({ a: 'ada', b: 'ada', c: 'grace' }))
      await store.set(sid, plain({ userId }));
    await store.set('d', plain());
    assert.equal((await fetch(`${url}/sessions`)).status, 401);
    const headers = { authorization: 'Bearer a token' };
    const asAdmin = async (method: string, route: string) => (await fetch(url + route, { method, headers })).json();
    assert.deepEqual(await asAdmin('GET', '/sessions'), { total: 4, users: { ada: 2, grace: 1 } });
    const [listed] = (await asAdmin('GET', '/users/ada/sessions')) as object[];
    assert.deepEqual(Object.keys(listed), ['handle', 'createdAt', 'lastSeenAt', 'expiresAt']);
    assert.deepEqual(await asAdmin('DELETE', '/users/ada/sessions'), { ended: 2 });
    assert.deepEqual(await asAdmin('GET', '/sessions'), { total: 2, users: { grace: 1 } });
  });

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`cluster.ts ends by itself after ${signal}, with code 0, while clients go on, and fails no request`, async () => {
      const program = await start('cluster.ts');
      await program.says(/process \d+\n.*process \d+/);
      const clients = new KeepAliveClients(program.url, 8);
      await eventually(() => clients.answers > 50);
      assert.equal(await program.stop(signal), 0);
      await clients.stop();
      assert.deepEqual(clients.refusals, []);
      // Each request begins a session, which is stored before the answer.
      const { rows } = await pool.query('select count(*)::int as sessions from sessions');
      assert.equal(rows[0].sessions, clients.answers);
    });
  }

  it('from-connect-pg-simple.ts signs nobody out, and takes over the sessions of those who do not come', async () => {
    const old = new (connectPgSimple(session))({ pool, createTableIfMissing: true, pruneSessionInterval: false });
    const call = (work: (done: (error?: unknown) => void) => void) =>
      new Promise<void>((resolve, reject) => work((error) => (error ? reject(error) : resolve())));
    const sids = Array.from({ length: 1500 }, (_, n) => `old${n}`);
    for (const sid of sids) await call((done) => old.set(sid, plain({ views: 6 }), done));
    await call((done) => old.destroy('old1', done));
    await pool.query(`update session set expire = now() - interval '1 hour' where sid = 'old2'`);

    const program = await start('from-connect-pg-simple.ts');
    const visit = async (sid: string) => {
      const cookie = `connect.sid=${encodeURIComponent(`s:${sign(sid, SECRET)}`)}`;
      return (await fetch(program.url, { headers: { cookie } })).text();
    };
    assert.equal(await visit('old0'), 'You were here 7 times.');
    assert.equal(await visit('old1'), 'You were here 1 times.');
    await program.says(/sessions were taken over/);
    assert.equal(await visit('old0'), 'You were here 8 times.');
    assert.equal(await visit('old2'), 'You were here 1 times.');
    assert.equal(await visit('old1499'), 'You were here 7 times.');
    const { rows } = await pool.query(
      `select count(*)::int as count from sessions where sid like 'old%' and expires_at > now()`,
    );
    assert.equal(rows[0].count, 1498);
  });

  /** Two processes of a program with sign-in, and two visitors. */
  async function signedIn(file: string) {
    const [here, there] = [await start(file), await start(file)];
    const post = (program: ExampleProgram, route: string, cookie = '') =>
      fetch(program.url + route, { method: 'POST', headers: { cookie } });
    const cookie = cookieOf(await post(here, '/sign-in/ada'));
    const other = cookieOf(await post(here, '/sign-in/grace'));
    return { url: here.url, cookie, other, signOut: () => post(there, '/sign-out', cookie) };
  }

  it('socket-io.ts disconnects the sockets of a session that is signed out in another process, and no others', async () => {
    const { url, cookie, other, signOut } = await signedIn('socket-io.ts');
    const connect = (extraHeaders = {}) =>
      io(url, { extraHeaders, transports: ['websocket'], reconnection: false, forceNew: true });
    const [ada, grace, nobody] = [connect({ cookie }), connect({ cookie: other }), connect()];
    const event = (socket: Socket, name: string) =>
      new Promise<unknown>((resolve) => socket.once(name, (argument: unknown) => resolve(argument)));
    try {
      const refused = event(nobody, 'connect_error');
      await Promise.all([event(ada, 'connect'), event(grace, 'connect')]);
      assert.match(String(await refused), /signed out/);
      const gone = event(ada, 'disconnect');
      await signOut();
      assert.equal(await gone, 'io server disconnect');
      const said = event(grace, 'said');
      grace.emit('say', 'hello');
      assert.deepEqual(await said, { user: 'grace', text: 'hello' });
    } finally {
      for (const socket of [ada, grace, nobody]) socket.close();
    }
  });

  it('websocket.ts closes the sockets of a session that is signed out in another process, and no others', async () => {
    const { url, cookie, other, signOut } = await signedIn('websocket.ts');
    const connect = (headers = {}) => new WebSocket(url.replace('http:', 'ws:'), { headers });
    const [ada, grace, nobody] = [connect({ cookie }), connect({ cookie: other }), connect()];
    const [refused] = await once(nobody, 'error');
    assert.match(String(refused), /401/);
    await Promise.all([ada, grace].map((socket) => socket.readyState === socket.OPEN || once(socket, 'open')));
    const gone = once(ada, 'close');
    await signOut();
    const [code, reason] = await gone;
    assert.deepEqual([code, String(reason)], [4401, 'signed out']);
    const answer = once(grace, 'message');
    grace.send('hello');
    assert.equal(String((await answer)[0]), 'grace said hello');
    grace.terminate();
  });

  it('server-sent-events.ts ends the streams of a session that is signed out in another process, and no others', async () => {
    const { url, cookie, other, signOut } = await signedIn('server-sent-events.ts');
    const listen = (of: string) => fetch(`${url}/events`, { headers: { cookie: of } });
    assert.equal((await listen('')).status, 401);
    const [ada, grace] = [await listen(cookie), await listen(other)];
    const text = ada.text();
    await signOut();
    assert.equal(await text, 'event: hello\ndata: ada\n\nevent: signed-out\ndata: destroyed\n\n');
    await grace.body?.cancel();
  });

  it('are all run by this spec, and named in its README', () => {
    // Modules of programs: `cluster.ts` runs the first one, spec/store/diagnostics.spec.ts the other.
    const modules = ['shutdown.ts', 'metrics.ts'];
    const programs = fs.readdirSync(FOLDER).filter((name) => name.endsWith('.ts') && !modules.includes(name));
    assert.deepEqual(
      programs.filter((name) => !ran.has(name)),
      [],
    );
    const readme = fs.readFileSync(path.join(FOLDER, 'README.md'), 'utf8');
    for (const name of fs.readdirSync(FOLDER)) assert(readme.includes(`(${name})`) || name === 'README.md', name);
  });

  it('shutdown.ts is what docs/operations.md shows', () => {
    const code = fs.readFileSync(path.join(FOLDER, 'shutdown.ts'), 'utf8');
    assert.equal(documented('docs/operations.md', 'ts', 'stopOnSignals'), code);
  });
});

/** The cookie that an answer sets, for the next request. */
function cookieOf(response: Response): string {
  const [cookie] = response.headers.get('set-cookie')?.split(';') ?? [];
  assert(cookie, 'no cookie');
  return cookie;
}
