/** Draws the rates as an SVG: bars as multiples of connect-pg-simple's, in colours for light and dark pages. */

import { describe, type Machine, type Row } from './results.js';

const LABELS: Readonly<Record<string, string>> = {
  'read 100': 'Express app, reading',
  'change 100': 'Express app, changing',
  'get 128': 'get',
  'set 128': 'set, changed data',
  'replace 128': 'set, plain object',
  'touch 128': 'touch',
};
const COLOURS: Readonly<Record<string, string>> = {
  PgStore: '#1f9d74',
  'PgStore on pg.Pool': '#7cc6ab',
  'connect-redis (redis 5)': '#d9534f',
  'connect-redis (redis 6)': '#e08e45',
  MemoryStore: '#8a7fd0',
  'plain postgres': '#a39a3c',
  'connect-pg-simple': '#4a8fd4',
};
/** The colour of text. It has a contrast of at least 4 to 1 with white and with GitHub's dark background. */
const TEXT = '#74808d';

const WIDTH = 760;
const LABEL_WIDTH = 160;
/** The width of the longest bar, which leaves room for its figure at the right. */
const BARS_WIDTH = 540;
const BAR = 14;
const GAP = 12;
const TOP = 92;

interface Bar {
  readonly operation: string;
  readonly store: string;
  readonly ratio: number;
}

/** The chart of rates at 128 calls in flight, and of the app with 100 connections. */
export function chart(rows: readonly Row[], machine: Machine): string {
  const bars = barsOf(rows);
  const longest = Math.max(1, ...bars.map(({ ratio }) => ratio));
  const step = stepOf(longest);
  const end = Math.ceil(longest / step) * step;
  const x = (ratio: number) => LABEL_WIDTH + (ratio / end) * BARS_WIDTH;
  const operations = Object.values(LABELS).filter((label) => bars.some(({ operation }) => operation === label));
  const stores = Object.keys(COLOURS).filter((name) => bars.some(({ store }) => store === name));

  const drawn: string[] = [];
  let y = TOP;
  for (const operation of operations) {
    const group = stores.flatMap((name) => bars.filter((bar) => bar.operation === operation && bar.store === name));
    const middle = y + (group.length * BAR) / 2;
    drawn.push(text(LABEL_WIDTH - 8, middle + 4, operation, 'size-13', 'end'));
    for (const { store, ratio } of group) {
      drawn.push(rectangle(LABEL_WIDTH, y, x(ratio) - LABEL_WIDTH, BAR - 1, COLOURS[store] as string));
      drawn.push(text(x(ratio) + 4, y + BAR - 4, `${ratio.toPrecision(2)}×`, 'size-10'));
      y += BAR;
    }
    y += GAP;
  }
  const axis = y;
  const ticks = Array.from({ length: Math.round(end / step) + 1 }, (_, n) => n * step);
  const grid = ticks.map(
    (tick) =>
      `<path d="M${rounded(x(tick))} ${TOP - 6}V${axis}" class="grid"/>` +
      text(x(tick), axis + 16, String(tick), 'size-11', 'middle'),
  );
  const title = text(LABEL_WIDTH + BARS_WIDTH / 2, axis + 34, "times connect-pg-simple's rate", 'size-12', 'middle');
  const { drawn: legend, height } = drawLegend(stores, axis + 52);
  const heading = [
    text(0, 18, 'Requests and calls a second, beside connect-pg-simple', 'size-15'),
    text(
      0,
      38,
      'Express 5 app: 100 connections. Calls: 128 in flight. PostgreSQL is durable, Redis keeps nothing',
      'size-12',
    ),
    text(0, 54, `on disk. ${describe(machine)}`, 'size-12'),
  ];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<style>text { fill: ${TEXT}; font-family: system-ui, sans-serif } .grid { stroke: ${TEXT}; stroke-opacity: 0.25 }`,
    ...[10, 11, 12, 13, 15].map((size) => `.size-${size} { font-size: ${size}px }`),
    '.size-15 { font-weight: bold }</style>',
    ...heading,
    ...grid,
    ...drawn,
    title,
    ...legend,
    '</svg>',
    '',
  ].join('\n');
}

function barsOf(rows: readonly Row[]): Bar[] {
  return rows.flatMap(({ what, inFlight, store, ratio }) => {
    const operation = LABELS[`${what} ${inFlight}`];
    // A call of MemoryStore does not leave the process. Beside it the other bars would be too short to be compared.
    const isHidden = store === 'MemoryStore' && inFlight === 128;
    return operation === undefined || isHidden ? [] : [{ operation, store, ratio: ratio.median }];
  });
}

/** The distance between two lines of the grid, so that there are at most ten. */
function stepOf(longest: number): number {
  return [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].find((step) => longest / step <= 10) ?? 1000;
}

function drawLegend(stores: readonly string[], top: number): { drawn: string[]; height: number } {
  const drawn: string[] = [];
  let x = 0;
  let y = top;
  for (const store of stores) {
    // This is the largest width that the text may have. Its real width depends on the reader's fonts.
    const width = 24 + store.length * 7;
    if (x + width > WIDTH) {
      x = 0;
      y += 18;
    }
    drawn.push(rectangle(x, y, 10, 10, COLOURS[store] as string), text(x + 15, y + 9, store, 'size-11'));
    x += width;
  }
  return { drawn, height: y + 22 };
}

function rectangle(x: number, y: number, width: number, height: number, fill: string): string {
  return `<rect x="${rounded(x)}" y="${rounded(y)}" width="${rounded(width)}" height="${height}" fill="${fill}"/>`;
}

function text(
  x: number,
  y: number,
  content: string,
  size: string,
  anchor: 'start' | 'middle' | 'end' = 'start',
): string {
  return `<text x="${rounded(x)}" y="${rounded(y)}" class="${size}" text-anchor="${anchor}">${escaped(content)}</text>`;
}

function rounded(value: number): number {
  return Math.round(value * 10) / 10;
}

function escaped(content: string): string {
  return content.replace(/&/g, '&amp;').replace(/</g, '&lt;');
}
