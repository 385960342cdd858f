/** Tables of text, and how a figure is rounded. */

import type { Spread } from './measure.js';

type Cell = string | number;

/** The first column to the left, figures to the right. */
export function table(head: string[], rows: Cell[][], figures: 'left' | 'right' = 'right'): string {
  const lines = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  const text = lines.map((line) =>
    line
      .map((cell, column) =>
        column === 0 || figures === 'left' ? cell.padEnd(widths[column]) : cell.padStart(widths[column]),
      )
      .join('  ')
      .trimEnd(),
  );
  return [text[0], widths.map((width) => '-'.repeat(width)).join('  '), ...text.slice(1)].join('\n');
}

/** A median with its quartiles. */
export function spread({ median, quartiles: [low, high] }: Spread): string {
  return `${figure(median)} (${figure(low)}–${figure(high)})`;
}

/** Three significant digits are more than the rounds agree on. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (value >= 1000) return Number(value.toPrecision(3)).toLocaleString('en');
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
