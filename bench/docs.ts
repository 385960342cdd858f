/**
 * Writes the figures of the last full run, from bench/results.json, into the documentation: the tables and sentences
 * between comments such as `<!-- bench:targets -->` and `<!-- /bench:targets -->`, and the chart docs/benchmark.svg.
 *
 *     npm run docs:bench
 */

import fs from 'node:fs';
import { chart } from './figures/chart.js';
import type { Spread } from './figures/measure.js';
import { isQuiet } from './figures/quiet.js';
import { figure, spread } from './figures/report.js';
import { describe, type Machine, type Row } from './figures/results.js';
import { type Target, titleOf } from './figures/targets.js';
import type { Deletion } from './parts/long.js';
import type { SignOuts } from './parts/sign-outs.js';

/** The parts of bench/results.json that the documentation shows. */
interface Stored {
  readonly machine: Machine;
  readonly stores: Row[];
  readonly options: Record<string, { get: Spread; set: Spread }>;
  readonly targets: Target[];
  readonly signOuts?: SignOuts[];
  readonly deletion?: Deletion;
  readonly clearing?: Deletion;
}

export const PAGES = ['README.md', 'docs/performance.md', 'bench/README.md'];
export const CHART = 'docs/benchmark.svg';
const file = (name: string) => new URL(`../${name}`, import.meta.url);
const stored = JSON.parse(fs.readFileSync(file('bench/results.json'), 'utf8')) as Stored;
const wasQuiet = stored.machine.quietness.every(isQuiet);

/** A page's text, with its sections replaced by the last run's figures. */
export function withFigures(page: string): string {
  return page.replace(/(<!-- bench:(\w+) -->\n).*?(<!-- \/bench:\2 -->)/gs, (_, start, section, end) => {
    const text = SECTIONS[section as string];
    if (!text) throw new Error(`no section ${section}`);
    return `${start}${text(stored)}\n${end}`;
  });
}

/** The chart of the last run. */
export function chartOfLastRun(): string {
  return chart(stored.stores, stored.machine);
}

/** Whether the documentation may say that an app is as fast as with MemoryStore. */
export function isAsFastAsMemory(): boolean {
  return ofMemory('read') >= 0.95 && wasQuiet;
}

/** The app's rate with PgStore as a multiple of its rate with MemoryStore. */
function ofMemory(path: 'read' | 'change'): number {
  return rowOf('PgStore', path, 100)?.ofMemory?.median ?? Number.NaN;
}

function rowOf(store: string, what: string, inFlight: number): Row | undefined {
  return stored.stores.find((row) => row.store === store && row.what === what && row.inFlight === inFlight);
}

/** PgStore's rate as a multiple of connect-pg-simple's: the median of the rounds' ratios. */
function timesPeer(what: string, inFlight: number): string | undefined {
  return rowOf('PgStore', what, inFlight)?.ratio.median.toPrecision(2);
}

/** The text of each section, by its name in the comments. */
const SECTIONS: Record<string, (stored: Stored) => string> = {
  throughput: () => {
    const times = (what: string, inFlight: number) => `${timesPeer(what, inFlight)} times`;
    const calls = (inFlight: number) =>
      `\`get\` runs at ${times('get', inFlight)}, \`set\` at ${times('set', inFlight)} and \`touch\` at ` +
      `${times('touch', inFlight)} connect-pg-simple's rate`;
    const [read, change] = [ofMemory('read').toFixed(2), ofMemory('change').toFixed(2)];
    const asFast = isAsFastAsMemory() ? 'as fast as with MemoryStore, ' : '';
    const sentences = [
      `An Express app that reads its session runs ${asFast}at ${read} times its rate with MemoryStore,`,
      `and one that changes it at ${change} times.`,
      `With 128 calls in flight, ${calls(128)}; with a lone one, ${calls(1)}.`,
      wasQuiet ? '' : 'The machine had other work meanwhile.',
    ];
    return `\n${wrapped(sentences.join(' ').trim())}\n`;
  },
  machine: ({ machine }) => `\n${wrapped(`Machine: ${describe(machine)}.`)}\n`,
  targets: ({ targets }) =>
    markdown(
      ['', 'goal', 'measured (quartiles)', ''],
      targets.map(({ what, goal, measured, reached }) => [
        what,
        goal,
        measured,
        reached ? 'reached' : '**not reached**',
      ]),
    ),
  rates: ({ stores }) => {
    const names = [...new Set(stores.map(({ store }) => store))];
    const titles = new Map(stores.map((row) => [titleOf(row), row]));
    return markdown(
      ['a second, median', ...names],
      [...titles].map(([title, { what, inFlight }]) => [
        title,
        ...names.map((name) => figure(rowOf(name, what, inFlight)?.rate.median ?? Number.NaN)),
      ]),
    );
  },
  options: ({ options }) =>
    markdown(
      ['rate with an option, without = 1', '`get`', '`set`'],
      Object.entries(options).map(([name, { get, set }]) => [`\`${name}\``, spread(get), spread(set)]),
    ),
  signouts: ({ signOuts = [] }) =>
    markdown(
      ['sign-ins at once', 'statements', 'of plain SQL', 'ms', 'of plain SQL, ms'],
      signOuts.map(({ signIns, ours, plainSql }) => [
        String(signIns),
        figure(ours.statements),
        figure(plainSql.statements),
        figure(ours.milliseconds),
        figure(plainSql.milliseconds),
      ]),
    ),
  deletions: ({ deletion, clearing }) => {
    const methods = { '`autodelete`': deletion, '`clear()`': clearing };
    const head = [
      'a million rows',
      'statements',
      'seconds',
      'longest statement',
      'p99 of `get` before',
      'meanwhile',
      'longest `get`',
    ];
    const rows = Object.entries(methods).flatMap(([name, measured]) => {
      if (!measured) return [];
      const { statements, seconds, longest, before, during, longestGet } = measured;
      const times = [longest, before, during, longestGet].map((ms) => `${figure(ms)} ms`);
      return [[name, String(statements), figure(seconds), ...times]];
    });
    return markdown(head, rows);
  },
  summary: ({ machine }) => {
    const { PostgreSQL: postgres, Redis: redis } = machine.versions;
    const chart =
      `![Rates beside connect-pg-simple's: get ${timesPeer('get', 128)} times, set ${timesPeer('set', 128)}, ` +
      `touch ${timesPeer('touch', 128)}; an Express app that reads the session ${timesPeer('read', 100)}, ` +
      `one that changes it ${timesPeer('change', 100)}](docs/benchmark.svg)`;
    const text =
      `Medians of one run (${describe(machine)}); the cores are shared by app, load generator and server, PostgreSQL ` +
      `${postgres} has its default durability, Redis${redis ? ` ${redis}` : ''} none.`;
    return `\n${chart}\n\n${wrapped(text)}\n`;
  },
};

function markdown(head: string[], rows: string[][]): string {
  const lines = [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  return `\n${lines.join('\n')}\n`;
}

/** The text in lines of at most 120 characters. */
function wrapped(text: string): string {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const longer = `${lines.at(-1)} ${word}`;
    if (lines.length > 0 && longer.length <= 120) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.join('\n');
}

if (process.argv[1] === import.meta.filename) {
  fs.writeFileSync(file(CHART), chartOfLastRun());
  for (const page of PAGES) fs.writeFileSync(file(page), withFigures(fs.readFileSync(file(page), 'utf8')));
}
