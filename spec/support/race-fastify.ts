/** Fastify apps for `itKeepsThePromises`, which use their sessions in ordinary ways. */

import fastifyCookie from '@fastify/cookie';
import fastifySession from '@fastify/session';
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify';
import type { PgStore } from '../../lib/index.js';
import type { Gate, Listening } from './race-app.js';
import type { StartServer } from './race-server.js';

type Data = Record<string, any>;
const dataOf = ({ session }: FastifyRequest) => session as Data;
type Named = { Params: { name: string } };

/** @param configure configures the app before it registers the session plugin */
export async function startFastify(
  store: PgStore,
  gate: Pick<Gate, 'pass'>,
  configure: (app: FastifyInstance) => void,
): Promise<Listening> {
  const app = fastify();
  configure(app);
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
}

export const start: StartServer = (store, gate) => startFastify(store, gate, () => {});
