/** What a browser may do with the app's pages, and which requests the app takes. */

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
 * Refuses requests that change something and that another site's page sent (OWASP: CSRF Prevention,
 * Fetch Metadata). Browsers say where a request comes from: in `Sec-Fetch-Site`, or, without HTTPS
 * on another machine, in `Origin` alone.
 */
export const sameOriginOnly: RequestHandler = (request, response, next) => {
  const site = request.get('sec-fetch-site');
  const origin = request.get('origin');
  const isOwn = site ? site === 'same-origin' : origin === `${request.protocol}://${request.get('host')}`;
  if (isOwn || ['GET', 'HEAD'].includes(request.method)) return next();
  response.status(403).type('text').send('This request did not come from this page.');
};

/**
 * Refuses requests for a host that is not this app's. A site whose name suddenly leads to this machine (DNS rebinding)
 * could otherwise read the app's pages in its visitors' browsers: to them it would be the same origin. An address in
 * place of a name is safe, since nobody else decides where it leads.
 *
 * @param names how the app is reached, beside `localhost` and its addresses
 */
export function ownHostsOnly(names: readonly string[] = []): RequestHandler {
  return (request, response, next) => {
    const host = request.hostname?.toLowerCase() ?? '';
    const isAddress = isIP(host.replace(/^\[(.*)\]$/, '$1')) !== 0;
    if (isAddress || host === 'localhost' || names.includes(host)) return next();
    response.status(421).type('text').send('This app is not known by that name. HOSTS=name npm start lets it be.');
  };
}
