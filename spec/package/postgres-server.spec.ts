/** A killed process leaves no PostgreSQL behind. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

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
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    it(`is stopped, and its folder removed, after ${signal} for the process that started it`, async () => {
      const child = spawn(process.execPath, ['--import', 'tsx', SCRIPT], { stdio: ['ignore', 'pipe', 'inherit'] });
      const [line] = await once(child.stdout, 'data');
      const { port, dataDir } = JSON.parse(String(line));
      assert(await accepts(port));
      child.kill(signal);
      await until(async () => !(await accepts(port)));
      await until(() => !fs.existsSync(path.dirname(dataDir)));
    });
  }
});
