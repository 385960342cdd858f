/** docs/architecture.md shows by which files and functions a call goes: this is what runs. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { Session } from 'node:inspector/promises';
import path from 'node:path';
import { type Deadline, deadlines } from '../../lib/calls/deadline.js';
import type { PgStore } from '../../lib/index.js';
import { closeStores, openOwnStore } from '../support/postgres.js';
import { generated, loaded } from '../support/sessions.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const LIB = path.join(ROOT, 'lib');

/** The files that a call goes through on its way to the wire: more than these are hard to follow. */
const MOST_FILES = 12;

interface Way {
  /** In the order of the table. */
  readonly steps: readonly { readonly file: string; readonly function: string }[];
  /** What the steps ask on the way, and on the way back. */
  readonly asked: readonly string[];
}

describe('the way of a call', () => {
  let store: PgStore;
  let inspector: Session;
  let watched: Deadline;

  before(async () => {
    inspector = new Session();
    inspector.connect();
    // The timer of all deadlines is set for this one, so no call has to set it, whatever ran before in this process.
    watched = deadlines.watch(performance.now() + 30_000, () => {});
    await inspector.post('Profiler.enable');
    await inspector.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false });
    store = await openOwnStore({ touchAfter: 0 });
    await store.set('sid', generated(store, 'sid', { n: 0 }));
    // Twice, so that neither the table is looked for nor a connection opened by the call that is looked at.
    for (let n = 1; n <= 2; n++) await store.set('sid', Object.assign(await loaded(store, 'sid'), { n }));
  });

  after(async () => {
    await inspector.post('Profiler.stopPreciseCoverage');
    inspector.disconnect();
    deadlines.end(watched);
    await closeStores();
  });

  /** The functions of lib/ that run in a call, by file. */
  async function run(call: () => Promise<unknown>): Promise<Map<string, string[]>> {
    await inspector.post('Profiler.takePreciseCoverage');
    await call();
    const { result } = await inspector.post('Profiler.takePreciseCoverage');
    const files = new Map<string, string[]>();
    for (const { url, functions } of result) {
      const file = url.startsWith('file:') ? path.relative(LIB, new URL(url).pathname) : '..';
      const names = functions.filter(({ ranges }) => (ranges[0]?.count ?? 0) > 0).map((one) => one.functionName);
      // Constants' names are those of their getters.
      const own = names.filter((name) => !/^(|__name|[A-Z_]+)$/.test(name));
      if (!file.startsWith('..') && own.length > 0) files.set(file.split(path.sep).join('/'), own);
    }
    return files;
  }

  const calls: Record<string, () => Promise<() => Promise<unknown>>> = {
    get: async () => () => store.get('sid'),
    'set of a changed session': async () => {
      const session = Object.assign(await loaded(store, 'sid'), { n: 3 });
      return () => store.set('sid', session);
    },
  };
  for (const [title, prepare] of Object.entries(calls)) {
    it(`${title} is as docs/architecture.md shows it`, async () => {
      const { steps, asked } = documented(title);
      const ran = await run(await prepare());
      // tsx lets modules read each other's exports by getters of this name.
      const isGetter = (file: string, name: string) => name === 'get' && !steps.some((step) => step.file === file);
      for (const [file, names] of ran) if (names.every((name) => isGetter(file, name))) ran.delete(file);
      assert.deepEqual([...ran.keys()].sort(), [...new Set([...steps.map(({ file }) => file), ...asked])].sort());
      for (const { file, function: name } of steps) {
        assert(
          ran.get(file)?.some((one) => one.endsWith(name)),
          `${name} of ${file} ran: ${ran.get(file)}`,
        );
      }
    });

    it(`${title} goes through each file once, and through at most ${MOST_FILES} to the wire`, () => {
      const files = documented(title).steps.map(({ file }) => file);
      assert.equal(new Set(files).size, files.length);
      assert(files.length <= MOST_FILES, `${files.length} files`);
    });
  }
});

/** What the section of this title says. */
function documented(title: string): Way {
  const text = fs.readFileSync(path.join(ROOT, 'docs/architecture.md'), 'utf8');
  const start = text.indexOf(`\n### ${title}\n`);
  assert(start >= 0, `no section ${title}`);
  const section = text.slice(start, text.indexOf('\n#', start + 6 + title.length));
  const rows = [...section.matchAll(/^\| `([\w/-]+\.ts)` \| `(?:\w+\.)?(#?\w+)` \|/gm)];
  const steps = rows.map(([, file = '', name = '']) => ({ file, function: name }));
  const lists = section.replaceAll(/^\|.*$/gm, '');
  const asked = [...lists.matchAll(/`([\w/-]+\.ts)`/g)].map(([, file = '']) => file);
  return { steps, asked };
}
