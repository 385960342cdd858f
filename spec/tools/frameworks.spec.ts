/** The guarantees hold through the frameworks that `npm ci --prefix spec/tools` installs, over HTTP. */

import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { buildPackageBesideTools } from '../support/built-package.js';
import { run } from '../support/child.js';
import { eventually } from '../support/eventually.js';
import { freePort } from '../support/free-port.js';
import { closeStores, freshTable, openStore, postgresUri } from '../support/postgres.js';
import { PostgresServer } from '../support/postgres-server.js';
import { skipWithoutTools } from '../support/tools.js';
import { Visitor } from '../support/visitor.js';
import { SessionStore, useSessions } from './frameworks/nestjs.js';

const EXAMPLE = path.resolve(import.meta.dirname, '../../examples/openid-connect.mjs');

describe('NestJS', () => {
  let nest: typeof import('@nestjs/common');
  let core: typeof import('@nestjs/core');

  before(async function () {
    skipWithoutTools.call(this);
    await import('reflect-metadata');
    nest = await import('@nestjs/common');
    core = await import('@nestjs/core');
  });

  /** The controller of a cart, made as its decorators would make it. */
  function cartController() {
    const { Controller, Get, Param, Post, Session } = nest;
    class Cart {
      add(session: any, item: string) {
        session.cart = { ...session.cart, [item]: 1 };
        return session.cart;
      }
      show(session: any) {
        return session.cart ?? {};
      }
    }

    const route = (name: 'add' | 'show', ...decorators: MethodDecorator[]) => {
      const descriptor = Object.getOwnPropertyDescriptor(Cart.prototype, name) as PropertyDescriptor;
      Session()(Cart.prototype, name, 0);
      for (const decorate of decorators) decorate(Cart.prototype, name, descriptor);
    };
    Controller('cart')(Cart);
    Param('item')(Cart.prototype, 'add', 1);
    route('add', Post(':item'));
    route('show', Get());
    return Cart;
  }

  it('keeps a session from request to request, and closes its store with the app', async () => {
    const table = freshTable();
    const options = { uri: await postgresUri(), table, autodelete: false } as const;
    const provider = { provide: SessionStore, useFactory: () => new SessionStore(options) };
    const module = { module: class Shop {}, controllers: [cartController()], providers: [provider] };
    const app = await core.NestFactory.create(module, { logger: false });
    useSessions(app);
    await app.listen(0, '127.0.0.1');
    const visitor = new Visitor(await app.getUrl());
    await visitor.json('POST', '/cart/tea');
    assert.deepEqual(await visitor.json('POST', '/cart/milk'), { tea: 1, milk: 1 });
    assert.deepEqual(await visitor.json('GET', '/cart'), { tea: 1, milk: 1 });
    const store = app.get(SessionStore);
    assert.equal(await store.length(), 1);
    await app.close();
    await assert.rejects(store.length(), { code: 'CLOSED' });
  });
});

describe('express-openid-connect', () => {
  const closing: (() => unknown)[] = [];
  let openId: typeof import('./frameworks/openid-connect.js');

  before(async function () {
    skipWithoutTools.call(this);
    openId = await import('./frameworks/openid-connect.js');
  });

  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
    await closeStores();
  });

  it('keeps its sessions in the store, by user, and ends them there', async () => {
    const store = await openStore({ user: openId.subject });
    const provider = await openIdProvider();
    closing.push(provider.close);
    const server = http.createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closing.push(() => new Promise((resolve) => server.close(resolve)));
    const baseURL = `http://localhost:${(server.address() as AddressInfo).port}`;
    const secret = 'a secret of at least 32 characters';
    const app = openId.openIdApp(store, { baseURL, issuerBaseURL: provider.issuer, clientID: 'shop', secret });
    server.on('request', app);
    const browser = new Browser(baseURL);
    await browser.signIn(provider, 'ann');
    assert.equal((await browser.json('/me')).sub, 'ann');
    assert.equal((await store.sessionsOf('ann')).length, 1);
    assert.equal(await store.destroySessionsOf('ann'), 1);
    assert.notEqual((await browser.request('/me')).status, 200);
  });

  it('runs as examples/openid-connect.mjs: a sign-out ends the sessions of all browsers', async () => {
    const database = await PostgresServer.start({ settings: { fsync: 'off' } });
    closing.push(() => database.close());
    const provider = await openIdProvider();
    closing.push(provider.close);
    const built = buildPackageBesideTools();
    closing.push(() => built.remove());
    fs.copyFileSync(EXAMPLE, path.join(built.folder, path.basename(EXAMPLE)));
    const port = await freePort();
    const variables = {
      DATABASE_URL: database.uri,
      PORT: String(port),
      ISSUER_BASE_URL: provider.issuer,
      CLIENT_ID: 'shop',
    };
    let kill = () => false;
    const program = run(process.execPath, [path.basename(EXAMPLE)], {
      cwd: built.folder,
      env: { NODE_OPTIONS: '', ...variables },
      started: (child) => {
        kill = () => child.kill();
      },
    });
    closing.push(() => kill() && program);
    const browsers = [0, 1].map(() => new Browser(`http://localhost:${port}`));
    await eventually(() => browsers[0]?.request('/').catch(() => undefined));
    for (const browser of browsers) await browser.signIn(provider, 'ann');
    for (const browser of browsers) assert.equal((await browser.json('/')).sub, 'ann');
    assert.deepEqual(await browsers[0]?.json('/sign-out-everywhere', {}), { ended: 2 });
    for (const browser of browsers) assert.notEqual((await browser.request('/')).status, 200);
  });
});

/** A browser's cookies. */
class Browser {
  readonly #baseURL: string;
  readonly #cookies = new Map<string, string>();

  constructor(baseURL: string) {
    this.#baseURL = baseURL;
  }

  async request(path: string, form?: Record<string, string>): Promise<Response> {
    const response = await fetch(this.#baseURL + path, {
      method: form ? 'POST' : 'GET',
      headers: { cookie: [...this.#cookies].map((pair) => pair.join('=')).join('; '), connection: 'close' },
      redirect: 'manual',
      ...(form ? { body: new URLSearchParams(form) } : {}),
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? [];
      if (value) this.#cookies.set(name, value);
      else this.#cookies.delete(name);
    }
    return response;
  }

  async json(path: string, form?: Record<string, string>): Promise<any> {
    return (await this.request(path, form)).json();
  }

  /** From the app's login page to the provider, and back with its ID token. */
  async signIn(provider: Awaited<ReturnType<typeof openIdProvider>>, sub: string): Promise<void> {
    const toProvider = new URL((await this.request('/login')).headers.get('location') as string).searchParams;
    const id_token = await provider.idToken({ nonce: toProvider.get('nonce'), sub, aud: 'shop' });
    const state = toProvider.get('state') as string;
    assert.equal((await this.request('/callback', { id_token, state })).status, 302);
  }
}

/**
 * An OpenID provider: its discovery document, its key, and the ID tokens that it would send to the
 * callback.
 */
async function openIdProvider() {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const key = { ...publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'RS256', use: 'sig' };
  let issuer = '';
  const server = http.createServer((request, response) => {
    const pages: Record<string, object> = {
      '/.well-known/openid-configuration': {
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        jwks_uri: `${issuer}/keys`,
        response_types_supported: ['id_token'],
        response_modes_supported: ['form_post'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['RS256'],
      },
      '/keys': { keys: [key] },
    };
    response.setHeader('content-type', 'application/json').end(JSON.stringify(pages[request.url as string] ?? {}));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  issuer = `http://localhost:${(server.address() as AddressInfo).port}`;
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return {
    issuer,
    async idToken(claims: object): Promise<string> {
      const now = Math.floor(Date.now() / 1000);
      const text = `${part({ alg: 'RS256', kid: 'one' })}.${part({ iss: issuer, iat: now, exp: now + 600, ...claims })}`;
      return `${text}.${sign('RSA-SHA256', Buffer.from(text), privateKey).toString('base64url')}`;
    },
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}
