/** The benchmark's figures are what they say, and each of its parts works. */

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { CHART, chartOfLastRun } from '../../bench/docs.js';
import { chart } from '../../bench/figures/chart.js';
import { quantile, ratios, type Sample, spreadOf } from '../../bench/figures/measure.js';
import { describeQuietness, isQuiet, LIMITS, relativeSpread } from '../../bench/figures/quiet.js';
import { describe as describeMachine, type Row } from '../../bench/figures/results.js';
import { Samples } from '../../bench/figures/samples.js';
import { tablesOf } from '../../bench/figures/tables.js';
import { App, LoadGenerator, measureApp } from '../../bench/parts/apps.js';
import { signOuts } from '../../bench/parts/sign-outs.js';
import { updateRows, updates } from '../../bench/parts/updates.js';
import { watches } from '../../bench/parts/watches.js';
import { build } from '../../bench/stores/build.js';
import type { Servers } from '../../bench/stores/peers.js';
import { PostgresServer } from '../support/postgres-server.js';

const samples = (rates: number[]) => rates.map((rate): Sample => ({ rate, p50: 1, p99: 2, cpu: 3, delay: 4 }));

describe('the benchmark’s figures', () => {
  it('are medians with their quartiles, interpolated', () => {
    assert.deepEqual(spreadOf([4, 1, 3, 2]), { median: 2.5, quartiles: [1.75, 3.25] });
    assert.deepEqual(spreadOf([7]), { median: 7, quartiles: [7, 7] });
    assert.equal(quantile([10, 30], 0.25), 15);
    assert.equal(quantile([], 0.5), Number.NaN);
  });

  it('compare stores round by round: a slow round is slow for both', () => {
    assert.equal(ratios(samples([100, 10, 400]), samples([50, 5, 200])).median, 2);
  });

  it('come from a quiet machine: each of its measures has a limit', () => {
    assert(isQuiet(LIMITS));
    for (const what of ['busy', 'loop', 'gets'] as const) {
      const busy = { ...LIMITS, [what]: LIMITS[what] + 0.01 };
      assert(!isQuiet(busy), what);
      assert.match(describeQuietness(busy), /NOT quiet/);
    }
    assert.equal(relativeSpread([90, 100, 110, 100, 100]), 0);
    assert.equal(relativeSpread([80, 90, 100, 110, 120]), 0.2);
  });

  it('say so where it was not quiet, before or after the run', () => {
    const busy = { ...LIMITS, busy: 1 };
    const machine = { date: '', cpu: '', cores: 2, memoryGb: 1, system: '', versions: {}, quietness: [LIMITS, busy] };
    assert.match(describeMachine(machine), /OTHER WORK/);
    assert.doesNotMatch(describeMachine({ ...machine, quietness: [LIMITS, LIMITS] }), /OTHER WORK/);
  });
});

describe('the benchmark’s chart', () => {
  const machine = { date: 'a day', cpu: 'A & B', cores: 2, memoryGb: 1, system: '', versions: {}, quietness: [LIMITS] };
  const row = (store: string, what: string, inFlight: number, ratio: number): Row => {
    const spread = spreadOf([ratio]);
    return { what, inFlight, store, rate: spread, ratio: spread, p50: 1, p99: 1, cpu: 1, cpuRatio: spread };
  };

  it('has a bar for each store and operation, as long as its ratio', () => {
    const svg = chart([row('PgStore', 'get', 128, 8), row('connect-pg-simple', 'get', 128, 1)], machine);
    const lengths = [...svg.matchAll(/<rect .*?width="([\d.]+)" height="13"/g)].map(([, width]) => Number(width));
    assert.equal(lengths.length, 2);
    assert.equal(lengths[0] / lengths[1], 8);
    assert.match(svg, />8\.0×</);
    assert.match(svg, /A &amp; B/);
  });

  it('leaves out what is measured elsewhere, and MemoryStore’s own calls', () => {
    const svg = chart([row('MemoryStore', 'get', 128, 50), row('PgStore', 'get', 1, 1)], machine);
    assert.doesNotMatch(svg, /<rect/);
  });

  it('is that of the last run (`npm run docs:bench`)', () => {
    assert.equal(fs.readFileSync(CHART, 'utf8'), chartOfLastRun());
  });
});

describe('the benchmark’s parts', () => {
  let server: PostgresServer;
  let servers: Servers;
  const noStep = () => {};

  before(async () => {
    build();
    server = await PostgresServer.start({ settings: { fsync: 'off' } });
    servers = { postgres: server.uri, redis: undefined };
  });
  after(() => server.close());

  it('counts the statements of sign-ins that sign out everywhere else, beside plain SQL', async () => {
    const measured = await signOuts(servers, [2, 3], 1, noStep);
    assert.deepEqual(
      measured.map(({ signIns, plainSql, failed }) => [signIns, plainSql.statements, failed]),
      [
        [2, 4, 0],
        [3, 6, 0],
      ],
    );
    assert(measured.every(({ ours }) => ours.statements >= 2 && ours.milliseconds > 0));
    const [table] = tablesOf([], { samples: new Samples(), variants: new Samples(), signOuts: measured }, []);
    assert.match(table as string, /sign-ins at once/);
  });

  it('compares `update` with a `get` and then a `set`', async () => {
    for (const { ratio } of updateRows(await updates(servers, 20, 1, noStep))) assert(ratio.median > 0);
  });

  it('counts what watched sessions cost, and notices each end', async () => {
    const measured = await watches(servers, server, 200, 1);
    assert(measured.statements > 0 && measured.noticed > 0 && measured.noticedLast >= measured.noticed);
  });

  it('measures an app whose sessions are one long string', async () => {
    const generator = new LoadGenerator();
    const app = await App.start('PgStore', servers);
    const sample = await measureApp(app, generator, '/read-text', 0.3);
    assert(sample.rate > 0 && sample.cpu > 0);
    await app.stop();
    await generator.stop();
  });
});
