/** An app with express-openid-connect for `itKeepsThePromises`. Its sessions begin without a sign-in at a provider. */

import express, { type Request } from 'express';
import openId from 'express-openid-connect';
import { listen } from '../../support/race-app.js';
import type { StartServer } from '../../support/race-server.js';

const sessionOf = (req: Request) => (req as Request & { appSession: any }).appSession;

export const start: StartServer = (store, gate) => {
  const app = express();
  app.use(store.scope);
  app.use(
    openId.auth({
      baseURL: 'http://localhost',
      issuerBaseURL: 'http://localhost',
      clientID: 'shop',
      secret: 'a secret of at least 32 characters',
      authRequired: false,
      session: { store: store as any },
    }),
  );
  app.post('/login/:name', (req, res) => {
    Object.assign(sessionOf(req), { user: req.params.name, files: {} });
    res.json({});
  });
  app.post('/key/:name', async (req, res) => {
    const { name } = req.params;
    await gate.pass();
    sessionOf(req)[name] = name;
    sessionOf(req).files[name] = { name };
    res.json({});
  });
  app.post('/logout', (req, res) => {
    // As `res.oidc.logout()` does.
    (req as any).appSession = undefined;
    res.json({});
  });
  app.get('/session', (req, res) => {
    res.json({ data: sessionOf(req) });
  });
  return listen(app);
};
