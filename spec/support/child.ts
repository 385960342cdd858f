/** Runs code in child processes, for specs whose code would end Mocha's process, or that need several processes. */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { temporaryFolder } from './folders.js';

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

let compiling: Promise<string> | undefined;

/**
 * Creates a folder with the compiled library and the packages that it needs. A child that compiles the library itself
 * starts many times slower.
 */
async function compiled(): Promise<string> {
  const folder = temporaryFolder();
  const tsc = path.join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  await new Promise((resolve) =>
    execFile(process.execPath, [tsc, '-p', root, '--outDir', path.join(folder, 'lib')], resolve),
  );
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'), 'junction');
  fs.writeFileSync(path.join(folder, 'package.json'), '{ "type": "module" }');
  return folder;
}

let programs = 0;

/** Runs an ES module, which imports the library as `./lib/index.js`, in the specs' runtime: Node.js, Bun or Deno. */
export async function runNode(code: string, options: ChildOptions = {}): Promise<Ended> {
  compiling ??= compiled();
  const cwd = await compiling;
  // The module is written to a file, because Deno evaluates the text after `--eval` as CommonJS.
  const file = path.join(cwd, `program-${programs++}.js`);
  fs.writeFileSync(file, code);
  return run(process.execPath, [file], { cwd, ...options });
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
