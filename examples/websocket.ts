/** ws: a WebSocket is closed when its session ends, in whichever process that happens. */

import { createServer, ServerResponse } from 'node:http';
import express, { type Request, type Response } from 'express';
import { PgStore } from 'express-pg-store';
import session, { type SessionData } from 'express-session';
import { WebSocketServer } from 'ws';

const store = new PgStore({ watchInterval: 1 });
const secret = process.env.SESSION_SECRET ?? 'for trying it out only';
const sessions = session({ store, secret, resave: false, saveUninitialized: false });
const app = express();
app.use(sessions);
app.post('/sign-in/:user', ({ session, params }, response) => {
  Object.assign(session, { user: params.user });
  response.sendStatus(204);
});
app.post('/sign-out', ({ session }, response, next) => {
  session.destroy((error) => (error ? next(error) : response.sendStatus(204)));
});

const server = createServer(app);
const sockets = new WebSocketServer({ noServer: true });
server.on('upgrade', (upgrade, socket, head) => {
  socket.on('error', () => socket.destroy());
  const request = upgrade as Request;
  sessions(request, new ServerResponse(upgrade) as Response, () => {
    const { user } = request.session as SessionData & { user?: string };
    if (user === undefined) return void socket.end('HTTP/1.1 401 Unauthorized\r\n\r\n');
    sockets.handleUpgrade(request, socket, head, (client) => {
      // This session has a user, so it was loaded from the store. Of one that is not stored, `watch` reports the end.
      const stop = store.watch(request.sessionID, () => client.close(4401, 'signed out'));
      client.on('close', stop);
      client.on('message', (text) => client.send(`${user} said ${text}`));
    });
  });
});

const port = Number(process.env.PORT ?? 3000);
server.listen(port, '127.0.0.1', () => console.log(`http://localhost:${port}`));
