/**
 * Node.js's timers, as they were when the store was loaded.
 *
 * The store's timers must work while tests of an app have replaced Node.js's timers. In the CommonJS build, an imported
 * function is looked up in its module at each call, and @sinonjs/fake-timers replaces the functions of these modules
 * too. The constants of this file are not replaced.
 */

import process from 'node:process';
import timers from 'node:timers';
import promises from 'node:timers/promises';

/** Node.js's timers take at most 2^31 - 1 milliseconds; a longer delay is replaced by 1 millisecond. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

export const { nextTick } = process;
export const { clearInterval, clearTimeout, setImmediate, setInterval, setTimeout } = timers;
export const { setTimeout: sleep, setImmediate: nextTurn } = promises;
