/** Metrics for Prometheus, of all stores of the process. Import it before the first store is used. */

import { subscribe } from 'node:diagnostics_channel';
import type { PgStoreDiagnostics } from 'express-pg-store';
import { Counter, Histogram } from 'prom-client';

function on<Name extends keyof PgStoreDiagnostics>(name: Name, listen: (message: PgStoreDiagnostics[Name]) => void) {
  subscribe(name, (message) => listen(message as PgStoreDiagnostics[Name]));
}

const buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5];
const labelNames = ['kind'];
const run = new Histogram({ name: 'session_statement_seconds', help: 'Until the answer', labelNames, buckets });
const wait = new Histogram({ name: 'session_wait_seconds', help: 'For other statements', labelNames, buckets });
const calls = new Counter({ name: 'session_calls_total', help: 'Calls in statements', labelNames });
const failures = new Counter({ name: 'session_failures_total', help: 'Failures', labelNames: ['kind', 'code'] });
const conflicts = new Counter({ name: 'session_conflicts_total', help: 'Saves merged with others' });
const retries = new Counter({ name: 'session_retries_total', help: 'Statements tried again', labelNames });
const deleted = new Counter({ name: 'session_autodeleted_total', help: 'Expired rows deleted' });

on('express-pg-store:statement', ({ kind, rows, waitMs, runMs, code }) => {
  run.observe({ kind }, runMs / 1000);
  wait.observe({ kind }, waitMs / 1000);
  calls.inc({ kind }, rows);
  if (code !== undefined) failures.inc({ kind, code });
});
on('express-pg-store:conflict', () => conflicts.inc());
on('express-pg-store:retry', ({ kind }) => retries.inc({ kind }));
on('express-pg-store:autodelete', ({ rows }) => deleted.inc(rows));
