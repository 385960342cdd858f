import type { Server, ServerResponse } from 'node:http';
import type { PgStore } from 'express-pg-store';

/** @param deadline milliseconds after which requests that have not ended are cut off */
export function stopOnSignals(server: Server, store: PgStore, deadline = 10_000): void {
  const underWay = new Set<ServerResponse>();
  let isStopping = false;

  server.prependListener('request', (_request, response: ServerResponse) => {
    underWay.add(response);
    response.once('close', () => underWay.delete(response));
    if (isStopping) endConnectionAfter(response);
  });

  const stop = () => {
    if (isStopping) return;
    isStopping = true;
    for (const response of underWay) endConnectionAfter(response);
    // On connections whose response has begun, no header can be added. They end when they were idle for a second.
    server.keepAliveTimeout = 1000;
    server.close(() => void closeStore(0));
    server.closeIdleConnections();
    setTimeout(() => {
      server.closeAllConnections();
      void closeStore(1).finally(() => process.exit(1));
    }, deadline).unref();
  };

  const closeStore = async (code: number) => {
    await store.close();
    process.exitCode = code;
    // In a worker of node:cluster or pm2, the channel to the parent process would keep this process alive.
    if (process.connected) process.disconnect();
  };

  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, stop);
}

/** Tells the client to send no further request on this connection. */
function endConnectionAfter(response: ServerResponse): void {
  if (!response.headersSent) response.setHeader('Connection', 'close');
}
