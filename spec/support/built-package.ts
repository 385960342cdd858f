/** Builds the package as npm packs it, in a folder where programs can import it by its name. */

import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { TOOLS } from './tools.js';

const ROOT = path.resolve(import.meta.dirname, '../..');

/** The folder is below the project, so that the project's dependencies are found from there. */
const CACHE = path.join(ROOT, 'node_modules/.cache/express-pg-store-specs');

/**
 * From this folder the tools are found too. It is not below node_modules, whose files Jest, Vitest and ESLint ignore.
 */
const BESIDE_TOOLS = path.join(TOOLS, 'tmp');

export interface BuiltPackage {
  /** A folder whose programs find `express-pg-store`, and the packages that the project has installed. */
  readonly folder: string;
  readonly tarball: string;
  remove(): void;
}

/** Builds the package. The caller removes it. */
export function buildPackage(): BuiltPackage {
  return packageIn(apart('package'));
}

/** Builds the package in a folder whose programs find the tools, too. The caller removes it. */
export function buildPackageBesideTools(): BuiltPackage {
  fs.mkdirSync(BESIDE_TOOLS, { recursive: true });
  const folder = fs.mkdtempSync(path.join(BESIDE_TOOLS, 'package-'));
  // Without this file, bundlers would read spec/tsconfig.json, which maps `express-pg-store` to lib/.
  fs.writeFileSync(path.join(folder, 'tsconfig.json'), '{}');
  return packageIn(folder);
}

function packageIn(folder: string): BuiltPackage {
  const source = path.join(folder, 'source');
  const build = path.join(ROOT, 'build.js');
  execFileSync(process.execPath, [build, '--outdir', path.join(source, 'dist')], { stdio: 'inherit' });
  const manifest = JSON.parse(fs.readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
  for (const name of ['package.json', 'README.md', 'LICENSE', ...manifest.files]) {
    const file = path.join(ROOT, name);
    if (name !== 'dist' && fs.existsSync(file)) fs.cpSync(file, path.join(source, name), { recursive: true });
  }
  run('npm', ['pack', '--ignore-scripts', '--pack-destination', folder], source);
  const tarball = path.join(folder, `express-pg-store-${manifest.version}.tgz`);
  const installed = path.join(folder, 'node_modules/express-pg-store');
  fs.mkdirSync(installed, { recursive: true });
  run('tar', ['-xzf', tarball, '-C', installed, '--strip-components=1'], folder);
  fs.rmSync(source, { recursive: true });
  return { folder, tarball, remove: () => fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3 }) };
}

/** A new folder whose programs find the project's dependencies. The caller removes it. */
export function apart(name: string): string {
  fs.mkdirSync(CACHE, { recursive: true });
  return fs.mkdtempSync(path.join(CACHE, `${name}-`));
}

/**
 * Installs a package that only a spec needs, unless that was done before.
 *
 * @param others further packages to install, as npm names them
 * @returns the package's folder
 */
export function installApart(name: string, version: string, ...others: string[]): string {
  const folder = path.join(CACHE, [`${name}-${version}`, ...others].join('-').replaceAll('/', '-'));
  const installed = path.join(folder, 'node_modules', name);
  if (!fs.existsSync(path.join(installed, 'package.json'))) {
    fs.mkdirSync(folder, { recursive: true });
    const flags = ['--no-save', '--no-package-lock', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', folder];
    run('npm', ['install', ...flags, `${name}@${version}`, ...others], folder);
  }
  return installed;
}

function run(command: string, args: string[], cwd: string): string {
  return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
}
