/** The PostgreSQL that specs and example start is for them alone, and a killed process leaves none behind. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { privateFolder, temporaryFolder } from '../support/folders.js';
import { isReachable } from '../support/postgres-binaries.js';
import { PASSWORD, PostgresServer } from '../support/postgres-server.js';

const SCRIPT = path.join(import.meta.dirname, '../support/server-process.ts');

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(50);
}

describe('PostgresServer', () => {
  describe('running', () => {
    let server: PostgresServer;

    before(async () => {
      server = await PostgresServer.start({ settings: { fsync: 'off' } });
    });
    after(() => server.close());

    it('lets nobody in without the password', async () => {
      for (const password of ['', 'postgres', PASSWORD.toUpperCase()]) {
        const uri = Object.assign(new URL(server.uri), { password });
        const sql = postgres(uri.href, { max: 1 });
        await assert.rejects(sql`select`, { code: '28P01' });
        await sql.end();
      }
      const sql = postgres(server.uri, { max: 1 });
      const [{ stored }] =
        await sql`select rolpassword like 'SCRAM-SHA-256$%' as stored from pg_authid where rolname = 'postgres'`;
      assert(stored);
      await sql.end();
    });

    it('shows the password in no command line', () => {
      if (!fs.existsSync('/proc/self/cmdline')) return;
      for (const pid of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
        let line = '';
        try {
          line = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        } catch {
          // It has ended meanwhile.
        }
        assert(!line.includes(PASSWORD), line);
      }
    });

    it('has its data and its log where only one user can write', () => {
      const folder = path.dirname(server.dataDir);
      const own = process.getuid?.();
      const { uid: serverUid } = fs.statSync(server.dataDir);
      assert.equal(fs.statSync(server.dataDir).mode & 0o077, 0);
      for (const file of [folder, `${server.dataDir}.log`]) {
        assert.equal(fs.lstatSync(file).uid, own);
        assert.equal(fs.lstatSync(file).mode & 0o066, 0);
      }
      server.writeFile('written', 'a text');
      const written = path.join(server.dataDir, 'written');
      assert.equal(fs.readFileSync(written, 'utf8'), 'a text');
      assert.equal(fs.statSync(written).uid, serverUid);
      assert.equal(fs.statSync(written).mode & 0o077, 0);
    });

    it('writes as root through no symbolic link that the server’s user has planted', () => {
      if (process.getuid?.() !== 0) return;
      const target = path.join(temporaryFolder(), 'of root');
      fs.writeFileSync(target, 'as it was', { mode: 0o600 });
      const { uid, gid } = fs.statSync(server.dataDir);
      const link = path.join(server.dataDir, 'server.key');
      fs.symlinkSync(target, link);
      fs.lchownSync(link, uid, gid);
      assert.throws(() => server.writeFile('server.key', 'a key'));
      assert.equal(fs.readFileSync(target, 'utf8'), 'as it was');
    });
  });

  it('keeps data in no folder in which others can write', () => {
    const folder = path.join(temporaryFolder(), 'kept');
    privateFolder(folder);
    privateFolder(folder);
    fs.chmodSync(folder, 0o777);
    assert.throws(() => privateFolder(folder), /Others can write in .*chmod go-w/);
    fs.chmodSync(folder, 0o711);
    if (process.getuid?.() !== 0) return;
    fs.chownSync(folder, 65534, 65534);
    assert.throws(() => privateFolder(folder), /belongs to another user/);
  });

  it('knows whether another user may enter a folder', () => {
    const folder = temporaryFolder();
    fs.mkdirSync(path.join(folder, 'open', 'inside'), { recursive: true, mode: 0o755 });
    fs.chmodSync(folder, 0o755);
    assert(isReachable(path.join(folder, 'open', 'inside')));
    fs.chmodSync(path.join(folder, 'open'), 0o700);
    assert(!isReachable(path.join(folder, 'open', 'inside')));
  });

  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    it(`is stopped, and its folder removed, after ${signal} for the process that started it`, async () => {
      const child = spawn(process.execPath, ['--import', 'tsx', SCRIPT], { stdio: ['ignore', 'pipe', 'inherit'] });
      const [line] = await once(child.stdout, 'data');
      const { uri, dataDir } = JSON.parse(String(line));
      const port = Number(new URL(uri).port);
      assert(await accepts(port));
      child.kill(signal);
      await until(async () => !(await accepts(port)));
      await until(() => !fs.existsSync(path.dirname(dataDir)));
    });
  }
});
