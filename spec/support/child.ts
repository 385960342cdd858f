/** A Node process of a spec's own, for what would end Mocha's. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';

const root = path.join(import.meta.dirname, '..', '..');

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface ChildOptions {
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  started?: (child: ChildProcess) => void;
}

/** Runs an ES module; it imports from the repository as `./lib/...`. */
export function runNode(code: string, { env = {}, ...options }: ChildOptions = {}): Promise<Ended> {
  return run(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', code], {
    cwd: root,
    env,
    ...options,
  });
}

export async function run(command: string, args: string[], options: ChildOptions = {}): Promise<Ended> {
  const child = spawn(command, args, { cwd: options.cwd ?? root, env: { ...process.env, ...options.env } });
  options.started?.(child);
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (text) => {
    output.stdout += text;
  });
  child.stderr.on('data', (text) => {
    output.stderr += text;
  });
  const [code] = await once(child, 'close');
  return { code, ...output };
}
