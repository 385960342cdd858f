/** What does the page look like, in HTML? */

import type { SessionData } from 'express-session';
import { ACCOUNTS } from './accounts.js';
import { type Html, html } from './html.js';

export interface StoredRow {
  sid: string;
  user_id: string | null;
  version: number;
  data: string;
  updated_at: Date;
  expires_at: Date;
}

export interface Page {
  user: string | undefined;
  session: Partial<SessionData>;
  products: readonly string[];
  rows: readonly StoredRow[];
}

export function page({ user, session, products, rows }: Page): Html {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>express-pg-store</title>
<link rel="stylesheet" href="/style.css">
<link rel="icon" href="/favicon.svg">
</head>
<body>
<h1>express-pg-store</h1>
<p>This session has seen ${session.views ?? 0} page views.</p>
${user ? signedIn(user) : signIn()}
<h2 id="cart">Cart</h2>
<form method="post" action="/cart">
${products.map((product) => html`<button name="product" value="${product}">${product}: ${session.cart?.[product] ?? 0}</button> `)}
</form>
<h2>The rows in PostgreSQL</h2>
<table>
<tr><th>sid<th>user_id<th>version<th>data</tr>
${rows.map((row) => html`<tr><td>${row.sid.slice(0, 8)}…<td>${row.user_id ?? ''}<td>${row.version}<td>${row.data}</tr>`)}
</table>
</body>
</html>`;
}

function signIn(): Html {
  return html`<form method="post" action="/sign-in">
<label>Name <input name="username" autocomplete="username" required></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Sign in</button>
<p>Try ${ACCOUNTS.map(({ id, password }) => html`<code>${id}</code> / <code>${password}</code> `)}</p>
</form>`;
}

function signedIn(user: string): Html {
  return html`<form method="post" action="/sign-out"><p>Signed in as ${user}. <button>Sign out</button></p></form>`;
}
