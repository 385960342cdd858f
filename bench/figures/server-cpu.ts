/** The CPU time of PostgreSQL's processes. */

import fs from 'node:fs';
import path from 'node:path';
import type { PostgresServer } from '../../spec/support/postgres-server.js';

/** Linux counts in hundredths of a second. */
const MICROSECONDS_PER_TICK = 10_000;

/** Microseconds that the server's processes which run now have used so far; not a number where there is no /proc. */
export function serverCpu({ dataDir }: PostgresServer): number {
  if (!fs.existsSync('/proc/self/stat')) return Number.NaN;
  const [postmaster] = fs.readFileSync(path.join(dataDir, 'postmaster.pid'), 'utf8').split('\n');
  const processes = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const ticks = processes.map((pid) => ticksOfChild(pid, postmaster as string));
  return ticks.reduce((sum, own) => sum + own, 0) * MICROSECONDS_PER_TICK;
}

function ticksOfChild(pid: string, parent: string): number {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    // After the name in parentheses: state, parent, and ten fields later user and system time.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[1] === parent ? Number(fields[11]) + Number(fields[12]) : 0;
  } catch {
    // It has ended meanwhile.
    return 0;
  }
}
