/** The store with express-openid-connect. */

import express, { type Express } from 'express';
import openId, { type ConfigParams } from 'express-openid-connect';
import type { SessionData } from 'express-session';
import type { PgStore } from '../../../lib/index.js';

type OpenIdStore = NonNullable<ConfigParams['session']>['store'];

export function openIdApp(store: PgStore, provider: ConfigParams): Express {
  const app = express();
  // Before `auth`: the store remembers what it loads for this request.
  app.use(store.scope);
  app.use(openId.auth({ ...provider, authRequired: false, session: { store: store as unknown as OpenIdStore } }));
  app.get('/me', openId.requiresAuth(), (req, res) => {
    res.json(req.oidc.user);
  });
  return app;
}

/** For the store's option `user`: the subject of the ID token. */
export function subject(session: SessionData): string | undefined {
  const { data } = session as SessionData & { data?: { id_token?: string } };
  const [, claims] = data?.id_token?.split('.') ?? [];
  return claims && JSON.parse(Buffer.from(claims, 'base64url').toString()).sub;
}
