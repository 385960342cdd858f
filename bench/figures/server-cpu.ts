/** Measures the CPU time of a PostgreSQL server's processes. */

import fs from 'node:fs';
import path from 'node:path';
import type { PostgresServer } from '../../spec/support/postgres-server.js';

/** Linux counts CPU time in ticks, which are hundredths of a second. */
const MICROSECONDS_PER_TICK = 10_000;

/** The microseconds of CPU that the server's present processes have used so far; NaN on systems without /proc. */
export function serverCpu({ dataDir }: PostgresServer): number {
  if (!fs.existsSync('/proc/self/stat')) return Number.NaN;
  const [postmaster] = fs.readFileSync(path.join(dataDir, 'postmaster.pid'), 'utf8').split('\n');
  const processes = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const ticks = processes.map((pid) => ticksOfChild(pid, postmaster as string));
  return ticks.reduce((sum, own) => sum + own, 0) * MICROSECONDS_PER_TICK;
}

/** The ticks of a process; 0 if it is not a child of the postmaster. */
function ticksOfChild(pid: string, parent: string): number {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    // After the name in parentheses come the state, the parent, and as the 12th and 13th field user and system time.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[1] === parent ? Number(fields[11]) + Number(fields[12]) : 0;
  } catch {
    // The process has ended meanwhile.
    return 0;
  }
}
