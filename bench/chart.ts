/** Draws the rates as bars of ratios, by Vega-Lite, in colours that show on white and on black. */

import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import { describe, type Machine, type Row } from './results.js';

const LABELS: Record<string, string> = {
  'get 128': 'get',
  'set 128': 'set, changed data',
  'replace 128': 'set, plain object',
  'touch 128': 'touch',
  'read 100': 'Express app, reading',
  'change 100': 'Express app, changing',
};
const COLOURS: Record<string, string> = {
  PgStore: '#1f9d74',
  'PgStore on pg.Pool': '#7cc6ab',
  'connect-redis (redis 5)': '#d9534f',
  'connect-redis (redis 6)': '#e08e45',
  MemoryStore: '#8a7fd0',
  'plain postgres': '#a39a3c',
  'connect-pg-simple': '#4a8fd4',
};
/** Contrast of at least 4 to 1 with white and with GitHub's dark page. */
const TEXT = '#74808d';

/** Rates as multiples of connect-pg-simple's, at 128 calls in flight and 100 connections. */
export function chart(rows: Row[], machine: Machine): Promise<string> {
  const values = rows.flatMap((row) => {
    const operation = LABELS[`${row.what} ${row.inFlight}`];
    // Its calls alone only look into an object: many times anything that leaves the process.
    if (!operation || (row.store === 'MemoryStore' && row.inFlight === 128)) return [];
    const ratio = row.ratio.median;
    return [{ operation, store: row.store, ratio, label: `${ratio.toPrecision(2)}×` }];
  });
  const order = Object.keys(COLOURS).filter((store) => values.some((value) => value.store === store));
  const position = {
    y: {
      field: 'operation',
      type: 'nominal',
      sort: Object.values(LABELS),
      title: null,
      axis: { labelFontSize: 13, labelLimit: 300 },
    },
    yOffset: { field: 'store', sort: order },
    x: { field: 'ratio', type: 'quantitative', axis: { title: "times connect-pg-simple's rate" } },
  } as const;
  const spec: TopLevelSpec = {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    width: 560,
    height: { step: 15 },
    background: 'transparent',
    title: {
      text: 'Calls and requests a second, beside connect-pg-simple',
      subtitle: [
        'Calls: 128 in flight. Express 5 app: 100 connections. PostgreSQL is durable, Redis keeps nothing on disk.',
        describe(machine),
      ],
      anchor: 'start',
      offset: 12,
    },
    data: { values },
    layer: [
      {
        mark: 'bar',
        encoding: {
          ...position,
          color: {
            field: 'store',
            type: 'nominal',
            sort: order,
            scale: { domain: order, range: order.map((store) => COLOURS[store]) },
            legend: { title: null, orient: 'bottom' },
          },
        },
      },
      {
        mark: { type: 'text', align: 'left', dx: 4, fontSize: 10, color: TEXT },
        encoding: { ...position, text: { field: 'label' } },
      },
    ],
    config: {
      font: 'system-ui, sans-serif',
      axis: {
        labelColor: TEXT,
        titleColor: TEXT,
        domainColor: TEXT,
        tickColor: TEXT,
        gridColor: TEXT,
        gridOpacity: 0.25,
      },
      legend: { labelColor: TEXT },
      title: { color: TEXT, subtitleColor: TEXT, fontSize: 15 },
      view: { stroke: null },
    },
  };
  return new View(parse(compile(spec).spec), { renderer: 'none' }).toSVG();
}
