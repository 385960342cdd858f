/** Measures whether the machine has other work, so that no figure is published that such work has distorted. */

import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { prepare } from '../parts/calls.js';
import { openPeer, type Servers } from '../stores/peers.js';
import { measure, spreadOf } from './measure.js';

export interface Quietness {
  /** Share of all cores' time that other processes used while this one slept, 0 to 1. */
  readonly busy: number;
  /** The spread (`relativeSpread`) of the time of a fixed CPU loop. */
  readonly loop: number;
  /** The spread of connect-pg-simple's gets a second. */
  readonly gets: number;
}

/**
 * The largest values of a quiet machine. A virtual machine with 2 cores and no other work measured 0.3 % CPU of others,
 * a spread of 0.2 % of the loop, and of 12 to 18 % of the gets, because its cores are not always equally fast. With
 * other work the first two exceed their limits at once.
 */
export const LIMITS: Quietness = { busy: 0.05, loop: 0.05, gets: 0.25 };

export function isQuiet(measured: Quietness): boolean {
  return (Object.keys(LIMITS) as (keyof Quietness)[]).every((what) => measured[what] <= LIMITS[what]);
}

export function describeQuietness(measured: Quietness): string {
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
  const part = (what: keyof Quietness, text: string) =>
    `${text} ${percent(measured[what])} (at most ${percent(LIMITS[what])})`;
  return [
    `The machine is ${isQuiet(measured) ? 'quiet' : 'NOT quiet'}:`,
    `${part('busy', 'CPU of others')},`,
    `${part('loop', 'spread of a fixed CPU loop')},`,
    part('gets', "spread of connect-pg-simple's gets"),
  ].join(' ');
}

/** @param times how often the loop and the gets are each measured */
export async function quietness(servers: Servers, times = 12): Promise<Quietness> {
  const busy = await busyShare(1500);
  const loops = Array.from({ length: times }, fixedLoop);
  const peer = await openPeer('connect-pg-simple', servers);
  const { calls } = await prepare(peer);
  // The first measurement warms up the compiler and the caches, and is not counted.
  await measure(calls.get, 128, 1000);
  const gets: number[] = [];
  for (let n = 0; n < times; n++) gets.push((await measure(calls.get, 128, 300)).rate);
  await peer.close();
  return { busy, loop: relativeSpread(loops.slice(2)), gets: relativeSpread(gets) };
}

/** The interquartile range as a share of the median. */
export function relativeSpread(values: number[]): number {
  const { median, quartiles } = spreadOf(values);
  return (quartiles[1] - quartiles[0]) / median;
}

async function busyShare(milliseconds: number): Promise<number> {
  const before = cpuTimes();
  await sleep(milliseconds);
  const after = cpuTimes();
  return (after.busy - before.busy) / (after.all - before.all);
}

function cpuTimes(): { busy: number; all: number } {
  const all = os.cpus().flatMap(({ times }) => Object.values(times));
  const idle = os.cpus().map(({ times }) => times.idle);
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  return { busy: sum(all) - sum(idle), all: sum(all) };
}

/** Computes always the same. @returns the milliseconds that it took, about 50 */
function fixedLoop(): number {
  const started = performance.now();
  let x = 1;
  for (let n = 0; n < 4e7; n++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
  if (x === 0) throw new Error('the compiler must not leave the loop out');
  return performance.now() - started;
}
