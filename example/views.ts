/** The page as HTML. */

import type { SessionData } from 'express-session';
import { ACCOUNTS } from './accounts.js';
import type { Device } from './devices.js';
import { type Html, html } from './html.js';
import { type Race, STORES, type StoreName, WRITES } from './lab.js';
import { latePanel } from './late-request.js';

export interface StoredRow {
  sid: string;
  user_id: string | null;
  version: number;
  data: string;
  is_this_one: boolean | null;
  /** Seconds since the row was last written. */
  age: number;
  expires_at: Date;
}

export interface Page {
  /** The name of the user who is signed in. */
  name: string | undefined;
  session: Partial<SessionData>;
  notice: string | undefined;
  /** Whether a sign-in has just failed. */
  wrong: boolean;
  devices: readonly Device[];
  products: readonly string[];
  rows: readonly StoredRow[];
}

export function page({ name, session, notice, wrong, devices, products, rows }: Page): Html {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>express-pg-store</title>
<link rel="icon" href="/favicon.svg">
<link rel="stylesheet" href="/style.css">
<script type="module" src="/speed.js"></script>
${name !== undefined && html`<script type="module" src="/session-end.js"></script>`}
</head>
<body>
<header>
  <h1><img src="/favicon.svg" alt="" width="36" height="36"> express-pg-store</h1>
  <p>This page’s sessions live in PostgreSQL. Yours has seen
    <strong id="views">${session.views ?? 0}</strong> page ${session.views === 1 ? 'view' : 'views'}.</p>
</header>
<main>
${notice !== undefined && html`<p class="notice" role="status">${notice}</p>`}
${name === undefined ? signIn(wrong) : signedIn(name, devices)}
${cart(products, session.cart ?? {})}
${race(session.race)}
${latePanel(session.lateRequest)}
${speed()}
${table(rows)}
</main>
</body>
</html>`;
}

function signIn(wrong: boolean): Html {
  return html`<section id="sign-in">
  <h2>Sign in</h2>
  ${wrong && html`<p class="notice bad" role="alert">That name and password do not go together.</p>`}
  <form method="post" action="/sign-in" class="fields">
    <label>Name <input name="username" autocomplete="username" autocapitalize="none" required></label>
    <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
    <button class="main">Sign in</button>
  </form>
  <p class="hint">Two made-up accounts:
    ${ACCOUNTS.map(({ id, password }, n) => html`${n > 0 && ' and '}<code>${id}</code> with password <code>${password}</code>`)}.
    Sign in from a second browser as well, then look here again.</p>
</section>`;
}

function signedIn(name: string, devices: readonly Device[]): Html {
  const others = devices.filter((device) => !device.isThisOne).length;
  return html`<section id="devices">
  <h2>Your devices</h2>
  <form method="post" action="/sign-out" class="line">
    <p>Signed in as <strong>${name}</strong></p><button>Sign out</button>
  </form>
  <ul>
    ${devices.map(
      ({ handle, browser, lastSeenAt, isThisOne }) => html`<li class="line">
      <p>${browser} <small>${isThisOne ? html`<b class="badge">this one</b>` : `active ${ago(lastSeenAt)}`}</small></p>
      ${!isThisOne && html`<form method="post" action="/devices/${handle}/sign-out"><button aria-label="Sign out ${browser}">Sign out</button></form>`}
    </li>`,
    )}
  </ul>
  <form method="post" action="/devices/sign-out-others">
    <button class="main" ${others === 0 && 'disabled'}>Sign out all others${others > 0 && ` (${others})`}</button>
  </form>
</section>`;
}

function cart(products: readonly string[], counts: Record<string, number>): Html {
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  return html`<section id="cart">
  <h2>Cart <small>${total} ${total === 1 ? 'item' : 'items'}</small></h2>
  <form method="post" action="/cart">
    <ul>
      ${products.map(
        (product) => html`<li class="line"><p>${product} <small>× ${counts[product] ?? 0}</small></p>
      <button name="product" value="${product}" aria-label="Add ${product}">Add</button></li>`,
      )}
    </ul>
    <button name="product" value="" ${total === 0 && 'disabled'}>Empty the cart</button>
  </form>
</section>`;
}

function race(result: Race | undefined): Html {
  return html`<section id="race">
  <h2>The race</h2>
  <p>${WRITES} requests at once on one session; each adds a key of its own. How many are there afterwards? Another run
    may give other numbers.</p>
  ${STORES.map((store) => raceOn(store, result?.[store]))}
  <form method="post" action="/race"><button class="main">Send ${WRITES} parallel writes</button></form>
</section>`;
}

function raceOn(store: StoreName, kept: number[] | undefined): Html {
  const result = kept ? `kept ${kept.length} of ${WRITES}` : 'not run yet';
  return html`<div class="race" data-store="${store}">
    <p class="line"><b class="${store}">${store}</b> <output>${result}</output></p>
    <div class="cells" aria-hidden="true">${Array.from(
      { length: WRITES },
      (_, n) => html`<i class="${kept && (kept.includes(n) ? 'kept' : 'lost')}"></i>`,
    )}</div>
  </div>`;
}

function speed(): Html {
  return html`<section id="speed">
  <h2>The speed</h2>
  <p>Requests a second of one small app on each store, in turns of a quarter of a second. Requests, app and database
    share this machine.</p>
  <div class="chart">
    <ol class="rates" aria-hidden="true"><li>–</li><li>–</li><li>0</li></ol>
    <svg viewBox="0 0 320 120" preserveAspectRatio="none" role="img" aria-label="Requests a second, turn by turn">
      <path class="grid" d="M0 0.5H320M0 60H320"/>
      ${STORES.map((store) => html`<polyline class="${store}" points=""/>`)}
    </svg>
    <ol class="turns" aria-hidden="true"><li>turn 1</li><li>6</li><li>11</li></ol>
  </div>
  <dl>${STORES.map((store) => html`<div><dt class="${store}">${store}</dt><dd data-store="${store}">–</dd></div>`)}</dl>
  <form method="post" action="/speed" class="line">
    <fieldset><legend>Each request</legend>
      <label><input type="radio" name="work" value="read" checked> reads</label>
      <label><input type="radio" name="work" value="write"> changes it</label>
    </fieldset>
    <button class="main">Measure</button>
  </form>
  <p class="hint" role="status"></p>
  <noscript><p class="hint">Only this panel needs JavaScript.</p></noscript>
</section>`;
}

function table(rows: readonly StoredRow[]): Html {
  const columns = ['sid', 'user_id', 'version', 'data', 'updated_at', 'expires_at'];
  return html`<section id="rows">
  <h2>The rows, as SQL sees them</h2>
  <table>
    <thead><tr>${columns.map((column) => html`<th scope="col">${column}</th>`)}</tr></thead>
    <tbody>
      ${rows.map(
        (row) => html`<tr ${row.is_this_one === true && html`class="this-one"`}>
        <td data-column="sid"><code>${row.sid.slice(0, 10)}…</code>${row.is_this_one === true && html` <b class="badge">yours</b>`}</td>
        <td data-column="user_id"><code>${row.user_id ?? 'null'}</code></td>
        <td data-column="version"><code>${row.version}</code></td>
        <td data-column="data"><code>${shortened(row.data)}</code></td>
        <td data-column="updated_at">${ago(new Date(Date.now() - row.age * 1000))}</td>
        <td data-column="expires_at"><time datetime="${row.expires_at.toISOString()}">${inUtc(row.expires_at)}</time></td>
      </tr>`,
      )}
    </tbody>
  </table>
  <p class="hint">The IDs are hashed (option <code>hashIds</code>): nobody can take a session over by reading them.</p>
</section>`;
}

function inUtc(time: Date): string {
  return `${time.toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

function shortened(text: string): string {
  return text.length > 220 ? `${text.slice(0, 220)}…` : text;
}

function ago(time: Date): string {
  const seconds = Math.max(0, Math.round((Date.now() - time.getTime()) / 1000));
  if (seconds < 5) return 'just now';
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}
