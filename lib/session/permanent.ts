/** Option `permanent`: a new session gets an expiry that outlives the browser. */

import type { SessionData, Store } from 'express-session';

type Generate = (req: { session: SessionData }) => void;

/**
 * Gives new sessions whose cookie has no `maxAge` one. express-session sets `generate` on its store
 * when the middleware is created, and the cookie must have its `maxAge` before it is sent: so the
 * setting is intercepted.
 *
 * @param ttl milliseconds for a session
 */
export function makePermanent(store: Store, ttl: (session: SessionData) => number): void {
  let generate: Generate | undefined;
  Object.defineProperty(store, 'generate', {
    configurable: true,
    get: () => generate,
    set: (made: Generate) => {
      generate = (req) => {
        made(req);
        const { cookie } = req.session;
        if (typeof cookie.maxAge === 'number') return;
        const maxAge = ttl(req.session);
        cookie.maxAge = maxAge;
        // The setter counts back from the clock and may come out a millisecond short.
        cookie.originalMaxAge = maxAge;
      };
    },
  });
}
