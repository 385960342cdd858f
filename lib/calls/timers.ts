/**
 * Node.js's timers as they were when the store was loaded.
 *
 * Tests of apps replace the timers, and the store's own must go on. In the CommonJS build an imported function is
 * looked up in its module at each call, and @sinonjs/fake-timers replaces the functions of these modules too; a
 * constant stays.
 */

import process from 'node:process';
import timers from 'node:timers';
import promises from 'node:timers/promises';

export const { nextTick } = process;
export const { clearTimeout, setImmediate, setTimeout } = timers;
export const { setTimeout: sleep, setImmediate: nextTurn } = promises;
