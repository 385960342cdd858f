/**
 * The Express 5 app that is put under load, in a process of its own, on the store that it is told
 * to use.
 */

import { monitorEventLoopDelay } from 'node:perf_hooks';

import express, { type RequestHandler } from 'express';
import session from 'express-session';
import { SECRET, SESSIONS, sessionIdFrom, sessionOf, textSessionIdFrom, textSessionOf } from '../stores/data.js';
import { openPeer, type PeerName, type Servers, saveAll } from '../stores/peers.js';

/** What the parent process gets: the port first, then the rest each time it asks. */
export interface Answer {
  port?: number;
  /** Microseconds of CPU so far. */
  cpu?: number;
  /** p99 of the event loop delay since it was last asked for, in milliseconds. */
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
