/** The tables that a run prints, one for each part. */

import { updateRows } from '../parts/updates.js';
import { figure, spread, table } from './report.js';
import { type Results, type Row, ratioOf } from './results.js';
import type { Samples } from './samples.js';
import { targetsOf, titleOf } from './targets.js';

/** The tables of the parts that were measured in this run. */
export function tablesOf(rows: readonly Row[], results: Results, options: readonly string[]): string[] {
  const { variants, signOuts, updates, watches, deletion, clearing } = results;
  const tables = [...new Set(rows.map(titleOf))].map((title) =>
    tableOfStores(
      title,
      rows.filter((row) => titleOf(row) === title),
    ),
  );
  if (signOuts) tables.push(tableOfSignOuts(signOuts));
  if (updates) tables.push(tableOfUpdates(updates));
  if (watches) tables.push(tableOfWatches(watches));
  if (deletion) tables.push(tableOfDeletion('autodelete', deletion));
  if (clearing) tables.push(tableOfDeletion('clear', clearing));
  if (variants.of('off', 'get', 128).length > 0) tables.push(tableOfOptions(variants, ['off', ...options]));
  tables.push(tableOfTargets(results));
  return tables;
}

/** One row for each store. CPU is that of this process for a call, or of the app's process for a request. */
function tableOfStores(title: string, rows: readonly Row[]): string {
  const head = [title, 'a second', 'x connect-pg-simple', 'p50 ms', 'p99 ms', 'CPU µs', 'x its CPU', 'loop p99 ms'];
  const lines = rows.map(({ store, rate, ratio, p50, p99, cpu, cpuRatio, delay }) => [
    store,
    spread(rate),
    spread(ratio),
    figure(p50),
    figure(p99),
    figure(cpu),
    figure(cpuRatio.median),
    figure(delay ?? Number.NaN),
  ]);
  return table(head, lines);
}

function tableOfSignOuts(signOuts: NonNullable<Results['signOuts']>): string {
  const head = ['sign-ins at once', 'statements', "plain SQL's", 'ms', "plain SQL's ms", 'failed'];
  const lines = signOuts.map(({ signIns, ours, plainSql, failed }) => [
    String(signIns),
    figure(ours.statements),
    figure(plainSql.statements),
    figure(ours.milliseconds),
    figure(plainSql.milliseconds),
    String(failed),
  ]);
  return table(head, lines);
}

function tableOfUpdates(samples: Samples): string {
  const lines = updateRows(samples).map(({ inFlight, ratio }) => [`${inFlight} in flight`, spread(ratio)]);
  return table(['rate of `update`, of `get` and then `set` = 1', ''], lines);
}

function tableOfWatches({ sessions, interval, ...costs }: NonNullable<Results['watches']>): string {
  return table(
    [`${figure(sessions)} watched sessions, checked every ${interval} s`, ''],
    [
      ['statements of a check', figure(costs.statements)],
      ['CPU of the server for a check, ms', figure(costs.serverCpu)],
      ['CPU of the process for a check, ms', figure(costs.processCpu)],
      ['deletion until callback, median, ms', figure(costs.noticed)],
      ['deletion until callback, longest, ms', figure(costs.noticedLast)],
    ],
  );
}

function tableOfDeletion(method: string, deletion: NonNullable<Results['deletion']>): string {
  return table(
    [`${figure(deletion.rows)} rows deleted by ${method}, 32 gets in flight`, ''],
    [
      ['statements', String(deletion.statements)],
      ['seconds', figure(deletion.seconds)],
      ['longest statement, ms', figure(deletion.longest)],
      ['p99 of the gets before, ms', figure(deletion.before)],
      ['p99 of the gets meanwhile, ms', figure(deletion.during)],
      ['longest get meanwhile, ms', figure(deletion.longestGet)],
    ],
  );
}

function tableOfOptions(variants: Samples, names: readonly string[]): string {
  const lines = names.map((name) => [
    name,
    spread(ratioOf(variants, name, 'off', 'get', 128)),
    spread(ratioOf(variants, name, 'off', 'set', 128)),
  ]);
  return table(['rate with an option, off = 1', 'get', 'set'], lines);
}

function tableOfTargets(results: Results): string {
  const lines = targetsOf(results).map(({ what, goal, measured, reached }) => [
    what,
    goal,
    measured,
    reached ? 'reached' : 'NOT reached',
  ]);
  return table(['target', 'goal', 'measured (quartiles)', ''], lines, 'left');
}
