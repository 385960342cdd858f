/** Tells an open page when its session has ended, for example by a sign-out on another device. */

import type { RequestHandler, Response } from 'express';
import type { PgStore } from '../lib/index.js';

/** The page's notice, by the reason that `store.watch` gives; `gone` where the reason is unknown. */
const NOTICES: Record<string, string> = {
  destroyed: 'You were signed out on another device.',
  expired: 'Your session has expired.',
  gone: 'You are signed out.',
};

/** The notice for a reason in the page's query; `undefined` for any other text. */
export function endNotice(reason: unknown): string | undefined {
  return typeof reason === 'string' && Object.hasOwn(NOTICES, reason) ? NOTICES[reason] : undefined;
}

/** Streams of Server-Sent Events, one for each open page, which report the end of the page's session. */
export class SessionEndStreams {
  readonly #store: PgStore;
  readonly #open = new Set<Response>();

  constructor(store: PgStore) {
    this.#store = store;
  }

  readonly handler: RequestHandler = (request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const end = (reason: string) => response.end(`event: ended\ndata: ${reason}\n\n`);
    // Only pages of signed-in users connect. The session has ended before that, or while the connection was lost.
    if (!request.user) return void end('gone');
    response.flushHeaders();
    const stop = this.#store.watch(request.sessionID, end);
    this.#open.add(response);
    response.on('close', () => {
      stop();
      this.#open.delete(response);
    });
  };

  /** Ends all streams, because a server does not close while they are open. */
  close(): void {
    for (const response of this.#open) response.destroy();
  }
}
