/** Imports in lib/ go one way. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { filesBelow } from '../support/files.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const FILES = filesIn('lib');

interface Import {
  readonly from: string;
  /** A file of the same folder, such as `calls/batcher.ts`, or a package's name. */
  readonly to: string;
  readonly typeOnly: boolean;
}

/** What each folder may import; `type:` in front allows only types. */
const ALLOWED: Record<string, readonly string[]> = {
  calls: ['calls/', 'errors.ts', 'node:'],
  session: [
    'session/',
    'calls/',
    'errors.ts',
    'type:options.ts',
    'type:events.ts',
    'type:express-session',
    'cookie-signature',
    'node:',
  ],
  sql: ['sql/', 'session/', 'calls/', 'errors.ts', 'type:options.ts', 'pg-format', 'node:'],
  client: ['client/', 'sql/', 'calls/', 'errors.ts', 'type:events.ts', 'type:options.ts', 'postgres', 'node:'],
};

describe('lib/', () => {
  const imports = FILES.flatMap((file) => importsOf('lib', file));

  for (const [folder, allowed] of Object.entries(ALLOWED)) {
    it(`${folder}/ imports nothing but ${allowed.join(', ')}`, () => {
      const own = imports.filter(({ from }) => from.startsWith(`${folder}/`));
      assert(own.length > 0);
      const isAllowed = ({ to, typeOnly }: Import) =>
        allowed.some((rule) => to.startsWith(rule) || (typeOnly && to.startsWith(rule.replace('type:', ''))));
      assert.deepEqual(own.filter((one) => !isAllowed(one)).map(shown), []);
    });
  }

  it('is used by its command line, not the other way round', () => {
    const intoCli = imports.filter(({ from, to }) => to.startsWith('cli/') && !from.startsWith('cli/'));
    assert.deepEqual(intoCli.map(shown), []);
  });
});

describe('specs of session/ and calls/', () => {
  it('start no PostgreSQL: they import nothing that could', () => {
    const specs = ['session', 'calls'].flatMap((folder) =>
      filesIn(`spec/${folder}`).map((file) => `${folder}/${file}`),
    );
    assert(specs.length > 20);
    const reached = new Set(specs);
    for (const file of reached) {
      // Files of lib/ are checked above, and packages have no dot in front.
      if (!fs.existsSync(path.join(ROOT, 'spec', file))) continue;
      for (const { to } of importsOf('spec', file)) reached.add(to);
    }
    assert(reached.has('support/memory-statements.ts'));
    assert.deepEqual(
      [...reached].filter((file) => /^support\/postgres/.test(file)),
      [],
    );
  });
});

describe('imports', () => {
  for (const folder of ['lib', 'bench', 'example', 'spec/support']) {
    it(`have no cycle in ${folder}/, those of types included`, () => {
      const files = filesIn(folder);
      const imports = files.flatMap((file) => importsOf(folder, file));
      assert(imports.length > 0);
      const done = new Set<string>();
      const visit = (file: string, above: string[]) => {
        if (above.includes(file)) assert.fail([...above.slice(above.indexOf(file)), file].join(' → '));
        if (done.has(file)) return;
        for (const { to } of imports.filter(({ from }) => from === file)) visit(to, [...above, file]);
        done.add(file);
      };
      for (const file of files) visit(file, []);
    });
  }
});

function filesIn(folder: string): string[] {
  return filesBelow(folder).filter((file) => /\.c?ts$/.test(file));
}

function importsOf(folder: string, file: string): Import[] {
  const text = read(folder, file).replace(/\/\*.*?\*\/|^\s*\/\/.*$/gms, '');
  const statements = /^(?:import|export)\s+(?:([^;'"=()]*?)\s*(?:from|=\s*require\()\s*)?'([^']+)'/gm;
  return [...text.matchAll(statements)].map(([, names = '', specifier = '']) => ({
    from: file,
    to: specifier.startsWith('.')
      ? path.posix.join(path.posix.dirname(file), specifier).replace(/\.js$/, '.ts')
      : specifier,
    typeOnly: /^type\s/.test(names) || /^\{(\s*type\s+\w+(\s+as\s+\w+)?\s*,?)+\s*\}$/.test(names),
  }));
}

function shown({ from, to, typeOnly }: Import): string {
  return `${from} imports ${typeOnly ? 'types of ' : ''}${to}`;
}

function read(folder: string, file: string): string {
  return fs.readFileSync(path.join(ROOT, folder, file), 'utf8');
}
