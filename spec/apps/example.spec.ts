/** `npm start` starts, answers, and stops without leaving anything behind. */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import pg from 'pg';
import { createApp, type Example, type ExampleOptions, tableNames } from '../../example/app.js';
import { eventually } from '../support/eventually.js';
import { temporaryFolder } from '../support/folders.js';
import { freshTable, postgresUri, sqlClient } from '../support/postgres.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

interface Run {
  child: ChildProcess;
  output: () => string;
  /** The address it prints; fails if it ends before. */
  address: Promise<string>;
  ended: Promise<number | null>;
}

const runs: Run[] = [];

/** `npm start` in a process group of its own, as a terminal starts it. */
function start(env: NodeJS.ProcessEnv = {}): Run {
  const { DATABASE_URL: _, ...inherited } = process.env;
  const child = spawn('npm', ['start', '--silent'], {
    cwd: ROOT,
    detached: true,
    // npm would otherwise ask the registry for a newer npm before it ends.
    env: { ...inherited, PORT: '0', NPM_CONFIG_UPDATE_NOTIFIER: 'false', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const address = new Promise<string>((resolve, reject) => {
    const read = (text: string) => {
      output += text;
      const [found] = /http:\/\/\S+/.exec(output) ?? [];
      if (found) resolve(found);
    };
    child.stdout?.setEncoding('utf8').on('data', read);
    child.stderr?.setEncoding('utf8').on('data', read);
    void ended.then(() => reject(new Error(`it ended: ${output}`)));
  });
  address.catch(() => {});
  const run = { child, output: () => output, address, ended };
  runs.push(run);
  return run;
}

/** Ctrl-C: the terminal signals the whole group. */
function interrupt({ child }: Run): void {
  process.kill(-(child.pid as number), 'SIGINT');
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe('npm start', () => {
  afterEach(async () => {
    for (const run of runs.splice(0)) {
      if (run.child.exitCode === null && run.child.signalCode === null) interrupt(run);
      await run.ended;
    }
  });

  it('answers on the address it prints, keeps its data, and leaves no process behind after Ctrl-C', async () => {
    const DATA_DIR = temporaryFolder();
    const first = start({ DATA_DIR });
    const response = await fetch(await first.address);
    assert.equal(response.status, 200);
    const cookie = response.headers.get('set-cookie') ?? '';
    assert.match(cookie, /HttpOnly/);
    assert.match(cookie, /SameSite=Lax/);
    const postgres = Number.parseInt(fs.readFileSync(path.join(DATA_DIR, 'postgres', 'postmaster.pid'), 'utf8'), 10);
    assert(isRunning(postgres));
    interrupt(first);
    await first.ended;
    await eventually(() => !isRunning(postgres));
    assert.match(fs.readFileSync(path.join(DATA_DIR, 'postgres.log'), 'utf8'), /database system is shut down\s*$/);
    assert.doesNotMatch(first.output(), /Error|\bat /);

    const second = start({ DATA_DIR });
    const again = await fetch(await second.address, { headers: { cookie: cookie.split(';')[0] } });
    assert.match(await again.text(), /<strong id="views">2</);

    const third = start({ DATA_DIR });
    assert.equal(await third.ended, 1);
    assert.match(third.output(), /Another PostgreSQL uses these data already: process \d+\. Stop that one first\.\n$/);
    assert.equal((await fetch(await second.address)).status, 200);
  });

  it('says that the port is taken, and ends with code 1', async () => {
    const other = http.createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as AddressInfo;
    const DATA_DIR = temporaryFolder();
    try {
      const run = start({ PORT: String(port), DATA_DIR });
      assert.equal(await run.ended, 1);
      assert.equal(run.output(), `Port ${port} is taken. Try another one: PORT=${port + 1} npm start\n`);
      assert.deepEqual(fs.readdirSync(DATA_DIR), []);
    } finally {
      await new Promise((resolve) => other.close(resolve));
    }
  });

  it('uses the server that DATABASE_URL names', async () => {
    const DATA_DIR = temporaryFolder();
    const run = start({ DATA_DIR, DATABASE_URL: await postgresUri(), SESSION_SECRET: 'a secret of the spec' });
    try {
      const response = await fetch(await run.address, { headers: { 'user-agent': 'curl by example.spec' } });
      assert.equal(response.status, 200);
      const sql = await sqlClient();
      const rows = await sql`select data #>> '{device,browser}' as browser from example_sessions`;
      assert(rows.some(({ browser }) => browser === 'curl'));
      assert.deepEqual(fs.readdirSync(DATA_DIR), []);
    } finally {
      interrupt(run);
      await run.ended;
      const sql = await sqlClient();
      await sql`drop table if exists ${sql(Object.values(tableNames()))}`;
    }
  });

  it('says why where DATABASE_URL leads nowhere, without its password', async () => {
    const run = start({ DATABASE_URL: 'postgres://ada:engine@127.0.0.1:1/db', SESSION_SECRET: 'x' });
    assert.equal(await run.ended, 1);
    assert.match(run.output(), /ECONNREFUSED/);
    assert.doesNotMatch(run.output(), /engine|\bat /);
  });
});

describe('the example app', () => {
  /** Runs `work` while the app answers at `url`. The server has to end by itself once the app is closed. */
  async function withExample(
    options: Partial<ExampleOptions>,
    work: (url: string, example: Example) => Promise<void>,
  ): Promise<void> {
    const [sql, table] = [await sqlClient(), freshTable()];
    const pool = new pg.Pool({ connectionString: await postgresUri() });
    const example = await createApp({ sql, pool, secret: 'a secret of the spec', table, ...options });
    const server = http.createServer(example.app);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      await work(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, example);
    } finally {
      await example.close();
      server.closeIdleConnections();
      await new Promise((resolve) => server.close(resolve));
      await pool.end();
      await sql`drop table if exists ${sql(Object.values(tableNames(table)))}`;
    }
  }

  it('takes requests for its own names only, and changes something only for its own pages', async () => {
    await withExample({ hosts: ['shop.example'] }, async (url) => {
      const post = async (headers: Record<string, string>) =>
        (await fetch(`${url}/cart`, { method: 'POST', headers, redirect: 'manual' })).status;
      assert.equal(await post({ 'sec-fetch-site': 'same-origin' }), 303);
      assert.equal(await post({ 'sec-fetch-site': 'same-site', origin: url }), 403);
      assert.equal(await post({ 'sec-fetch-site': 'cross-site', origin: url }), 403);
      assert.equal(await post({ origin: 'https://example.com' }), 403);
      assert.equal(await post({}), 403);
      const page = await fetch(url);
      assert.match(page.headers.get('content-security-policy') ?? '', /default-src 'none'/);
      const text = await page.text();
      assert.doesNotMatch(text, /style=|onclick=|<script>/);
      // A page of another site whose name now leads here (DNS rebinding) would be of the same origin.
      const statusFor = async (host: string) => {
        const request = http.get(url, { headers: { host } });
        const [response] = (await once(request, 'response')) as [http.IncomingMessage];
        response.resume();
        return response.statusCode;
      };
      for (const host of [
        'localhost:3000',
        '127.0.0.1',
        '192.168.1.7:3000',
        '[::1]:3000',
        'shop.example',
        'SHOP.example',
      ]) {
        assert.equal(await statusFor(host), 200, host);
      }
      for (const host of ['evil.example', 'localhost.evil.example:3000', '127.0.0.1.evil.example', 'shop.example.']) {
        assert.equal(await statusFor(host), 421, host);
      }
    });
  });

  it('tells a page whose session has ended before it could wait for that', async () => {
    await withExample({}, async (url) => {
      assert.equal(await (await fetch(`${url}/session-end`)).text(), 'event: ended\ndata: gone\n\n');
      assert.match(await (await fetch(`${url}/?ended=gone`)).text(), /You are signed out\./);
    });
  });

  it('stops while pages are open that wait for the end of their session', async () => {
    await withExample({}, async (url, example) => {
      const signIn = await fetch(`${url}/sign-in`, {
        method: 'POST',
        headers: { origin: url, 'content-type': 'application/x-www-form-urlencoded' },
        body: 'username=ada&password=engine',
        redirect: 'manual',
      });
      const [cookie = ''] = signIn.headers.getSetCookie();
      const page = await fetch(`${url}/session-end`, { headers: { cookie } });
      assert.equal(page.headers.get('content-type'), 'text/event-stream');
      await example.close();
      await assert.rejects(page.text());
    });
  });

  it('shows what visitors wrote as text', async () => {
    const { html } = await import('../../example/html.js');
    const name = `<script>alert("1" & '2')</script>`;
    assert.equal(
      html`<p title="${name}">${[name]}${undefined}${false}${html`<b>${0}</b>`}</p>`.text,
      `<p title="${escaped(name)}">${escaped(name)}<b>0</b></p>`,
    );
  });
});

function escaped(text: string): string {
  const names: Record<string, string> = { '&': '&#38;', '<': '&#60;', '>': '&#62;', '"': '&#34;', "'": '&#39;' };
  return text.replace(/[&<>"']/g, (character) => names[character]);
}
