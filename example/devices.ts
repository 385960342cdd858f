/** The browsers in which a user is signed in. */

import type { PgStore, UserSession } from '../lib/index.js';

export interface Device {
  handle: string;
  browser: string;
  lastSeenAt: Date;
  isThisOne: boolean;
}

export async function devicesOf(store: PgStore, user: string, thisOne: string | undefined): Promise<Device[]> {
  return (await store.sessionsOf(user)).map(({ handle, lastSeenAt, session }: UserSession) => ({
    handle,
    lastSeenAt,
    browser: session.device?.browser ?? 'Unknown browser',
    isThisOne: session.device?.id === thisOne,
  }));
}

const BROWSERS = { Edg: 'Edge', OPR: 'Opera', Firefox: 'Firefox', Chrome: 'Chrome', Safari: 'Safari', curl: 'curl' };
const SYSTEMS = {
  Android: 'Android',
  iPhone: 'iPhone',
  iPad: 'iPad',
  Windows: 'Windows',
  Mac: 'macOS',
  Linux: 'Linux',
};

/** In the order given, since Chrome says it is Safari and Edge says it is Chrome. */
export function browserName(userAgent = ''): string {
  const find = (names: Record<string, string>) => Object.entries(names).find(([key]) => userAgent.includes(key))?.[1];
  const [browser, system] = [find(BROWSERS), find(SYSTEMS)];
  return browser ? browser + (system ? ` on ${system}` : '') : 'Unknown browser';
}
