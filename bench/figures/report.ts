/** Formats tables as text, and rounds figures. */

import type { Spread } from './measure.js';

type Cell = string | number;

/** A table as text. The first column is aligned to the left, the others as `figures` says. */
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

/** A median with its quartiles, as text. */
export function spread({ median, quartiles: [low, high] }: Spread): string {
  return `${figure(median)} (${figure(low)}–${figure(high)})`;
}

/** A figure with three significant digits, which is more than the rounds agree on; `-` for NaN and infinity. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (value >= 1000) return Number(value.toPrecision(3)).toLocaleString('en');
  if (value >= 100) return value.toFixed(0);
  return value.toFixed(value >= 10 ? 1 : 2);
}
