/**
 * Waiting for conditions. A spec never waits for a fixed time, which is too short on a busy machine
 * and too long elsewhere.
 */

import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Milliseconds until a condition that does not become true fails its spec. Mocha's own `timeout` is
 * longer, and would not say which condition it was.
 */
const PATIENCE = 120_000;

/** Resolves once the condition holds, with the value that it returned. */
export async function eventually<T>(condition: () => T | Promise<T>): Promise<T> {
  const end = performance.now() + PATIENCE;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) throw new Error(`it did not become true: ${condition}`);
    await sleep(10);
  }
}

/**
 * Makes a call again for as long as it fails by the store's `timeout`, and resolves with its
 * answer. A spec that gives a store a short `timeout` makes all its calls so, except those that
 * shall time out: the others may take long on a busy machine.
 */
export async function patiently<T>(call: () => Promise<T>): Promise<T> {
  const end = performance.now() + PATIENCE;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!hasTimedOut(error) || performance.now() > end) throw error;
    }
  }
}

/**
 * Connections have a time limit of their own, which can end a call before `timeout`; that of
 * node-postgres gives another error.
 */
function hasTimedOut(error: unknown): boolean {
  const { code } = error as { code?: string };
  if (code === 'CONNECTION_CLOSED') return process.env.SESSIONS_CLIENT === 'pg';
  return code === 'TIMEOUT' || code === 'CONNECT_TIMEOUT';
}
