/**
 * The Express 5 app that is put under load. It runs in a process of its own, with the store and the servers that the
 * environment variable BENCH_APP names.
 */

import { monitorEventLoopDelay } from 'node:perf_hooks';

import express, { type RequestHandler } from 'express';
import session from 'express-session';
import { SECRET, SESSIONS, sessionIdFrom, sessionOf, textSessionIdFrom, textSessionOf } from '../stores/data.js';
import { openPeer, type PeerName, type Servers, saveAll } from '../stores/peers.js';

/** A message to the parent process: first the port, and later, each time the parent asks, the other fields. */
export interface Answer {
  port?: number;
  /** The CPU time of this process so far, in microseconds. */
  cpu?: number;
  /** The 99th percentile of the event loop delay since the last question, in milliseconds. */
  delay?: number;
}

const { name, servers } = JSON.parse(process.env.BENCH_APP as string) as { name: PeerName; servers: Servers };

const peer = await openPeer(name, servers);
const numbers = Array.from({ length: SESSIONS }, (_, n) => n);
await saveAll(peer, numbers.map(sessionIdFrom), sessionOf);
await saveAll(peer, numbers.map(textSessionIdFrom), textSessionOf);

const sessions = (rolling: boolean) =>
  session({
    store: peer.store,
    secret: SECRET,
    resave: false,
    saveUninitialized: false,
    rolling,
    cookie: { maxAge: 86_400_000 },
  });
const read: RequestHandler = (req, res) => {
  const { user } = req.session as unknown as { user: { name: string } };
  res.send(`Hello ${user.name}`);
};

const app = express();
app.get('/rolling', sessions(true), read);
app.use(sessions(false));
app.get('/read', read);
app.get('/read-text', (req, res) => {
  const { text } = req.session as unknown as { text: string };
  res.send(`${text.length} characters`);
});
app.get('/change', (req, res) => {
  const session = req.session as unknown as { views: number };
  session.views++;
  res.send(`View ${session.views}`);
});

const tell = (answer: Answer) => process.send?.(answer);
const server = app.listen(0, '127.0.0.1', () => {
  tell({ port: (server.address() as { port: number }).port });
});
const delays = monitorEventLoopDelay({ resolution: 1 });
delays.enable();
process.on('message', () => {
  const { user, system } = process.cpuUsage();
  tell({ cpu: user + system, delay: delays.percentile(99) / 1e6 });
  delays.reset();
});
process.on('disconnect', () => process.exit());
