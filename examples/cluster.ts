/** Two processes share one port. SIGTERM or Ctrl-C stops them, and no request fails. */

import cluster from 'node:cluster';
import express from 'express';
import { PgStore } from 'express-pg-store';
import session from 'express-session';
import { stopOnSignals } from './shutdown.js';

declare module 'express-session' {
  interface SessionData {
    views?: number;
  }
}

if (cluster.isPrimary) runPrimary();
else runWorker();

function runPrimary(): void {
  let isStopping = false;
  for (let n = 0; n < 2; n++) cluster.fork();
  // A worker that has crashed is replaced. The primary process ends when its last worker has ended.
  cluster.on('exit', () => void (isStopping || cluster.fork()));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      isStopping = true;
      for (const worker of Object.values(cluster.workers ?? {})) worker?.process.kill(signal);
    });
  }
}

function runWorker(): void {
  const store = new PgStore();
  const secret = process.env.SESSION_SECRET ?? 'for trying it out only';
  const app = express();
  app.use(session({ store, secret, resave: false, saveUninitialized: false }));
  app.get('/', ({ session }, response) => {
    session.views = (session.views ?? 0) + 1;
    response.json({ views: session.views, process: process.pid });
  });
  const port = Number(process.env.PORT ?? 3000);
  const server = app.listen(port, '127.0.0.1', () => console.log(`http://localhost:${port}, process ${process.pid}`));
  stopOnSignals(server, store);
}
