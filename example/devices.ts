/** Lists the browsers in which a user is signed in. */

import type { PgStore, UserSession } from '../lib/index.js';

export interface Device {
  handle: string;
  browser: string;
  lastSeenAt: Date;
  isThisOne: boolean;
}

/** @param thisOne the ID of the device that asks, as its session has it */
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

/**
 * A browser's name for people, such as "Firefox on Linux". The names are looked for in their order above, because
 * Chrome's user agent also contains "Safari", and Edge's also "Chrome".
 */
export function browserName(userAgent = ''): string {
  const find = (names: Record<string, string>) => Object.entries(names).find(([key]) => userAgent.includes(key))?.[1];
  const browser = find(BROWSERS);
  const system = find(SYSTEMS);
  return browser ? browser + (system ? ` on ${system}` : '') : 'Unknown browser';
}
