/**
 * Takes docs/screenshot.png: `npx tsx spec/tools/screenshot.ts`, with chromium on the PATH and the
 * machine idle.
 */

import { execFileSync } from 'node:child_process';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import pg from 'pg';
import { chromium, type Page } from 'playwright-core';
import postgres from 'postgres';
import { createApp } from '../../example/app.js';
import { PostgresServer } from '../support/postgres-server.js';

const FILE = path.resolve(import.meta.dirname, '../../docs/screenshot.png');
const PHONE = 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Safari/604.1';
const FIREFOX = 'Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0';

const database = await PostgresServer.start();
const sql = postgres(database.uri, { onnotice: () => {} });
const pool = new pg.Pool({ connectionString: database.uri });
const example = await createApp({ sql, pool, secret: 'for a picture' });
const server = http.createServer(example.app);
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
const browser = await chromium.launch({
  executablePath: execFileSync('which', ['chromium'], { encoding: 'utf8' }).trim(),
  args: ['--headless', '--disable-gpu', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
});
try {
  await device('ada', 'engine', PHONE);
  await device('ada', 'engine', FIREFOX);
  await device('grace', 'compiler', FIREFOX);
  const page = await device('ada', 'engine');
  await page.getByRole('button', { name: 'Add cheese' }).click();
  await page.getByRole('button', { name: 'Add apples' }).click();
  await page.getByRole('button', { name: 'Send 20 parallel writes' }).click();
  await page.locator('.kept').first().waitFor();
  await page.getByRole('button', { name: 'Measure' }).click();
  await page.getByText('Median').waitFor({ timeout: 120_000 });
  await page.mouse.move(0, 0);
  await page.getByText('Median').click();
  await page.screenshot({ path: FILE, fullPage: true });
  console.log(await page.getByText('Median').textContent());
} finally {
  await browser.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await example.close();
  await sql.end();
  await pool.end();
  await database.close();
}

async function device(name: string, password: string, userAgent?: string): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 1180, height: 900 }, ...(userAgent && { userAgent }) });
  const page = await context.newPage();
  await page.goto(url);
  await page.getByLabel('Name').fill(name);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.locator('#devices').waitFor();
  return page;
}
