/** Option `permanent`: gives new sessions an expiry, so that they outlive the browser's session. */

import type { SessionData, Store } from 'express-session';

type Generate = (req: { session: SessionData }) => void;

/**
 * Gives new sessions whose cookie has no `maxAge` one. The cookie must have it before it is sent, so it is set when
 * express-session generates the session. express-session assigns the function `generate` to its store when the
 * middleware is created, so this assignment is intercepted.
 *
 * @param ttl returns the lifetime of a session in milliseconds
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
        // The setter of `maxAge` computes `originalMaxAge` from the clock, which may be a millisecond less.
        cookie.originalMaxAge = maxAge;
      };
    },
  });
}
