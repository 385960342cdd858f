/** The store with Socket.IO. */

import { createServer, type IncomingMessage } from 'node:http';
import express, { type RequestHandler } from 'express';
import session, { type Session } from 'express-session';
import { Server } from 'socket.io';
import type { PgStore } from '../../../lib/index.js';

type Request = IncomingMessage & { session: Session & { user?: string }; sessionID: string };

export function chatServer(store: PgStore) {
  const sessions: RequestHandler = session({
    store,
    secret: 'keyboard cat',
    resave: false,
    saveUninitialized: false,
    cookie: { maxAge: 3_600_000 },
  });
  const app = express();
  app.use(sessions);
  const server = createServer(app);
  const io = new Server(server);
  // The handshake has the session, too.
  io.engine.use(sessions);
  io.use((socket, next) => {
    next((socket.request as Request).session.user === undefined ? new Error('signed out') : undefined);
  });
  io.on('connection', (socket) => {
    const { session, sessionID } = socket.request as Request;
    const stop = store.watch(sessionID, () => socket.disconnect(true));
    socket.on('disconnect', stop);
    socket.on('say', (text: string) => io.emit('said', { user: session.user, text }));
  });

  app.post('/login/:name', (req, res) => {
    Object.assign(req.session, { user: req.params.name });
    res.sendStatus(204);
  });
  app.post('/logout', (req, res, next) => {
    req.session.destroy((error) => (error ? next(error) : res.sendStatus(204)));
  });
  return { server, io };
}
