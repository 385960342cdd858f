/** A Fastify app for `itKeepsThePromises`. Nothing in it knows of races, or of the store. */

import fastifyCookie from '@fastify/cookie';
import fastifySession from '@fastify/session';
import fastify, { type FastifyRequest } from 'fastify';
import type { StartServer } from './race-server.js';

type Data = Record<string, any>;
const dataOf = ({ session }: FastifyRequest) => session as Data;
type Named = { Params: { name: string } };

export const start: StartServer = async (store, gate) => {
  const app = fastify();
  await app.register(fastifyCookie);
  await app.register(fastifySession, {
    store,
    secret: 'a secret of at least 32 characters',
    saveUninitialized: false,
    cookie: { secure: false, maxAge: 3_600_000 },
  });
  app.post<Named>('/login/:name', async (request) => {
    Object.assign(request.session, { user: request.params.name, files: {} });
    return {};
  });
  app.post<Named>('/key/:name', async (request) => {
    const { name } = request.params;
    await gate.pass();
    const session = dataOf(request);
    session[name] = name;
    session.files[name] = { name };
    return {};
  });
  app.post('/logout', async ({ session }) => {
    await session.destroy();
    return {};
  });
  app.get('/session', async (request) => {
    const { cookie, ...data } = dataOf(request);
    return { data };
  });
  return { url: await app.listen({ port: 0, host: '127.0.0.1' }), close: () => app.close() };
};
