/**
 * The example app works in a real browser: two devices, the race, the keyboard alone, a narrow
 * screen.
 */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import pg from 'pg';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { createApp, type Example, tableNames } from '../../example/app.js';
import { freshTable, postgresUri, sqlClient } from '../support/postgres.js';
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

describe('the example app in a browser', () => {
  const table = freshTable();
  const complaints: string[] = [];
  let example: Example;
  let server: http.Server;
  let browser: Browser;
  let pool: pg.Pool;
  let url: string;

  before(async function () {
    skipWithoutTools.call(this);
    const executablePath = findChromium();
    if (!executablePath) {
      assert(!process.env.CI, 'CI must have chromium');
      console.log('      no chromium on the PATH: the browser specs are pending');
      this.skip();
    }
    pool = new pg.Pool({ connectionString: await postgresUri() });
    example = await createApp({ sql: await sqlClient(), pool, secret: 'a secret of the spec', table, turnMs: 50 });
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
    await pool.end();
    await sql`drop table if exists ${sql(Object.values(tableNames(table)))}`;
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

  it('signs out all other devices, whose pages say so at once', async () => {
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

    // Nobody has clicked there.
    await two.getByText('You were signed out on another device.').waitFor();
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

  it('says nothing of another device where the page itself signs out', async () => {
    const page = await open();
    await signIn(page);
    await page.getByRole('button', { name: 'Sign out', exact: true }).click();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    assert.equal(await page.getByText('on another device').count(), 0);
  });

  it('says at once that the session has expired', async () => {
    const page = await open();
    const watched = page.waitForResponse((response) => response.url().endsWith('/session-end'));
    await signIn(page);
    await watched;
    const sql = await sqlClient();
    await sql`update ${sql(table)} set expires_at = now() where user_id = 'ada'`;
    await page.getByText('Your session has expired.').waitFor();
  });

  it('says so also where the session ended before the page could wait for that', async () => {
    const page = await open();
    const sql = await sqlClient();
    await page.route('**/session-end', async (route) => {
      await sql`delete from ${sql(table)} where user_id = 'ada'`;
      await route.continue();
    });
    await signIn(page);
    await page.getByText('You are signed out.').waitFor();
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  });

  it('signs out for good, where a late request to the other stores signs in again', async () => {
    const page = await open();
    await page.getByRole('button', { name: 'Sign out during a request' }).click();
    await page.locator('[data-late=PgStore]', { hasText: 'signed out for good' }).waitFor();
    for (const other of ['MemoryStore', 'connect-pg-simple']) {
      await page.locator(`[data-late=${other}]`, { hasText: 'signed in again as ada' }).waitFor();
    }
  });

  it('keeps 20 of 20 parallel writes, where the other stores do not', async () => {
    const page = await open();
    await page.getByRole('button', { name: 'Send 20 parallel writes' }).click();
    await page.locator('[data-store=PgStore]', { hasText: 'kept 20 of 20' }).waitFor();
    assert.equal(await page.locator('[data-store=PgStore] .kept').count(), 20);
    for (const other of ['MemoryStore', 'connect-pg-simple']) {
      const text = (await page.locator(`[data-store=${other}] output`).textContent()) ?? '';
      const [, kept] = /^kept (\d+) of 20$/.exec(text) ?? [];
      assert(Number(kept) < 20, `${other}: ${text}`);
      assert.equal(await page.locator(`[data-store=${other}] .kept`).count(), Number(kept));
    }
  });

  it('draws the speed of the stores live, with values at the axes', async () => {
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
    const percent = String.raw`\d+ % of %s \(quartiles \d+–\d+ %\)`;
    const of = (store: string) => percent.replace('%s', store);
    await page.getByText(new RegExp(`Median: PgStore at ${of('MemoryStore')}, ${of('connect-pg-simple')}`)).waitFor();
    const [top, half, zero] = await page.locator('.rates li').allInnerTexts();
    const numberOf = (text: string) => Number(text.replaceAll(',', ''));
    assert.equal(zero, '0');
    assert.equal(numberOf(half), numberOf(top) / 2);
    for (const text of await page.locator('#speed dd').allInnerTexts()) {
      assert(numberOf(text.replace(' / s', '')) <= numberOf(top), `${text}, axis ${top}`);
    }
  });

  it('says of a time that it is in UTC', async () => {
    const page = await open({ timezoneId: 'Asia/Tokyo' });
    const time = page.locator('#rows time').first();
    const at = await time.getAttribute('datetime');
    assert.equal(await time.innerText(), `${at?.slice(0, 16).replace('T', ' ')} UTC`);
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
    await page.getByText('kept 20 of 20').waitFor();
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
      await page.getByText('kept 20 of 20').waitFor();
      assert.equal(await page.evaluate('document.documentElement.scrollWidth'), 360);
      assert(contrast(await colours(page, 'small')) >= 4.5, 'quiet text');
      assert(contrast(await colours(page, 'button.main')) >= 4.5, 'main button');
      for (const store of ['PgStore', 'MemoryStore', 'connect-pg-simple']) {
        assert(contrast(await colours(page, `#race .${store}`)) >= 4.5, store);
      }
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
