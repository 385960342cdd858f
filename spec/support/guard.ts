/**
 * Stops the servers that this process has started, and removes its temporary folders, when it ends: also after a
 * `kill -9`.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';

/**
 * Reads what to remember line by line. The end of its input is the end of the process that started it. A server that
 * does not end within ten seconds is killed; `rm` is tried again because a server that is just being killed may still
 * write into its folder.
 */
const SCRIPT = `
servers=
while read -r what signal name; do
  case $what in
    server) servers="$servers $signal:$name" ;;
    ended) rest=; for one in $servers; do [ "\${one#*:}" = "$name" ] || rest="$rest $one"; done; servers=$rest ;;
    folder) set -- "$@" "$name" ;;
  esac
done
for one in $servers; do kill -s "\${one%:*}" "\${one#*:}"; done
for one in $servers; do
  tries=0
  while kill -s 0 "\${one#*:}" && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
  [ $tries -lt 100 ] || kill -s KILL "\${one#*:}"
done
tries=0
until rm -rf -- "$@" || [ $tries -ge 100 ]; do sleep 0.1; tries=$((tries + 1)); done
`;

let shell: ChildProcess | undefined;

/** The signal is the one that stops this server at once, such as `QUIT` for PostgreSQL. */
export function guardServer(server: ChildProcess, signal: 'QUIT' | 'KILL'): void {
  if (server.pid === undefined) return;
  tell(`server ${signal} ${server.pid}`);
  server.once('exit', () => tell(`ended - ${server.pid}`));
}

export function guardFolder(folder: string): void {
  tell(`folder - ${folder}`);
}

function tell(line: string): void {
  shell ??= start();
  shell.stdin?.write(`${line}\n`);
}

function start(): ChildProcess {
  // A process group of its own: Ctrl-C in a terminal must not end it before its work is done.
  const child = spawn('sh', ['-c', SCRIPT, 'guard'], { cwd: '/', detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  child.unref();
  // Bun has no `unref` there, and needs none.
  (child.stdin as Partial<Socket>).unref?.();
  return child;
}
