/**
 * The example app works in a real browser: two devices, the race, the keyboard alone, a narrow
 * screen.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { createApp, type Example } from '../../example/app.js';
import { freshTable, sqlClient } from '../support/postgres.js';
import { skipWithoutTools } from '../support/tools.js';

const FLAGS = [
  '--headless',
  ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

function findChromium(): string | undefined {
  return (process.env.PATH ?? '')
    .split(path.delimiter)
    .flatMap((folder) => ['chromium', 'chromium-browser', 'google-chrome'].map((name) => path.join(folder, name)))
    .find((file) => fs.existsSync(file));
}

describe('the example app in a browser', function () {
  this.timeout(120_000);

  const table = freshTable();
  const complaints: string[] = [];
  let example: Example;
  let server: http.Server;
  let browser: Browser;
  let url: string;

  before(async function () {
    skipWithoutTools.call(this);
    const executablePath = findChromium();
    if (!executablePath) {
      assert(!process.env.CI, 'CI must have chromium');
      console.log('      no chromium on the PATH: the browser specs are pending');
      this.skip();
    }
    example = await createApp({ sql: await sqlClient(), secret: 'a secret of the spec', table });
    server = http.createServer(example.app);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const { chromium } = await import('playwright-core');
    browser = await chromium.launch({ executablePath, args: FLAGS });
  });

  afterEach(async () => {
    for (const context of browser?.contexts() ?? []) await context.close();
    assert.deepEqual(complaints.splice(0), []);
  });

  after(async () => {
    await browser?.close();
    if (server) await new Promise((resolve) => server.close(resolve));
    if (!example) return;
    await example.close();
    const sql = await sqlClient();
    await sql`drop table ${sql(table)}, ${sql(`${table}_lab`)}`;
  });

  /**
   * A device of its own: nothing shared with others, and every complaint in its console is
   * remembered.
   */
  async function open(options: BrowserContextOptions = {}): Promise<Page> {
    const page = await (await browser.newContext(options)).newPage();
    page.setDefaultTimeout(60_000);
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(String(error)));
    await page.goto(url);
    return page;
  }

  async function signIn(page: Page): Promise<void> {
    await page.getByLabel('Name').fill('ada');
    await page.getByLabel('Password').fill('engine');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('Signed in as Ada').waitFor();
  }

  const devices = (page: Page) => page.locator('#devices li').allInnerTexts();

  it('signs out all other devices: they are out at their next click', async () => {
    const [one, two] = [await open({ userAgent: 'Firefox on Windows' }), await open({ userAgent: 'iPhone Safari' })];
    await signIn(one);
    await signIn(two);
    await one.reload();
    assert.equal((await devices(one)).length, 2);
    assert.match((await devices(one)).join(), /Firefox on Windows\s+this one/);
    assert.match((await devices(one)).join(), /Safari on iPhone\s+active/);

    await one.getByRole('button', { name: 'Sign out all others (1)' }).click();
    await one.getByText('1 other device signed out.').waitFor();
    assert.equal((await devices(one)).length, 1);

    await two.getByRole('button', { name: 'Add bread' }).click();
    await two.getByRole('heading', { name: 'Sign in' }).waitFor();
    await one.reload();
    await one.getByText('Signed in as Ada').waitFor();
  });

  it('signs out one device', async () => {
    const [one, two] = [await open({ userAgent: 'Firefox' }), await open({ userAgent: 'Safari' })];
    await signIn(one);
    await signIn(two);
    await one.reload();
    await one.getByRole('button', { name: 'Sign out Safari' }).click();
    await one.getByText('That device is signed out.').waitFor();
    await two.reload();
    await two.getByRole('heading', { name: 'Sign in' }).waitFor();
    await one.reload();
    await one.getByText('Signed in as Ada').waitFor();
  });

  it('keeps the cart while signing in, and tells a wrong password', async () => {
    const page = await open();
    await page.getByRole('button', { name: 'Add cheese' }).click();
    await page.getByText('1 item', { exact: true }).waitFor();
    await page.getByLabel('Name').fill('ada');
    await page.getByLabel('Password').fill('steam');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').waitFor();
    await signIn(page);
    await page.getByText('1 item', { exact: true }).waitFor();
    assert.match(
      (await page.locator('#rows .this-one [data-column=data]').textContent()) ?? '',
      /"cart":\{"cheese":1\}/,
    );
  });

  it('keeps 20 of 20 parallel writes, where MemoryStore does not', async () => {
    const page = await open();
    await page.getByRole('button', { name: 'Send 20 parallel writes' }).click();
    await page.locator('[data-store=PgStore]', { hasText: '20 of 20 kept' }).waitFor();
    assert.equal(await page.locator('[data-store=PgStore] .kept').count(), 20);
    const others = (await page.locator('[data-store=MemoryStore] output').textContent()) ?? '';
    assert(Number.parseInt(others, 10) < 20, others);
  });

  it('draws the speed of both stores live', async () => {
    const page = await open();
    await page.getByLabel('changes it').check();
    await page.getByRole('button', { name: 'Measure' }).click();
    const drawn = (points: number) =>
      page.waitForFunction((least) => {
        const lines: any[] = [...(globalThis as any).document.querySelectorAll('polyline')];
        return lines.every((line) => line.points.length >= least);
      }, points);
    await drawn(3);
    assert.equal(await page.getByText('Measuring…').count(), 1);
    await drawn(11);
    await page.getByText(/Median: PgStore at \d+ % of MemoryStore/).waitFor();
  });

  it('works by keyboard alone', async () => {
    const page = await open();
    const focused = () =>
      page.evaluate<string>("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent");
    const tabTo = async (name: string) => {
      for (let presses = 0; presses < 30; presses++) {
        await page.keyboard.press('Tab');
        if ((await focused()).startsWith(name)) return;
      }
      assert.fail(`Tab does not reach '${name}'`);
    };
    await page.keyboard.press('Tab');
    await page.keyboard.type('ada');
    await page.keyboard.press('Tab');
    await page.keyboard.type('engine');
    await page.keyboard.press('Enter');
    await page.getByText('Signed in as Ada').waitFor();
    await tabTo('Add apples');
    const outline = await page.evaluate('getComputedStyle(document.activeElement).outlineStyle');
    assert.equal(outline, 'solid');
    await page.keyboard.press('Enter');
    await page.getByText('1 item', { exact: true }).waitFor();
    await tabTo('Send 20');
    await page.keyboard.press('Space');
    await page.getByText('20 of 20 kept').waitFor();
    await page.goto(url);
    await tabTo('Sign out');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  });

  for (const colorScheme of ['light', 'dark'] as const) {
    it(`fits a screen 360 px wide, in ${colorScheme} colours with enough contrast`, async () => {
      const page = await open({ viewport: { width: 360, height: 740 }, colorScheme });
      await signIn(page);
      await page.getByRole('button', { name: 'Send 20 parallel writes' }).click();
      await page.getByText('20 of 20 kept').waitFor();
      assert.equal(await page.evaluate('document.documentElement.scrollWidth'), 360);
      assert(contrast(await colours(page, 'small')) >= 4.5, 'quiet text');
      assert(contrast(await colours(page, 'button.main')) >= 4.5, 'main button');
      assert(contrast(await colours(page, '#race .MemoryStore')) >= 4.5, 'coloured text');
    });
  }

  it('takes nothing from another site', async () => {
    const page = await open();
    await signIn(page);
    const stranger = http.createServer((_, response) => {
      response.setHeader('content-type', 'text/html');
      response.end(`<form method="post" action="${url}/sign-out"><button>Win a prize</button></form>`);
    });
    await new Promise<void>((resolve) => stranger.listen(0, '127.0.0.1', resolve));
    try {
      const other = await page.context().newPage();
      await other.goto(`http://127.0.0.1:${(stranger.address() as AddressInfo).port}`);
      await other.getByRole('button').click();
      await other.getByText('did not come from this page').waitFor();
    } finally {
      stranger.closeAllConnections();
      await new Promise((resolve) => stranger.close(resolve));
    }
    await page.reload();
    await page.getByText('Signed in as Ada').waitFor();
  });
});

/** The colours of an element's text and of what is behind it, as [red, green, blue]. */
function colours(page: Page, selector: string): Promise<number[][]> {
  return page.evaluate(`{
    const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
    const element = document.querySelector(${JSON.stringify(selector)});
    let behind = element;
    while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
    [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor].map((colour) => numbers(colour).slice(0, 3));
  }`);
}

/** WCAG 2: contrast ratio of two colours. */
function contrast([one, two]: number[][]): number {
  const luminance = (colour: number[]) => {
    const [red, green, blue] = colour.map((value) =>
      value <= 10.31475 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const [dark, light] = [luminance(one), luminance(two)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}
