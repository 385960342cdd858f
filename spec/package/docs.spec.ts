/**
 * The documentation is right: its code compiles, its links lead somewhere, the files it names
 * exist.
 */

import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import * as benchmark from '../../bench/docs.js';
import { apart } from '../support/built-package.js';
import { filesBelow } from '../support/files.js';
import { sqlClient } from '../support/postgres.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const PAGES = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md', ...pagesIn('docs')].filter((page) =>
  fs.existsSync(path.join(ROOT, page)),
);

interface Block {
  /** Page and line, for messages. */
  readonly place: string;
  readonly language: string;
  readonly code: string;
}

/**
 * A block without imports takes names from the text around it; `…` in it stands for omitted code.
 */
function completed(code: string): string {
  const store = /(const|let) store\b/.test(code) ? '' : 'declare const store: PgStore;';
  return `import { PgStore } from 'express-pg-store'; ${store}\n${code.replaceAll('…', 'undefined')}`;
}

/** The code that the specs run, of which some pages show excerpts. */
const RUN_BY_SPECS = [
  'spec/apps/recipes.spec.ts',
  'spec/apps/recipes-sessions.spec.ts',
  ...frameworks('spec/apps'),
  ...frameworks('spec/tools'),
];

const NO_SUCH_NAME = /^.*error TS(2304|2552|18004):.*\n/gm;

describe('documentation', () => {
  it('has TypeScript and JavaScript that compiles', async () => {
    const folder = apart('docs');
    try {
      fs.mkdirSync(path.join(folder, 'excerpts'));
      const whole: string[] = [];
      const excerpts: string[] = [];
      for (const { place, language, code } of blocks('ts', 'typescript', 'js', 'javascript')) {
        const kind = language.startsWith('t') ? 'mts' : code.includes('require(') ? 'cjs' : 'mjs';
        const name = `${place.replace(/\W+/g, '-')}.${kind}`;
        const isWhole = kind !== 'mts' || /^import /m.test(code);
        const file = isWhole ? name : `excerpts/${name}`;
        (isWhole ? whole : excerpts).push(file);
        fs.writeFileSync(path.join(folder, file), isWhole ? code : completed(code));
      }
      assert(whole.length > 0);
      assert.equal(await compile(folder, whole, {}), '');
      const complaints = await compile(folder, excerpts, { noImplicitAny: false });
      assert.equal(complaints.replace(NO_SUCH_NAME, ''), '');
    } finally {
      fs.rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    }
  });

  it('has SQL that PostgreSQL can parse', async () => {
    const sql = await sqlClient();
    for (const { place, code } of blocks('sql')) {
      // PL/pgSQL parses each statement of a function that is created, and runs none of them.
      const statements = code.trim().replace(/;?$/, ';');
      const text = `create function pg_temp.docs() returns void language plpgsql as $docs$ begin\n${statements}\nend $docs$`;
      await sql
        .begin(async (transaction) => {
          await transaction.unsafe(text);
          await transaction.unsafe('drop function pg_temp.docs()');
        })
        .catch((error) => assert.fail(`${place}: ${error.message}`));
    }
  });

  it('has commands of the shell that it can parse, and that are there', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    for (const { place, code } of blocks('sh', 'bash', 'shell')) {
      execFileSync('bash', ['-n'], { input: code });
      for (const [, script] of code.matchAll(/npm run ([\w:-]+)/g))
        assert(script && scripts[script], `${place}: ${script}`);
      for (const [file] of code.matchAll(/\b(?:lib|spec|docs|bench|example)\/[\w./-]+\.\w+/g)) {
        assert(fs.existsSync(path.join(ROOT, file)), `${place}: ${file}`);
      }
    }
  });

  it('shows as a recipe, and for each framework, only lines of code that the specs run', () => {
    const linesOf = (code: string) => code.split('\n').map((line) => line.trim());
    const known = new Set(RUN_BY_SPECS.map(read).flatMap(linesOf));
    for (const { place, code } of blocks('ts')) {
      // The others are programs, which specs import.
      if (!/^docs.(frameworks|cookbook|operations)/.test(place) || /^import /m.test(code)) continue;
      for (const line of linesOf(code)) assert(known.has(line), `${place}: no spec runs this: ${line}`);
    }
  });

  it('links only to what is there', () => {
    for (const page of PAGES) {
      for (const [, link] of prose(page).matchAll(/\]\(([^)\s]+)\)/g) as Iterable<[string, string]>) {
        if (/^[a-z]+:/.test(link)) continue;
        const [file = '', anchor] = link.split('#');
        const target = file ? path.join(path.dirname(page), file) : page;
        assert(fs.existsSync(path.join(ROOT, target)), `${page}: ${link}`);
        if (anchor) assert(anchors(target).has(anchor), `${page}: ${link}`);
      }
    }
  });

  it('names only files that are there', () => {
    const known = new Set(['lib', 'spec', 'example'].flatMap(filesIn).map((file) => path.basename(file)));
    for (const page of PAGES) {
      for (const [, name] of prose(page).matchAll(
        /`((?:(?:lib|spec|docs|bench|example)\/)?[\w./-]+\.(?:ts|sql|md))`/g,
      )) {
        const isThere =
          known.has(name as string) ||
          fs.existsSync(path.join(ROOT, 'lib', name as string)) ||
          fs.existsSync(path.join(ROOT, name as string));
        assert(isThere || fs.existsSync(path.join(ROOT, path.dirname(page), name as string)), `${page}: ${name}`);
      }
    }
  });

  it('wraps prose and comments at 120 columns, but for tables, links and commands', () => {
    const long: string[] = [];
    const check = (file: string, text: string, isChecked: (line: string) => boolean) => {
      for (const [n, line] of text.split('\n').entries()) {
        if ([...line].length > 120 && isChecked(line) && !/\]\(|https?:/.test(line)) long.push(`${file}:${n + 1}`);
      }
    };
    const blank = (code: string) => code.replace(/[^\n]+/g, '');
    for (const page of PAGES) {
      check(page, read(page).replace(/^```.*?^```$/gms, blank), (line) => !line.startsWith('|'));
    }
    for (const folder of ['lib', 'spec', 'bench', 'example']) {
      for (const file of filesIn(folder).filter((name) => /\.c?ts$/.test(name))) {
        check(`${folder}/${file}`, read(`${folder}/${file}`), (line) => /^\s*(\/\*\*|\*|\/\/) {1,3}\S/.test(line));
      }
    }
    assert.deepEqual(long, []);
  });

  it('has the figures of the last run of the benchmark (`npm run docs:bench`)', () => {
    for (const page of benchmark.PAGES) assert.equal(read(page), benchmark.withFigures(read(page)));
  });

  it('says "as fast as" memory only where the benchmark shows it', () => {
    const claim = /as\s+fast\s+as\s+(with\s+)?(memory|MemoryStore)/i;
    const files = [
      ...PAGES,
      'package.json',
      ...fs.readdirSync(path.join(ROOT, 'example')).map((name) => `example/${name}`),
    ];
    const claiming = files.filter((file) => fs.statSync(path.join(ROOT, file)).isFile() && claim.test(read(file)));
    if (!benchmark.isAsFastAsMemory()) assert.deepEqual(claiming, []);
    else assert(claiming.includes('README.md'));
  });

  it('has in each file of lib/ a first line that says what the file does, as CONTRIBUTING.md promises', () => {
    for (const file of filesIn('lib')) assert.match(read(`lib/${file}`), /^(#!.*\n\n?)?\/\*\*\s/, file);
  });
});

/** What the compiler says to these files. */
async function compile(folder: string, files: string[], options: object): Promise<string> {
  if (files.length === 0) return '';
  const compilerOptions = {
    module: 'nodenext',
    target: 'es2023',
    lib: ['es2024', 'esnext.disposable'],
    moduleDetection: 'force',
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    allowJs: true,
    types: ['node', 'passport'],
    paths: { 'express-pg-store': [path.join(ROOT, 'lib/index.ts')] },
    ...options,
  };
  fs.writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }));
  const tsc = path.join(ROOT, 'node_modules/typescript/bin/tsc');
  const running = promisify(execFile)(process.execPath, [tsc, '-p', folder], { cwd: folder });
  const { stdout } = await running.catch((error) => error as { stdout: string });
  return stdout;
}

/** The programs below a folder of specs that run the store with other frameworks. */
function frameworks(folder: string): string[] {
  return filesIn(`${folder}/frameworks`).map((file) => `${folder}/frameworks/${file}`);
}

function filesIn(folder: string): string[] {
  return filesBelow(folder).filter((file) => path.extname(file) !== '');
}

function pagesIn(folder: string): string[] {
  const files = fs.readdirSync(path.join(ROOT, folder));
  return files.filter((file) => file.endsWith('.md')).map((file) => `${folder}/${file}`);
}

function read(file: string): string {
  return fs.readFileSync(path.join(ROOT, file), 'utf8');
}

function blocks(...languages: string[]): Block[] {
  return PAGES.flatMap((page) => {
    const text = read(page);
    return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(({ 1: language = '', 2: code = '', index }) => ({
      place: `${page}:${text.slice(0, index).split('\n').length}`,
      language,
      code,
    }));
  }).filter(({ language }) => languages.includes(language));
}

/** A page without its code blocks. */
function prose(page: string): string {
  return read(page).replace(/^```.*?^```$/gms, '');
}

/** The names that GitHub gives a page's headings. */
function anchors(page: string): Set<string> {
  const names = new Set<string>();
  for (const [, heading = ''] of prose(page).matchAll(/^#+ +(.+)$/gm)) {
    const text = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
    const name = text.replace(/[^\p{L}\p{N}\s_-]/gu, '').replace(/\s/g, '-');
    let unique = name;
    for (let n = 1; names.has(unique); n++) unique = `${name}-${n}`;
    names.add(unique);
  }
  return names;
}
