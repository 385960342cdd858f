/**
 * Stops the servers that this process has started, and removes its temporary folders, when this process ends, even by
 * `kill -9`. A shell process does that.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';

/**
 * The shell's script. It reads line by line which servers and folders there are. Its input ends when the process that
 * started it ends. Then it stops the servers, and kills those that do not end within ten seconds. It repeats `rm`,
 * because a server that is being killed may still write into its folder.
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

/** Stops a server when this process ends. @param signal stops that kind of server at once: `QUIT` for PostgreSQL */
export function guardServer(server: ChildProcess, signal: 'QUIT' | 'KILL'): void {
  if (server.pid === undefined) return;
  tell(`server ${signal} ${server.pid}`);
  server.once('exit', () => tell(`ended - ${server.pid}`));
}

/** Removes the folder when this process ends. */
export function guardFolder(folder: string): void {
  tell(`folder - ${folder}`);
}

function tell(line: string): void {
  shell ??= start();
  shell.stdin?.write(`${line}\n`);
}

function start(): ChildProcess {
  // The shell has a process group of its own, because Ctrl-C in a terminal must not end it before its work is done.
  const child = spawn('sh', ['-c', SCRIPT, 'guard'], { cwd: '/', detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
  child.unref();
  // In Bun this stream has no `unref`, and does not keep the process alive.
  (child.stdin as Partial<Socket>).unref?.();
  return child;
}
