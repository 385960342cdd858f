/** How are figures shown? As tables of text. */

import type { Target } from './targets.js';

type Cell = string | number;

/** The first column to the left, figures to the right. */
export function table(head: string[], rows: Cell[][]): string {
  const lines = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  const text = lines.map((line) =>
    line
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
      .join('  ')
      .trimEnd(),
  );
  return [text[0], widths.map((width) => '-'.repeat(width)).join('  '), ...text.slice(1)].join('\n');
}

/** The first column and the last to the left. */
export function targetTable(targets: Target[]): string {
  const measured = targets.map((target) => target.measured);
  const width = (cells: string[]) => Math.max(...cells.map((cell) => cell.length));
  const columns = [width(targets.map(({ what }) => what)), width(targets.map(({ goal }) => goal)), width(measured)];
  const line = (cells: string[]) => cells.map((cell, n) => cell.padEnd(columns[n] ?? 0)).join('  ');
  return targets
    .map(({ what, goal, measured, reached }) => line([what, goal, measured, reached ? 'reached' : 'NOT reached']))
    .join('\n');
}

/** Three significant digits are more than the rounds agree on. */
export function figure(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (value >= 1000) return Number(value.toPrecision(3)).toLocaleString('en');
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
