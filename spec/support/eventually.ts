/** Waits for conditions. A fixed time would be too short on a busy machine, and too long elsewhere. */

import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Milliseconds after which a condition that is not met fails its spec. Mocha's own `timeout` is longer, and would not
 * say which condition it was.
 */
const PATIENCE_MS = 120_000;

/** Resolves once the condition is met, with the truthy value that it returned. */
export async function eventually<T>(condition: () => T | Promise<T>): Promise<T> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) throw new Error(`the condition was not met in time: ${condition}`);
    await sleep(10);
  }
}

/**
 * Repeats a call while it fails by the store's `timeout`, and resolves with its answer. A spec with a short `timeout`
 * makes all calls in this way, except those that are meant to time out, because any call may take long on a busy
 * machine.
 */
export async function patiently<T>(call: () => Promise<T>): Promise<T> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!hasTimedOut(error) || performance.now() > end) throw error;
    }
  }
}

/**
 * Whether a call failed by `timeout`, or by the time limit for opening a connection, which may come first. With
 * node-postgres that limit has another code.
 */
function hasTimedOut(error: unknown): boolean {
  const { code } = error as { code?: string };
  if (code === 'CONNECTION_CLOSED') return process.env.SESSIONS_CLIENT === 'pg';
  return code === 'TIMEOUT' || code === 'CONNECT_TIMEOUT';
}
