/** The store with Koa. */

import type { SessionData } from 'express-session';
import Koa from 'koa';
import koaSession from 'koa-session';
import type { PgStore } from '../../../lib/index.js';

export function koaApp(store: PgStore): Koa {
  const app = new Koa();
  app.keys = ['keyboard cat'];
  // Before the session: the store remembers what it loads for this request.
  app.use((context, next) => store.scope(context.req, context.res, next));
  app.use(koaSession({ store: storeForKoa(store), maxAge: 3_600_000 }, app));
  app.use(async (context) => {
    const { session, method } = context as Koa.Context & { session: any };
    const [, route, item = ''] = context.path.split('/');
    if (route === 'logout') {
      context.session = null;
      context.status = 204;
      return;
    }
    if (method === 'POST') session.cart = { ...session.cart, [item]: 1 };
    context.body = session.cart ?? {};
  });
  return app;
}

/** koa-session passes more arguments than other frameworks do. */
export function storeForKoa(store: PgStore) {
  return {
    get: (sid: string) => store.get(sid),
    set: (sid: string, session: object, maxAge: number | 'session') =>
      maxAge === 'session' ? store.set(sid, session as SessionData) : store.set(sid, session, maxAge),
    destroy: (sid: string) => store.destroy(sid),
  };
}
