/** Socket.IO: a socket is disconnected when its session ends, in whichever process that happens. */

import { createServer, type IncomingMessage } from 'node:http';
import express from 'express';
import { PgStore } from 'express-pg-store';
import session, { type Session } from 'express-session';
import { Server } from 'socket.io';

type Handshake = IncomingMessage & { session: Session & { user?: string }; sessionID: string };

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
const io = new Server(server);
// The session middleware also runs for Socket.IO's handshakes, which have the browser's cookie.
io.engine.use(sessions);
io.use((socket, next) => {
  next((socket.request as Handshake).session.user === undefined ? new Error('signed out') : undefined);
});
io.on('connection', (socket) => {
  const { session, sessionID } = socket.request as Handshake;
  // This session has a user, so it was loaded from the store. For one that is not stored, `watch` would report the end.
  const stop = store.watch(sessionID, () => socket.disconnect(true));
  socket.on('disconnect', stop);
  socket.on('say', (text: string) => io.emit('said', { user: session.user, text }));
});

const port = Number(process.env.PORT ?? 3000);
server.listen(port, '127.0.0.1', () => console.log(`http://localhost:${port}`));
