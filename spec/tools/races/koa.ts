/** A Koa app with koa-session for `itKeepsThePromises`. */

import Koa from 'koa';
import koaSession from 'koa-session';
import { listen } from '../../support/race-app.js';
import type { StartServer } from '../../support/race-server.js';
import { storeForKoa } from '../frameworks/koa.js';

export const start: StartServer = (store, gate) => {
  const app = new Koa();
  app.keys = ['not a secret'];
  app.use((context, next) => store.scope(context.req, context.res, next));
  app.use(koaSession({ store: storeForKoa(store), signed: false }, app));
  app.use(async (context) => {
    const { session } = context as Koa.Context & { session: any };
    const [, route, name = ''] = context.path.split('/');
    context.body = {};
    switch (route) {
      case 'login':
        Object.assign(session, { user: name, files: {} });
        break;
      case 'key':
        await gate.pass();
        session[name] = name;
        session.files[name] = { name };
        break;
      case 'logout':
        context.session = null;
        break;
      case 'session': {
        const { _expire, _maxAge, ...data } = session.toJSON();
        context.body = { data };
      }
    }
  });
  return listen(app.callback());
};
