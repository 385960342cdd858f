/** The diagnostics channel for statements; free while nobody subscribes to it. */

import { channel } from 'node:diagnostics_channel';
import { codeOf } from '../errors.js';
import type { StatementMessage } from '../events.js';
import type { Batch } from '../sql/query.js';

const statements = channel('express-pg-store:statement');

/**
 * Publishes a statement when it is answered.
 *
 * @param table the store's `schema.table`
 * @param kind the call that the statement is for
 */
export function traceStatement<T>(
  running: Promise<T>,
  table: string,
  kind: string,
  batch: Batch | undefined,
): Promise<T> {
  if (!statements.hasSubscribers) return running;
  const started = performance.now();
  const begun = { table, kind, rows: batch?.rows ?? 1, waitMs: batch?.waited() ?? 0 };
  const publish = (outcome: Pick<StatementMessage, 'code'>) => {
    const message: StatementMessage = { ...begun, runMs: performance.now() - started, ...outcome };
    statements.publish(message);
  };
  running.then(
    () => publish({}),
    (error) => publish({ code: codeOf(error) }),
  );
  return running;
}
