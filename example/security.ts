/** Middleware for the app's security: headers for browsers, and checks of where a request comes from. */

import { isIP } from 'node:net';
import type { RequestHandler } from 'express';

const POLICY =
  "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

export const headers: RequestHandler = (_request, response, next) => {
  response.set({
    'Content-Security-Policy': POLICY,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'same-origin',
    'Cache-Control': 'no-store',
  });
  next();
};

/**
 * Refuses requests from pages of other sites, except those that change nothing (OWASP, Cross-Site Request Forgery
 * Prevention: Fetch Metadata). Browsers send where a request comes from in `Sec-Fetch-Site`; without HTTPS they send
 * that header only to the own machine, and otherwise only `Origin`.
 */
export const sameOriginOnly: RequestHandler = (request, response, next) => {
  const site = request.get('sec-fetch-site');
  const origin = request.get('origin');
  const isOwn = site ? site === 'same-origin' : origin === `${request.protocol}://${request.get('host')}`;
  if (isOwn || ['GET', 'HEAD'].includes(request.method)) return next();
  response.status(403).type('text').send('This request did not come from this page.');
};

/**
 * Refuses requests whose host name is not the app's. Otherwise a site could let its own name point to this machine (DNS
 * rebinding), and read the app's pages in its visitors' browsers, for which both would be the same origin. An IP
 * address instead of a name is safe, because no site can let it point elsewhere.
 *
 * @param names the host names under which the app is reached, besides `localhost`
 */
export function ownHostsOnly(names: readonly string[] = []): RequestHandler {
  return (request, response, next) => {
    const host = request.hostname?.toLowerCase() ?? '';
    const isAddress = isIP(host.replace(/^\[(.*)\]$/, '$1')) !== 0;
    if (isAddress || host === 'localhost' || names.includes(host)) return next();
    response.status(421).type('text').send('This app is not known by that name. HOSTS=name npm start lets it be.');
  };
}
