/** Tells a page at once that its session has ended, on another device say. */

import type { RequestHandler, Response } from 'express';
import type { PgStore } from '../lib/index.js';

/** What the page says afterwards, by the reason that `store.watch` gives. */
const NOTICES: Record<string, string> = {
  destroyed: 'You were signed out on another device.',
  expired: 'Your session has expired.',
};

export function endNotice(reason: unknown): string | undefined {
  return typeof reason === 'string' && Object.hasOwn(NOTICES, reason) ? NOTICES[reason] : undefined;
}

/** Streams of events, each about the end of its page's session. */
export class SessionEndStreams {
  readonly #store: PgStore;
  readonly #open = new Set<Response>();

  constructor(store: PgStore) {
    this.#store = store;
  }

  readonly handler: RequestHandler = (request, response) => {
    // With this status the browser does not try again.
    if (!request.user) return void response.sendStatus(204);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    const stop = this.#store.watch(request.sessionID, (reason) => response.end(`event: ended\ndata: ${reason}\n\n`));
    this.#open.add(response);
    response.on('close', () => {
      stop();
      this.#open.delete(response);
    });
  };

  /** Cuts the streams off: a server does not close while they are open. */
  close(): void {
    for (const response of this.#open) response.destroy();
  }
}
